"""MODEL on the command line -> a Hugging Face model folder: a run folder, a stage in it, or the folder itself."""

from pathlib import Path

import yaml

from octavo.errors import CheckpointError
from octavo.rundir import RunDir


def find_model(path: Path) -> Path:
    """The model folder that `path` stands for; of a run folder, its `result` stage's. Raises CheckpointError."""
    if (path / "config.json").is_file():
        return path
    if (path / "model" / "config.json").is_file():
        return path / "model"
    run = RunDir(path)
    if run.config_path.is_file():
        result = result_stage(run)
        model = run.stage(result).model
        if (model / "config.json").is_file():
            return model
        made = sorted(folder.parent.parent.name for folder in path.glob("*/model/config.json"))
        instead = f"; finished models: {', '.join(f'{path}/{name}' for name in made)}" if made else ""
        raise CheckpointError(f"{path}: its result, stage {result}, has not finished; run its recipe again{instead}")
    what = "holds no model (no config.json, no config.yaml of a run)" if path.is_dir() else "no such folder"
    raise CheckpointError(f"{path}: {what}; expected a run folder or a Hugging Face model folder")


def result_stage(run: RunDir) -> str:
    """The stage whose model a run folder stands for."""
    try:
        config = yaml.safe_load(run.config_path.read_text(encoding="utf-8"))
        return str(config["result"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{run.config_path}: not the config of a run ({type(error).__name__}: {error})"
        ) from error
