"""Fetch a run from its run store: the newest state to every node before training, the outputs after it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from shards.files.atomic import replace_folder
from shards.files.temporary import clear_leftovers, is_leftover
from trainer.ranks.ranks import Ranks
from trainer.record.ledger import LEDGER, POSITION, drop_after, list_after
from trainer.record.logbook import METRICS, PROGRESS
from trainer.record.notes import NOTES
from trainer.record.run_folder import (
    RESULT,
    RUN_ID,
    SAVE_FILE,
    SNAPSHOTS,
    STOP_FILE,
    RunFolder,
    enter_work_folder,
)
from trainer.record.store.position import Position, read_local_position, read_stored_position, upload_snapshot
from trainer.record.store.run_store import RunStore

BEFORE_SNAPSHOT = (METRICS, NOTES, f"{LEDGER}/{POSITION}")
"""Files that are copied before the snapshot that depends on them."""
_OF_THIS_MACHINE = (STOP_FILE, SAVE_FILE, PROGRESS, RUN_ID)
_NOWHERE = (-1, -1)


def bring_run(run_dir: Path, ranks: Ranks, store: RunStore) -> None:
    """Copy the newest state of the run, from the store or a node, to the folder of every node.

    Every rank calls it.

    Raises:
        OSError: The store does not respond.
    """
    leads = _leads(ranks, run_dir)
    if leads:
        enter_work_folder(run_dir, store)
        clear_leftovers(run_dir)
    here = _reach(read_local_position(run_dir)) if leads else _NOWHERE
    there = _reach(read_stored_position(store)) if ranks.is_first else _NOWHERE
    reaches = ranks.gather((here, there))
    newest = max(max(pair) for pair in reaches)
    if newest == _NOWHERE:
        return
    holders = [rank for rank, (local, _) in enumerate(reaches) if local == newest]
    if reaches[0][1] < newest and ranks.rank == holders[0]:
        _publish(run_dir, store)
    if ranks.is_first:
        _drop_ledger(store, newest[0])
    ranks.barrier()
    if leads:
        _fetch_state(run_dir, store, is_behind=ranks.rank not in holders, with_best=ranks.is_first)
    ranks.barrier()


def _reach(position: Position | None) -> tuple[int, int]:
    return position.reach if position else _NOWHERE


def _publish(run_dir: Path, store: RunStore) -> None:
    """Copy a state to the store that its node could not copy before it stopped."""
    position = read_local_position(run_dir)
    assert position is not None
    for name in BEFORE_SNAPSHOT:
        if (run_dir / name).is_file():
            store.upload(run_dir / name, name)
    for name in position.snapshots:
        upload_snapshot(run_dir, name, store)


def _drop_ledger(store: RunStore, position: int) -> None:
    """Remove the ledger of steps after `position` from the store: these steps are repeated."""
    store.delete(list_after([name for name in store.sizes() if name.startswith(f"{LEDGER}/")], position))


def _fetch_state(run_dir: Path, store: RunStore, is_behind: bool, with_best: bool) -> None:
    """Copy the newest state of the store to a node's folder, and remove ledger files that the store lacks."""
    names, position = store.sizes(), read_stored_position(store)
    assert position is not None
    if is_behind:
        shutil.rmtree(run_dir / SNAPSHOTS, ignore_errors=True)
        for name in BEFORE_SNAPSHOT:
            if name in names:
                store.download(name, run_dir / name)
    for snapshot in position.snapshots if with_best else position.snapshots[-1:]:
        if not (run_dir / SNAPSHOTS / snapshot).is_dir():
            _fetch_snapshot(run_dir, store, [name for name in names if name.startswith(f"{SNAPSHOTS}/{snapshot}/")])
    drop_after(run_dir / LEDGER, position.samples_seen)
    for path in (run_dir / LEDGER).glob("rank-*.parquet"):
        if f"{LEDGER}/{path.name}" not in names:
            path.unlink()


def _fetch_snapshot(run_dir: Path, store: RunStore, names: list[str]) -> None:
    folder = run_dir / Path(names[0]).parent
    with replace_folder(folder) as temporary:
        for name in names:
            store.download(name, temporary / Path(name).name)


def share(folder: RunFolder, ranks: Ranks, name: str) -> None:
    """Copy what rank 0 has written below a folder of the run to every node; every rank calls it."""
    ranks.barrier()
    store, run_dir = folder.store, folder.path
    if store is None:
        return
    leads = _leads(ranks, run_dir)
    if sum(ranks.gather(leads)) == 1:
        return
    if ranks.is_first:
        for path in sorted((run_dir / name).rglob("*")):
            if path.is_file():
                store.upload(path, path.relative_to(run_dir).as_posix())
    ranks.barrier()
    if leads and not ranks.is_first:
        for found in store.sizes():
            if found.startswith(f"{name}/"):
                store.download(found, run_dir / found)
    ranks.barrier()


def fetch_outputs(folder: RunFolder) -> None:
    """Copy the outputs of a finished run to this machine: bundle, evaluations, report, metrics."""
    store = folder.store
    names = store.sizes() if store else {}
    if store is None or RESULT not in names:
        return
    for name in sorted(names, key=lambda name: (name == RESULT, name)):
        if is_output(Path(name)) and not name.startswith("wandb/"):
            store.download(name, folder.path / name)


def is_output(path: Path) -> bool:
    """Return whether a file, by its path in the run folder, is neither state nor specific to one machine."""
    return path.parts[0] not in (SNAPSHOTS, LEDGER, "ray", *_OF_THIS_MACHINE) and not any(map(is_leftover, path.parts))


def _leads(ranks: Ranks, run_dir: Path) -> bool:
    """Return whether this is the first rank that sees this folder, which does the work once per node."""
    run_dir.mkdir(parents=True, exist_ok=True)
    stat = run_dir.stat()
    keys = ranks.gather((socket.gethostname(), stat.st_dev, stat.st_ino))
    return keys.index(keys[ranks.rank]) == ranks.rank
