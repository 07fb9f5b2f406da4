"""One trial inside a Ray Tune actor: the same loop as everywhere, its epochs reported to the scheduler."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ray import tune

from trainer.launch import claim_run_dir, is_finished, run_rank
from trainer.logbook import Numbers, read_metrics
from trainer.loop import STOP_FILE
from trainer.ranks import single_rank
from trainer.recipe import Recipe, build_recipe


def run_trial(config: dict[str, Any]) -> None:
    """Train the recipe of `config["recipe"]`, or go on with what its folder holds.

    The folders of the trials are the truth: a restarted sweep reports their epochs again, so that the scheduler
    judges as before, and trains only what is missing.
    """
    recipe, sweep_dir = build_recipe(config["recipe"]), Path(config["sweep_dir"])
    if (sweep_dir / STOP_FILE).exists():
        return
    (recipe.run_dir / STOP_FILE).unlink(missing_ok=True)
    claim_run_dir(recipe)

    def report(numbers: Numbers) -> None:
        tune.report(_judge(numbers, recipe))
        if (sweep_dir / STOP_FILE).exists():
            (recipe.run_dir / STOP_FILE).touch()

    for row in read_metrics(recipe.run_dir):
        tune.report(_judge(row, recipe))
    if not is_finished(recipe.run_dir):
        run_rank(recipe, single_rank(), report)


def _judge(numbers: Numbers, recipe: Recipe) -> dict[str, float]:
    """Return what the scheduler sees of an epoch; a loss that is not a number is the worst score."""
    score = numbers[f"val/{recipe.stop.metric}"]
    if recipe.stop.metric == "log_loss":
        score = -score
    return {"epoch": int(numbers["epoch"]), "score": score if math.isfinite(score) else -1e9}
