"""The metrics of one rank of a run: in a file, or through what launched it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from shards.meters.metric import SILENT, Meters
from shards.meters.textfile import open_textfile
from trainer.loop.loop import Outcome
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import Recipe
from trainer.record.meters import TRAINING, RunMeters
from trainer.record.run_folder import RunFolder
from trainer.record.starts import begin_start, end_start

OpenMeters = Callable[..., Meters]
"""Table of metrics, common tags -> what records them."""


def measure_nothing(*_: object, **_tags: str) -> Meters:
    """Return what records nothing."""
    return SILENT


@contextlib.contextmanager
def measured(recipe: Recipe, folder: RunFolder, ranks: Ranks, launched: OpenMeters) -> Iterator[RunMeters]:
    """Yield what records a run's metrics; if the block fails, so is the run.

    Rank 0 writes a file if the recipe names a folder for it. Otherwise each rank records through `launched`: both
    together would count everything twice.
    """
    tags = {"run": recipe.name, "rank": str(ranks.rank)}
    with contextlib.ExitStack() as stack:
        if recipe.track.metrics_dir is None:
            meters = launched(TRAINING, **tags)
            stack.callback(meters.close)
        else:
            place = recipe.track.metrics_dir if ranks.is_first else None
            meters = stack.enter_context(open_textfile(place, "train", recipe.name, TRAINING, **tags))
        counts = ranks.is_first and meters is not SILENT
        run = RunMeters(meters, ranks.is_first)
        run.begin(begin_start(folder) if counts else 0, ranks.num_ranks)
        try:
            yield run
        except BaseException:
            run.enter("failed")
            raise


def end_measured(run: RunMeters, folder: RunFolder, outcome: Outcome, ranks: Ranks) -> None:
    """Record that a run has ended as it should."""
    run.enter(outcome)
    if run.records and ranks.is_first:
        end_start(folder)
