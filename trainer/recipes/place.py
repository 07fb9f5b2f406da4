"""The location of a run folder: on a shared disk, or a local folder of each node plus a run store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.storage.shown import show_location

WORK_VARIABLE = "SHARDLINE_WORK"


def is_remote(root: str) -> bool:
    """Return whether runs are kept in an object store."""
    return "://" in root


def join_root(root: str, name: str) -> str:
    """Return the location of a run below its root, a folder or a URI.

    >>> join_root("s3://bucket/runs/?region=eu-west-1", "ants")
    's3://bucket/runs/ants?region=eu-west-1'
    >>> join_root("runs", "ants")
    'runs/ants'
    """
    if not is_remote(root):
        return str(Path(root) / name)
    path, question_mark, query = root.partition("?")
    return f"{path.rstrip('/')}/{name}{question_mark}{query}"


def show_locations(value: Any, show: Callable[[str], str] = show_location) -> Any:
    """Return a JSON value for display, with `show` applied to every location.

    >>> show_locations({"data": "https://host/cells?signature=x", "epochs": 3})
    {'data': 'https://host/cells', 'epochs': 3}
    """
    if isinstance(value, dict):
        return {name: show_locations(each, show) for name, each in value.items()}
    if isinstance(value, list):
        return [show_locations(each, show) for each in value]
    return show(value) if isinstance(value, str) else value


def find_run_dir(root: str, work: str | None, name: str) -> Path:
    """Return the local folder to which a run's files are written."""
    if not is_remote(root):
        return Path(root) / name
    # Hash the whole URI: another store may have a bucket of the same name.
    digest = hashlib.sha256(root.encode()).hexdigest()[:16]
    return (Path(work) if work else default_work()) / digest / name


def default_work() -> Path:
    """Return the folder of SHARDLINE_WORK, or shardline/runs in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(WORK_VARIABLE) or Path(home) / "shardline" / "runs")
