"""The examples of the repository, made small."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def example() -> Callable[[str], ModuleType]:
    """Loads a file of the examples: `example("nairobi/questions.py")`."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{Path(path).stem}", EXAMPLES / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def generate(example, tmp_path_factory) -> Callable[[str, Sequence[str]], Path]:
    """Runs a generator as its command does, and gives the folder that it wrote: `generate("nairobi/questions.py")`."""

    def run(path: str, options: Sequence[str] = ()) -> Path:
        folder = tmp_path_factory.mktemp("example") / "made" / "here"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [path, str(folder), *options])
            example(path).main()
        return folder

    return run


@pytest.fixture(scope="session")
def rows() -> Callable[[Path], list[dict[str, Any]]]:
    """The rows of a JSONL file."""
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
