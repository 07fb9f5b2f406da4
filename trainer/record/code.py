"""Which code a run was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path


def read_git_sha() -> str | None:
    """Return the commit that this code lies in, 40 hex digits, `-dirty` behind them where files were changed.

    None where it was installed without its repository, also into a folder inside of somebody else's.
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
