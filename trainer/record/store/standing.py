"""How far a run is in the place where it is kept, looked up without leaving anything there."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RESULT, RunFolder, is_work_folder, refuse_other_recipe_there
from trainer.record.snapshot import SnapshotStore
from trainer.record.store.position import read_stored_position
from trainer.record.store.run_store import RunStore


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    samples_seen: Of its newest snapshot, 0 without one.
    is_finished: It has its bundle, evaluations and report.
    """

    samples_seen: int
    is_finished: bool


def look_up(recipe: Recipe, folder: RunFolder) -> Standing:
    """Return how far a run is, in its folder or its store; the store is seen to take and to remove a file.

    Raises:
        UsageError: It is a run of another recipe; its first difference is named.
        ShardError: A damaged snapshot.
        OSError: The store does not answer, or does not let files be written or removed.
    """
    store = folder.store
    if store is None:
        longer = folder.refuse_other_recipe(recipe)
        return Standing(_seen_here(folder), folder.is_finished and not longer)
    longer = refuse_other_recipe_there(recipe, store)
    _try_to_write(store)
    there = read_stored_position(store)
    seen = there.samples_seen if there else 0
    if is_work_folder(folder.path, store):
        folder.refuse_other_recipe(recipe)
        seen = max(seen, _seen_here(folder))
    return Standing(seen, RESULT in store.sizes() and not longer)


def _seen_here(folder: RunFolder) -> int:
    state = SnapshotStore(folder.snapshots).read_last() if folder.snapshots.is_dir() else None
    return state.samples_seen if state else 0


def _try_to_write(store: RunStore) -> None:
    name = f"dry-run-{uuid.uuid4().hex}"
    store.write(name, b"")
    store.delete([name])
