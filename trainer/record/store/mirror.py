"""Mirror a run to its run store: copy files that must survive the node from rank 0's folder, in the background."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from shards.errors import UsageError
from shards.files.disk import DiskError
from trainer.ranks.ranks import Ranks
from trainer.record.run_folder import RESULT, SNAPSHOTS, STOP_FILE, RunFolder
from trainer.record.snapshot import STATE
from trainer.record.store.bring import BEFORE_SNAPSHOT, bring_run, is_output
from trainer.record.store.position import read_local_position, remove_snapshot, upload_snapshot
from trainer.record.store.run_store import RunStore

_EVERY_S = 0.5
_HURRY_S = 30.0


@contextlib.contextmanager
def mirrored(folder: RunFolder, ranks: Ranks) -> Iterator[None]:
    """Fetch the newest state of a run from its store, and keep the store up to date while the block runs.

    Every rank calls it. Without a run store it does nothing.

    Raises:
        OSError: The store did not respond within storage.deadline_s; training was stopped, its state is saved locally.
        DiskError: A local disk is full; training was stopped too.
    """
    if folder.store is None:
        yield
        return
    bring_run(folder.path, ranks, folder.store)
    mirror = Mirror(folder.path, folder.store) if ranks.is_first else None
    try:
        yield
    except BaseException:
        if mirror:
            with contextlib.suppress(OSError, UsageError):  # report the first error
                mirror.close()
        raise
    if mirror:
        mirror.close()


class Mirror:
    """Copies the files of rank 0 in a thread."""

    def __init__(self, run_dir: Path, store: RunStore) -> None:
        self._run_dir, self._store = run_dir, store
        self._copied: dict[str, tuple[int, int]] = {}
        """Modification time and inode of copied files, by name."""
        names = store.sizes()
        self._there = {name.split("/")[1] for name in names if name.startswith(f"{SNAPSHOTS}/")}
        # The run was just fetched: snapshots that are complete in both places are equal.
        for snapshot in self._there:
            if f"{SNAPSHOTS}/{snapshot}/{STATE}" in names:
                with contextlib.suppress(FileNotFoundError):
                    self._copied[snapshot] = _identify(run_dir / SNAPSHOTS / snapshot)
        self._error: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Copy the remaining files; raises the error that ended copying."""
        if not (self._run_dir / RESULT).exists():  # stopped early: do not keep the user waiting, the state is local
            self._store.deadline_s = min(self._store.deadline_s, _HURRY_S)
        self._closing.set()
        self._thread.join()
        if isinstance(self._error, OSError) and not isinstance(self._error, DiskError):
            raise OSError(
                f"{self._error}. The run was stopped; its state is saved on this machine in {self._run_dir}, and the "
                "same command resumes from it once the store responds"
            ) from self._error
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._closing.wait(_EVERY_S):
                self._copy_state()
            self._copy_state()
            self._copy_outputs()
        except Exception as err:
            self._error = err
            # Continuing would risk losing everything with the node. The loop saves its state locally and ends.
            with contextlib.suppress(OSError):  # on a full disk, which the loop reports itself
                (self._run_dir / STOP_FILE).touch()

    def _copy_state(self) -> None:
        """Copy the newest snapshot and the best, and remove the others from the store."""
        position = read_local_position(self._run_dir)
        if position is None:
            return
        for name in BEFORE_SNAPSHOT:
            self._copy(name)
        try:
            for name in position.snapshots:
                self._copy_snapshot(name)
        except FileNotFoundError:  # replaced by a newer one, which is copied next
            return
        for name in sorted(self._there - set(position.snapshots)):
            remove_snapshot(name, self._store)
            self._there.discard(name)

    def _copy_snapshot(self, name: str) -> None:
        identity = _identify(self._run_dir / SNAPSHOTS / name)
        if self._copied.get(name) != identity:
            self._there.add(name)
            upload_snapshot(self._run_dir, name, self._store)
            self._copied[name] = identity

    def _copy_outputs(self) -> None:
        """Copy all other files; result.json last, because it marks the run as finished."""
        paths = [path.relative_to(self._run_dir) for path in self._run_dir.rglob("*") if path.is_file()]
        names = [path.as_posix() for path in paths if is_output(path)]
        for name in sorted(names, key=lambda name: (name == RESULT, name)):
            self._copy(name)

    def _copy(self, name: str) -> None:
        """Copy a file if it exists and has changed."""
        with contextlib.suppress(FileNotFoundError):
            identity = _identify(self._run_dir / name)
            if self._copied.get(name) != identity:
                self._store.upload(self._run_dir / name, name)
                self._copied[name] = identity


def _identify(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino
