"""The version of the code that a run uses."""

from __future__ import annotations

import subprocess
from pathlib import Path


def read_git_sha() -> str | None:
    """Return the commit of this code: 40 hex digits, with `-dirty` appended if files were changed.

    None if it was installed without its repository, even inside the folder of another repository.
    """
    here = Path(__file__)
    if _ask_git(here.parent, "ls-files", here.name) != here.name:
        return None
    return _ask_git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _ask_git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
