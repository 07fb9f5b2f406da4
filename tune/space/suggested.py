"""What a search that learns has suggested so far: a line for each trial, in order, in the folder of the sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shards.files.atomic import write_text

SUGGESTED = "search.jsonl"


def read_suggested(sweep_dir: Path) -> list[dict[str, Any]]:
    """Return {option: value} of each trial that was suggested, the first first."""
    path = sweep_dir / SUGGESTED
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add_suggested(sweep_dir: Path, values: dict[str, Any]) -> None:
    """Write a trial down before it starts."""
    rows = [*read_suggested(sweep_dir), values]
    write_text(sweep_dir / SUGGESTED, "".join(f"{json.dumps(row)}\n" for row in rows))
