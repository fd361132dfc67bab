"""Verbs about the machine."""

import json

from octavo.cli.options import Debug, Json


def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Measure what this machine can do."""
    from octavo.doctor import examine, print_examination

    examination = examine()
    if as_json:
        print(json.dumps(examination.as_dict()))
    else:
        print_examination(examination)
