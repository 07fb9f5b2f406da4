"""The parts that a run's ranks have learnt to cut their slices into, kept for the next start."""

from __future__ import annotations

import json

from shards.files.atomic import write_json
from trainer.recipes.recipe import Recipe
from trainer.record.store.run_store import open_run_store

PARTS = "parts.json"


def read_parts(recipe: Recipe) -> int:
    """Return in how many parts a slice must be computed at least: 1 where memory never ran out."""
    store = open_run_store(recipe)
    path = recipe.run_dir / PARTS
    data = store.read(PARTS) if store else path.read_bytes() if path.is_file() else None
    return int(json.loads(data)) if data else 1


def write_parts(recipe: Recipe, parts: int) -> None:
    """Keep the number of parts with the run."""
    store = open_run_store(recipe)
    if store:
        store.write(PARTS, json.dumps(parts).encode())
    else:
        write_json(recipe.run_dir / PARTS, parts)
