"""One trial inside a Ray Tune actor: the same training loop as elsewhere; its epochs are reported to the scheduler."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray import tune

from shards.cli.messages import handing_on
from shards.errors import ShardError, UsageError
from shards.files.atomic import write_text
from shards.workers.ray_meters import open_ray_meters
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import build_recipe
from trainer.recipes.recipe import Recipe, ResolvedRecipe
from trainer.record.logbook import Numbers, read_metrics
from trainer.record.run_folder import STOP_FILE, RunFolder
from trainer.run.job import run_rank
from trainer.run.launch import open_data
from trainer.run.ray.launch import run_on_ray
from trainer.weights.resolve import resolve_recipe

FAILURE_FILE = "failure"
"""File in the folder of a trial that cannot train; it holds the reason."""
STOPPED_FILE = "stopped"
"""File in the folder of a trial that fell behind; a sweep that is resumed leaves it as it is."""
WORST = -1e9
_LOOK_EVERY_S = 0.5
"""Seconds between two looks at the epochs of a trial that other processes train."""


def run_trial(config: dict[str, Any]) -> None:
    """Train the recipe in `config["recipe"]`, or resume it from its folder.

    The trials' folders hold the state of a sweep: a restarted sweep reports their epochs again, so that the scheduler
    decides as before, and trains only what is missing.
    """
    recipe, sweep_dir = build_recipe(config["recipe"]), Path(config["sweep_dir"])
    folder = RunFolder.of(recipe)
    # A reused actor runs each trial in a new thread, and new threads start with the most recently set count.
    torch.set_num_threads(max(1, int(config["cpus"])))
    # Tune fails the whole sweep if a trial ends without a report; epoch 0 is on no rung, so no trial is compared with
    # this report.
    tune.report({"epoch": 0, "score": WORST})
    if (sweep_dir / STOP_FILE).exists():
        return
    folder.stop_file.unlink(missing_ok=True)
    (folder.path / FAILURE_FILE).unlink(missing_ok=True)

    def tell(numbers: Numbers) -> None:
        if numbers["epoch"] < recipe.epochs:  # after the last epoch there is nothing left to stop early
            tune.report(_score(numbers, recipe))

    def report(numbers: Numbers) -> None:
        tell(numbers)
        if (sweep_dir / STOP_FILE).exists():
            folder.stop_file.touch()

    try:
        resolved, _ = open_data(resolve_recipe(recipe))  # with the checks that a run of its own has
        folder.claim(resolved)
        for row in read_metrics(folder.path):
            tell(row)
        if not folder.is_finished and not (folder.path / STOPPED_FILE).exists():
            # The sweep logs the trial's result; its notes are in its folder.
            with handing_on(lambda _line: None, logging.INFO):
                if resolved.most_ranks == 1:
                    run_rank(resolved, single_rank(), report, open_ray_meters)
                else:
                    run_ranks(resolved, folder, tell)
    except (UsageError, ShardError) as err:  # if raised, Tune would retry what cannot succeed
        write_failure(folder, str(err))


def run_ranks(recipe: ResolvedRecipe, folder: RunFolder, tell: Callable[[Numbers], None]) -> None:
    """Train on several ranks through Ray Train, and tell each epoch as it ends.

    It is Tune's thread that tells: when the scheduler stops the trial, Tune ends this process, and Ray Train with it.
    """
    errors: list[Exception] = []

    def run() -> None:
        try:
            run_on_ray(recipe, folder)
        except Exception as err:
            errors.append(err)

    told = len(read_metrics(folder.path))
    thread = threading.Thread(target=run, name="ranks", daemon=True)
    thread.start()
    is_over = False
    while not is_over:
        thread.join(_LOOK_EVERY_S)
        is_over = not thread.is_alive()
        rows = read_metrics(folder.path)
        for row in rows[told:]:
            tell(row)
        told = max(told, len(rows))
    if errors:
        raise errors[0]


def write_failure(folder: RunFolder, sentence: str) -> None:
    """Leave the reason why a trial cannot train in its folder."""
    folder.path.mkdir(parents=True, exist_ok=True)
    write_text(folder.path / FAILURE_FILE, sentence)


def _score(numbers: Numbers, recipe: Recipe) -> dict[str, float]:
    """Return the scheduler's view of an epoch; a loss that is not finite becomes the worst score."""
    score = numbers[f"val/{recipe.stop.metric}"]
    if recipe.stop.lower_is_better:
        score = -score
    return {"epoch": int(numbers["epoch"]), "score": score if math.isfinite(score) else WORST}
