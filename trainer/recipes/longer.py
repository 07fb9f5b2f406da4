"""Extend a started run with more epochs, if its schedule does not depend on its length."""

from __future__ import annotations

from trainer.recipes.options.schedule import SCHEDULES
from trainer.recipes.recipe import Recipe


def is_longer(there: Recipe, recipe: Recipe) -> bool:
    """Return whether `recipe` equals `there`, the recipe of a started run, except for more epochs."""
    return recipe.epochs > there.epochs and with_epochs(recipe, there.epochs) == there.fingerprint()


def find_begun_epochs(recipe: Recipe, fingerprint: str) -> int | None:
    """Return the lower number of epochs that gives a recipe that fingerprint; None if there is none."""
    fewer = range(recipe.epochs - 1, 0, -1)
    return next((number for number in fewer if with_epochs(recipe, number) == fingerprint), None)


def with_epochs(recipe: Recipe, epochs: int) -> str:
    """Return the fingerprint that a recipe would have with this number of epochs."""
    return recipe.model_copy(update={"epochs": epochs}).fingerprint()


def takes_more_epochs(recipe: Recipe) -> bool:
    """Return whether the learning rate of an epoch is independent of the number of epochs."""
    return not SCHEDULES[recipe.schedule.name].spans_run
