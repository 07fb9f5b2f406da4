"""The whole job of one rank, the same in every kind of process: train, then finish."""

from __future__ import annotations

import contextlib

from shards.cli.ending import DONE, INTERRUPTED
from shards.files.atomic import write_json
from trainer.loop.loop import Outcome, ReportEpoch, train
from trainer.ranks.ranks import Ranks
from trainer.ranks.watching import watching
from trainer.recipes.recipe import ResolvedRecipe
from trainer.record.notes import keep_notes
from trainer.record.progress import TICK_S, RunProgress
from trainer.record.room import explaining_stop
from trainer.record.run_folder import RESULT, RunFolder
from trainer.record.store.mirror import mirrored
from trainer.record.track.track import Tracker
from trainer.run.finish import finish_run
from trainer.run.measure import OpenMeters, end_measured, measure_nothing, measured
from trainer.step.memory import RankMemoryError

FAULT = 1


def run_rank(
    recipe: ResolvedRecipe, ranks: Ranks, report: ReportEpoch, launched: OpenMeters = measure_nothing
) -> Outcome:
    """Train, and after the last epoch write bundle, evaluations and report; return the outcome.

    launched: Returns what records metrics where this rank was launched; a recipe's track.metrics_dir takes precedence.

    Raises:
        RankMemoryError: Memory ran out on one of several ranks; the run resumes when all are restarted.
        UsageError, ShardError, OSError: Like `train` and `mirrored`.
    """
    folder = RunFolder.of(recipe)
    tracker = Tracker(recipe, folder.path, ranks.num_ranks) if ranks.is_first else None
    progress = RunProgress(recipe, speaks=ranks.is_first)
    exit_code = FAULT
    try:
        with contextlib.ExitStack() as beside:
            beside.enter_context(explaining_stop(folder))
            if ranks.is_first:
                beside.enter_context(watching(progress.tick, "progress", TICK_S))
            beside.enter_context(mirrored(folder, ranks))
            meters = beside.enter_context(measured(recipe, folder, ranks, launched))
            if ranks.is_first:
                beside.enter_context(keep_notes(folder.path))
            outcome = train(recipe, folder, ranks, report, tracker, progress, meters)
            if outcome == "finished":
                meters.enter("finishing")
                notes = finish_run(recipe, folder, ranks, tracker, progress)
                if ranks.is_first:
                    result = {"outcome": outcome, "num_ranks": ranks.num_ranks, "notes": notes}
                    write_json(folder.path / RESULT, result)
            end_measured(meters, folder, outcome, ranks)
        exit_code = DONE if outcome == "finished" else INTERRUPTED
    except RankMemoryError as err:
        folder.write_parts(err.parts)
        raise
    finally:
        if tracker:
            tracker.close(exit_code)
    return outcome
