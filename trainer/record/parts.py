"""The number of microbatches that a run's ranks need, stored for the next start."""

from __future__ import annotations

import json

from shards.files.atomic import write_json
from trainer.record.run_folder import RunFolder

PARTS = "parts.json"


def read_parts(folder: RunFolder) -> int:
    """Return the smallest number of microbatches per slice: 1 if memory never ran out."""
    path = folder.path / PARTS
    data = folder.store.read(PARTS) if folder.store else path.read_bytes() if path.is_file() else None
    return int(json.loads(data)) if data else 1


def write_parts(folder: RunFolder, parts: int) -> None:
    """Store the number of microbatches with the run."""
    if folder.store:
        folder.store.write(PARTS, json.dumps(parts).encode())
    else:
        write_json(folder.path / PARTS, parts)
