"""The disk space that a run needs, and how a full disk stops it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from shards.errors import ShardError, UsageError
from shards.files.disk import DiskError, explain_disk
from trainer.ranks.machine import read_free_disk, refuse_full_disk
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RunFolder
from trainer.record.snapshot import count_bytes
from trainer.record.store.position import read_local_position
from trainer.step.engine import Engine


def require_room(recipe: Recipe, folder: RunFolder, ranks: Ranks, engine: Engine) -> None:
    """Raise if the run's snapshots and bundle do not fit on its disk; called by every rank before the first step.

    Raises:
        UsageError: They do not fit.
        DiskError: No file can be created there.
    """
    refusal: Exception | None = None
    if ranks.is_first:
        model = count_bytes(engine.model.state_dict())
        try:
            refuse_small_disk(recipe, folder, engine.measure_snapshot(), model)
        except (UsageError, OSError) as err:
            refusal = err
    refusal = ranks.gather(refusal)[0]
    if refusal is not None:
        raise refusal


def refuse_small_disk(recipe: Recipe, folder: RunFolder, snapshot: int, bundle: int) -> dict[str, int]:
    """Return the free bytes of the run's disk and the bytes the run still needs; raises like `require_room`."""
    free = read_free_disk(folder.path)
    taken = sum(map(_count_files, (folder.snapshots, folder.bundle)))
    needed = max(0, count_snapshots(recipe) * snapshot + bundle - taken)
    refuse_full_disk(needed, free, str(folder.path), folder.root_option)
    return {"free": free, "needed": needed}


def count_snapshots(recipe: Recipe) -> int:
    """Return how many snapshots a run has at a time: best, last, and the one being written.

    Before the second epoch ends, last and best are the same.
    """
    return recipe.epochs + 1 if recipe.snapshot.keep == "all" else min(recipe.epochs, 2) + 1


def _count_files(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def explaining_stop(folder: RunFolder, reach: Callable[[], int] | None = None) -> Iterator[None]:
    """Convert disk errors in the block to a UsageError that includes the run's position.

    Args:
        folder: Folder of the run.
        reach: Returns the samples seen so far; None if the block does more than training.
    """
    try:
        yield
    except (UsageError, ShardError):
        raise
    except Exception as err:
        refused = explain_disk(err)
        if refused is None:
            raise
        raise UsageError(_explain_stop(refused, folder, reach)) from err


def _explain_stop(refused: DiskError, folder: RunFolder, reach: Callable[[], int] | None) -> str:
    last = read_local_position(folder.path)
    after = f"the run stopped after {reach():,} samples" if reach else "the run was stopped"
    stands = f"its last snapshot is at {last.samples_seen:,}" if last else "it has no snapshot yet"
    resumes = "resumes from that snapshot" if last else "starts it again"
    elsewhere = refused.elsewhere
    if elsewhere and refused.filename and Path(refused.filename).is_relative_to(folder.path.absolute()):
        elsewhere = f"move {folder.path} to another disk and set {folder.root_option} to its new parent folder"
    remedy = f"{refused.remedy}, or {elsewhere}" if elsewhere else refused.remedy
    return f"{refused.fact}; {after}, {stands}. {remedy[0].upper()}{remedy[1:]}: the same command then {resumes}"
