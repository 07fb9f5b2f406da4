"""The position of a run, read from its snapshots in a folder or a store."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from pydantic import BaseModel

from shards.files.temporary import is_leftover
from shards.order.purposes import BEFORE_VERSIONS
from trainer.record.run_folder import SNAPSHOTS
from trainer.record.snapshot import STATE, name_snapshot
from trainer.record.store.run_store import RunStore


class _Best(BaseModel):
    snapshot: str


class Position(BaseModel):
    """The position in a snapshot's state.json."""

    samples_seen: int
    epochs_done: int
    best: _Best | None = None
    streams: int = BEFORE_VERSIONS

    @property
    def reach(self) -> tuple[int, int]:
        """Sort key: a position with a greater reach is further along."""
        return self.samples_seen, self.epochs_done

    @property
    def snapshots(self) -> list[str]:
        """Names of the snapshots that a run at this position needs: the best epoch's, then its own."""
        own = name_snapshot(self.samples_seen)
        return [self.best.snapshot, own] if self.best and self.best.snapshot != own else [own]


def read_local_position(run_dir: Path) -> Position | None:
    """Return the position of the newest complete snapshot in a run folder, None if there is none."""
    for folder in sorted((run_dir / SNAPSHOTS).glob("*"), reverse=True):
        with contextlib.suppress(OSError, ValueError):  # being written, or incomplete
            if folder.name.isdigit():
                return Position.model_validate(json.loads((folder / STATE).read_bytes()))
    return None


def read_stored_position(store: RunStore) -> Position | None:
    """Return the position of the newest snapshot in a store; raises the store's errors."""
    states = [name for name in store.sizes() if name.startswith(f"{SNAPSHOTS}/") and name.endswith(f"/{STATE}")]
    content = store.read(max(states)) if states else None
    return Position.model_validate(json.loads(content)) if content else None


def upload_snapshot(run_dir: Path, name: str, store: RunStore) -> None:
    """Copy a snapshot to a store; raises FileNotFoundError if a newer one replaces it meanwhile.

    state.json is uploaded last and removed first: without it, a snapshot does not count.
    """
    folder = run_dir / SNAPSHOTS / name
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == STATE, path.name)):
        if not is_leftover(path.name):
            store.upload(path, f"{SNAPSHOTS}/{name}/{path.name}")


def remove_snapshot(name: str, store: RunStore) -> None:
    """Remove a snapshot from a store."""
    names = [found for found in store.sizes() if found.startswith(f"{SNAPSHOTS}/{name}/")]
    store.delete(sorted(names, key=lambda found: (not found.endswith(f"/{STATE}"), found)))
