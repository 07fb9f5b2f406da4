"""More epochs for a run that has begun: the same run where its schedule does not depend on its length."""

from __future__ import annotations

from trainer.recipes.options.schedule import SCHEDULES
from trainer.recipes.recipe import Recipe


def is_longer(there: Recipe, recipe: Recipe) -> bool:
    """Say whether `recipe` is that of a run that has begun, but for more epochs."""
    return recipe.epochs > there.epochs and with_epochs(recipe, there.epochs) == there.fingerprint()


def find_begun_epochs(recipe: Recipe, fingerprint: str) -> int | None:
    """Return the epochs with which a recipe has that fingerprint, None where no lower number gives it."""
    fewer = range(recipe.epochs - 1, 0, -1)
    return next((number for number in fewer if with_epochs(recipe, number) == fingerprint), None)


def with_epochs(recipe: Recipe, epochs: int) -> str:
    """Return the fingerprint that a recipe would have with so many epochs."""
    return recipe.model_copy(update={"epochs": epochs}).fingerprint()


def takes_more_epochs(recipe: Recipe) -> bool:
    """Say whether the learning rate of an epoch is the same however many follow."""
    return not SCHEDULES[recipe.schedule.name].spans_run
