"""MODEL on the command line -> a model folder or a GGUF file: by path, out of a run, by name out of the cache."""

from pathlib import Path

import yaml

from octavo.errors import CheckpointError, ConfigError
from octavo.pull.cache import Cache, model_in
from octavo.pull.catalogue import look_up
from octavo.rundir import RunDir


def find_model(name: str | Path) -> Path:
    """The model that `name` stands for; of a run folder, its `result` stage's. What exists as a path is that path.

    Raises CheckpointError, which says `octavo pull NAME` where that would bring it.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path)
    try:
        reference, entry = look_up(str(name))
    except ConfigError as error:
        if "/" in str(name):
            raise CheckpointError(f"{name}: no such folder or file; expected {_EXPECTED}") from error
        raise CheckpointError(f"{name}: no such folder or file, and {error}") from error
    if found := Cache.standard().find(reference):
        return found
    if entry is not None:
        raise CheckpointError(f"{name} is not fetched yet: octavo pull {name}")
    raise CheckpointError(
        f"{name}: no such folder, and not in the cache (if it is a model of the hub: octavo pull {name}); "
        f"expected {_EXPECTED}"
    )


_EXPECTED = "a run folder, a stage in it, a Hugging Face model folder, a .gguf file, or a name that octavo pull knows"


def _in_folder(path: Path) -> Path:
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return folder
    run = RunDir(path)
    if run.config_path.is_file():
        result = result_stage(run)
        model = run.stage(result).model
        if (model / "config.json").is_file():
            return model
        made = sorted(folder.parent.parent.name for folder in path.glob("*/model/config.json"))
        instead = f"; finished models: {', '.join(f'{path}/{name}' for name in made)}" if made else ""
        raise CheckpointError(f"{path}: its result, stage {result}, has not finished; run its recipe again{instead}")
    if only := model_in(path):
        return only
    raise CheckpointError(f"{path}: holds no model (no config.json, no config.yaml of a run); expected {_EXPECTED}")


def result_stage(run: RunDir) -> str:
    """The stage whose model a run folder stands for."""
    try:
        config = yaml.safe_load(run.config_path.read_text(encoding="utf-8"))
        return str(config["result"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{run.config_path}: not the config of a run ({type(error).__name__}: {error})"
        ) from error
