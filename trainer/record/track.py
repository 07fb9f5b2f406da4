"""Weights & Biases behind one door: rank 0 only, and no error of it ever stops training."""

from __future__ import annotations

import logging
import os
from typing import Any

from trainer.options.run import TrackOptions
from trainer.recipe import Recipe
from trainer.record.logbook import Numbers

logger = logging.getLogger(__name__)


class Tracker:
    """One W&B run; restarts of the same run carry the same id, so that the server merges them."""

    def __init__(self, recipe: Recipe, dataset: str) -> None:
        self._run: Any = None
        mode: Any = choose_mode(recipe.track)  # WANDB_MODE may hold anything; wandb refuses what it does not know
        if mode == "disabled":
            return
        try:
            import wandb

            self._run = wandb.init(
                project=recipe.track.project,
                group=recipe.track.group,
                job_type="trial" if recipe.track.group else "train",
                name=recipe.name,
                id=f"{recipe.name}-{recipe.fingerprint()[:8]}",
                resume="allow" if mode == "online" else None,
                mode=mode,
                dir=recipe.run_dir,
                config={**recipe.model_dump(mode="json"), "dataset": dataset},
                settings=wandb.Settings(console="off", silent=True),
            )
            self._run.define_metric("*", step_metric="epoch")
            self._run.define_metric("val/accuracy", step_metric="epoch", summary="max")
        except Exception as err:  # tracking is a convenience; the run and its metrics.jsonl go on without it
            logger.warning("W&B does not record this run: %s", err)
            self._run = None

    def log(self, numbers: Numbers) -> None:
        self._try("log", numbers)

    def close(self) -> None:
        self._try("finish")

    def _try(self, method: str, *arguments: Any) -> None:
        if self._run is None:
            return
        try:
            getattr(self._run, method)(*arguments)
        except Exception as err:
            logger.warning("W&B %s failed: %s", method, err)


def choose_mode(options: TrackOptions) -> str:
    """Return online, offline or disabled; auto is offline when no key is set. WANDB_MODE wins, as W&B users expect."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if options.wandb != "auto":
        return options.wandb
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"
