"""`octavo run --watch`: a page while it works, and nothing left of it afterwards."""

import re

import httpx2
import pytest
import yaml

from made_run import make_run
from octavo.cli import exit_code_of
from octavo.press import Press
from octavo.watch import watching
from tiny_recipe import RECIPE


def test_two_runs_are_watched_at_once_and_their_ports_are_free_again(tmp_path):
    make_run(tmp_path / "a")
    with watching(tmp_path, open_browser=False) as one, watching(tmp_path, open_browser=False) as other:
        assert one != other
        for address in (one, other):
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/runs", address)
            assert "/runs/a" in httpx2.get(address).text
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(one)


def test_the_command_tells_where_to_look_and_shows_its_own_run(tmp_path, monkeypatch, capsys):
    seen = []

    def run(press: Press) -> None:
        press.run_dir.path.mkdir()
        press.run_dir.config_path.write_text(yaml.safe_dump(press.recipe.dump(), sort_keys=False))
        address = re.search(r"To watch it: (\S+)", capsys.readouterr().out)[1]
        seen.append(httpx2.get(f"{address}/tiny").text)

    monkeypatch.setattr(Press, "run", run)
    monkeypatch.delenv("DISPLAY", raising=False)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert exit_code_of(["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "tiny"), "--watch"]) == 0
    assert "not begun" in seen[0]
    assert "eval-tuned" in seen[0]
