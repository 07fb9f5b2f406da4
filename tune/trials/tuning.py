"""All trials of a phase on Ray Tune, with early stopping or without."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

# Ray reads these when it is imported: our bar and table replace its boxes and warnings.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from shards.cli.progress import draw_bar
from shards.files.atomic import write_text
from trainer.record.progress import TICK_S
from trainer.record.run_folder import STOP_FILE
from tune.space.options import Screen, Space
from tune.space.variants import Trial
from tune.trials.limits import Limits
from tune.trials.metrics import SweepMeters
from tune.trials.progress import SweepProgress
from tune.trials.rooms import Rooms
from tune.trials.searcher import RecipeSearcher, configure
from tune.trials.trial import run_trial, write_failure

MAX_FAILURES = 1


def run_trials(
    trials: Sequence[Trial],
    space: Space,
    screen: Screen | None,
    sweep_dir: Path,
    limits: Limits,
    searcher: RecipeSearcher | None = None,
    meters: SweepMeters | None = None,
) -> None:
    """Run what is missing of some trials; those that cannot train have the reason in their folders.

    Args:
        trials: The trials; their folders hold what was trained before. A searcher adds those that it suggests.
        space: Resources of a trial.
        screen: How trials that fall behind are stopped; None: none is.
        sweep_dir: Folder of the sweep; a stop file in it makes the trials save their states and end.
        limits: When they are stopped in that way.
        searcher: Suggests all trials, also those that are known; None: the trials are as they are.
        meters: Record the progress for Prometheus.
    """
    shutil.rmtree(sweep_dir / "ray", ignore_errors=True)  # Tune's own state; ours is in the trials' folders
    count = searcher.count if searcher else len(trials)
    progress = SweepProgress(trials, count, "screen" if screen else "confirm", meters=meters)
    fixed = {"sweep_dir": str(sweep_dir), "cpus": space.cpus_per_trial}
    every = {} if searcher else {"recipe": tune.grid_search([configure(trial)["recipe"] for trial in trials])}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, _need(space)),
        param_space={**every, **fixed},
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=count if searcher else 1,
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            metric="score",
            mode="max",
            # A new process would import torch again for each trial. One with ranks ends with them when it is stopped.
            reuse_actors=space.ranks_per_trial == 1,
            max_concurrent_trials=count_at_once(space) if space.ranks_per_trial > 1 else None,
            scheduler=_make_scheduler(screen, max(trial.recipe.epochs for trial in trials)),
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(sweep_dir),
            verbose=0,
            callbacks=[progress],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    progress.begin()
    results = _fit(tuner, trials, sweep_dir, progress, limits)
    folders = {trial.name: trial.folder for trial in trials}
    for result in results:
        if result.error is not None and result.config is not None:
            write_failure(folders[result.config["recipe"]["name"]], str(result.error).strip().splitlines()[-1])


def _need(space: Space) -> dict[str, float]:
    """Return what Tune reserves for a trial; the ranks of one with several have reservations of their own."""
    if space.ranks_per_trial > 1:
        return {"memory": 1}  # a byte: Tune refuses to reserve nothing, and a share of a CPU would be one too few
    return {"cpu": space.cpus_per_trial, "gpu": space.gpus_per_trial}


def count_at_once(space: Space) -> int:
    """Return how many trials of several ranks the cluster holds at a time, at least 1.

    More would wait for each other's ranks forever: each trial holds its own process, and waits for its ranks.
    """
    there = ray.cluster_resources()
    each = {"CPU": space.cpus_per_trial, "GPU": space.gpus_per_trial}
    holds = [there.get(kind, 0.0) // (amount * space.ranks_per_trial) for kind, amount in each.items() if amount]
    return max(1, int(min(holds)))


def _make_scheduler(screen: Screen | None, epochs: int) -> TrialScheduler:
    if screen is None or screen.stop == "none":
        return FIFOScheduler()
    if screen.stop == "median":
        return MedianStoppingRule(time_attr="epoch", grace_period=screen.grace_epochs, min_samples_required=2)
    return ASHAScheduler(
        time_attr="epoch",
        max_t=epochs + 1,  # + 1: the loop ends a trial, after its bundle
        grace_period=min(screen.grace_epochs, epochs),
        reduction_factor=screen.reduction_factor,
    )


def _fit(
    tuner: tune.Tuner, trials: Sequence[Trial], sweep_dir: Path, progress: SweepProgress, limits: Limits
) -> tune.ResultGrid:
    """Run the tuner in a thread of its own, so that this one shows progress and is stopped by Ctrl-C."""
    results: list[tune.ResultGrid | Exception] = []

    def fit() -> None:
        try:
            results.append(tuner.fit())
        except Exception as err:
            results.append(err)

    thread = threading.Thread(target=fit, name="tune", daemon=True)
    thread.start()
    _watch(thread, trials, sweep_dir, progress, limits)
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def _watch(
    thread: threading.Thread, trials: Sequence[Trial], sweep_dir: Path, progress: SweepProgress, limits: Limits
) -> None:
    """Show the number of finished epochs until the thread ends; pass a stop request on to the running trials."""
    rooms = Rooms(trials)
    with draw_bar(total=progress.total, unit="epoch", desc=sweep_dir.name) as bar:
        while thread.is_alive():
            thread.join(TICK_S)
            bar.update(progress.count_epochs() - bar.n)
            progress.tick()
            rooms.look()
            if not (sweep_dir / STOP_FILE).exists() and (reached := limits.find_reached(sweep_dir)):
                write_text(sweep_dir / STOP_FILE, reached)
            if (sweep_dir / STOP_FILE).exists():
                for trial in list(trials):
                    if trial.folder.path.is_dir():
                        trial.folder.stop_file.touch()
    rooms.finish()
