"""Look up the progress of a run in its folder or store, without leaving files there."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Final

from shards.order.purposes import VERSION
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RESULT, RunFolder, is_work_folder, refuse_other_recipe_there
from trainer.record.snapshot import SnapshotStore
from trainer.record.store.position import Position, read_stored_position
from trainer.record.store.run_store import RunStore

_NOWHERE: Final = Position(samples_seen=0, epochs_done=0)


@dataclass(frozen=True)
class Standing:
    """The progress of a run.

    samples_seen: Of its newest snapshot, 0 without one.
    is_finished: Whether it has its bundle, evaluations and report.
    streams: Version of the random streams, for a run with a snapshot.
    """

    samples_seen: int
    is_finished: bool
    streams: int = field(default=VERSION, compare=False)

    @property
    def begun(self) -> int | None:
        """The version of the random streams of a run with a snapshot, None for a new run."""
        return self.streams if self.samples_seen else None


def look_up(recipe: Recipe, folder: RunFolder) -> Standing:
    """Return the progress of a run in its folder or store, after testing that the store can write and delete a file.

    Raises:
        UsageError: It is a run with another recipe; the message has the first difference.
        ShardError: The snapshot is damaged.
        OSError: The store does not respond, or does not allow files to be written or removed.
    """
    store = folder.store
    if store is None:
        longer = folder.refuse_other_recipe(recipe)
        here = _read_here(folder)
        return Standing(here.samples_seen, folder.is_finished and not longer, here.streams)
    longer = refuse_other_recipe_there(recipe, store)
    _try_to_write(store)
    newest = read_stored_position(store) or _NOWHERE
    if is_work_folder(folder.path, store):
        folder.refuse_other_recipe(recipe)
        newest = max(newest, _read_here(folder), key=lambda position: position.samples_seen)
    return Standing(newest.samples_seen, RESULT in store.sizes() and not longer, newest.streams)


def _read_here(folder: RunFolder) -> Position:
    state = SnapshotStore(folder.snapshots).read_last() if folder.snapshots.is_dir() else None
    return Position.model_validate(state.model_dump()) if state else _NOWHERE


def _try_to_write(store: RunStore) -> None:
    name = f"dry-run-{uuid.uuid4().hex}"
    store.write(name, b"")
    store.delete([name])
