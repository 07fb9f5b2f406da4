"""Where a recipe's run lives, for tests that look into its folder."""

from __future__ import annotations

from pathlib import Path

from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RunFolder


def run_dir(recipe: Recipe) -> Path:
    """Return the run's folder on this machine."""
    return RunFolder.of(recipe).path
