"""The folder of a run: whose it is, and whether it is finished."""

from __future__ import annotations

from pathlib import Path

from shards.errors import UsageError
from trainer.recipe import PLACEMENT, Recipe
from trainer.recipe_file import load_recipe

RESULT = "result.json"
"""Written last; a folder that has it is finished."""
SNAPSHOTS = "snapshots"
STOP_FILE = "stop"
"""A file of this name asks the run to save its state and end."""
SAVE_FILE = "save"
"""A file of this name asks the run to save its state and go on; rank 0 removes it when it does."""


def is_finished(run_dir: Path) -> bool:
    """Return whether a run has its bundle, evaluations and report."""
    return (run_dir / RESULT).is_file()


def claim_run_dir(recipe: Recipe) -> None:
    """Make the run's folder and save the recipe in it.

    Raises:
        UsageError: The folder belongs to a run of another recipe; its first difference is named.
    """
    path = recipe.run_dir / "recipe.yaml"
    if path.is_file() and (recipe.run_dir / SNAPSHOTS).is_dir():  # without a snapshot there is nothing to mix up
        there = load_recipe(str(path))
        if there.fingerprint() != recipe.fingerprint():
            raise UsageError(
                f"{recipe.run_dir} holds a run of another recipe ({_first_difference(there, recipe)}); "
                "choose another name=, or delete that folder"
            )
    recipe.run_dir.mkdir(parents=True, exist_ok=True)
    recipe.write(path)


def _first_difference(old: Recipe, new: Recipe) -> str:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    name = next(name for name in after if before[name] != after[name] and name not in PLACEMENT)
    return f"{name} was {before[name]}, now {after[name]}"
