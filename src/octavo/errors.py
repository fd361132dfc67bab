"""One hierarchy for everything that can go wrong and that a user can mend.

Each message says what was got, what was expected and which field or file to change, in one line. The command line
prints it without a traceback and leaves with `exit_code`; anything that is not an `OctavoError` is a bug of ours.
"""


class OctavoError(Exception):
    """Base of all errors that a user can mend."""

    exit_code = 2


class ConfigError(OctavoError):
    """A config, recipe or option is wrong: unknown key, wrong type, impossible value."""


class DataError(OctavoError):
    """A corpus, a question file or a document cannot be used."""


class CheckpointError(OctavoError):
    """A checkpoint or model folder is missing, truncated, altered or of another shape."""


class ExportError(OctavoError):
    """What was written does not answer as the original does: a bug of ours."""

    exit_code = 1


class PullError(OctavoError):
    """A model could not be fetched: no such repository, a wrong checksum, weights that may not be opened."""


class UnreachableError(PullError):
    """Nobody answered, or the transfer broke off; what has arrived is kept."""


class GradingError(OctavoError):
    """A verifier cannot be built or used at all (one failing answer is a `Grade`, not an error)."""


class RequestError(OctavoError):
    """A generation request is impossible: empty or too long a prompt, sampling values out of range."""


class StorageError(OctavoError):
    """Writing failed: disk full, no permission. What was written before is intact."""

    exit_code = 3


class TrainingError(OctavoError):
    """Training stopped before the update: non-finite loss or gradient, nothing left to learn from."""

    exit_code = 3
