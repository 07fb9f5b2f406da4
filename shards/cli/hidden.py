"""Refusal of a file in the current folder that hides a package of the project; Python's own error does not name it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from shards.errors import UsageError


def refuse_hidden(package: str) -> None:
    """Refuse a file with a package's name that Python finds first, such as `trainer.py` in the current folder.

    Raises:
        SystemExit: With code 2, while `python -m` looks for its module, where an exception would print only a
        traceback.
        UsageError: Everywhere else.
    """
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is not None:
        return
    where = Path(spec.origin or package)
    sentence = (
        f"{where} hides the package {package} of this project, because Python looks there first; rename it, or run "
        f"the command in another folder than {where.parent}"
    )
    if sys.argv[:1] == ["-m"]:
        sys.stderr.write(f"error: {sentence}\n")
        raise SystemExit(2)
    raise UsageError(sentence)
