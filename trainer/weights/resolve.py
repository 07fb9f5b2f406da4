"""What a recipe leaves open and its weights decide: size and interpolation of the pictures."""

from __future__ import annotations

from shards.errors import UsageError
from trainer.contract.model.backbone import (
    is_size_fixed,
)
from trainer.recipes.recipe import Recipe
from trainer.weights.load import read_expectation


def resolve_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe with the size and interpolation of its weights where it gives none of its own.

    Raises:
        UsageError: The weights are another model's.
    """
    if recipe.image_size is not None and recipe.preprocess.interpolation is not None:
        return recipe
    expects = read_expectation(recipe.model, recipe.weights)
    interpolation = recipe.preprocess.interpolation or expects.interpolation
    return recipe.model_copy(
        update={
            "image_size": recipe.image_size or expects.size,
            "preprocess": recipe.preprocess.model_copy(update={"interpolation": interpolation}),
        }
    )


def resolve_size(recipe: Recipe) -> int:
    """Return the side of the model's input, pixels."""
    size = resolve_recipe(recipe).image_size
    assert size is not None
    return size


def list_train_sizes(recipe: Recipe) -> set[int]:
    """Return the sides of training's pictures in the first and the last epoch, pixels; one where they do not grow."""
    size = resolve_size(recipe)
    return {recipe.augment.train_size(0, size), size}


def check_growth(recipe: Recipe) -> None:
    """Refuse training pictures that grow otherwise than to image_size within the run, or for a model of one size.

    Raises:
        UsageError: One sentence that says which.
    """
    growth, size = recipe.augment.progressive, resolve_size(recipe)
    if growth is None:
        return
    if growth.start_size >= size:
        raise UsageError(
            f"augment.progressive.start_size is {growth.start_size} and image_size {size}: pictures would not grow; "
            "take a smaller start_size, or leave progressive out"
        )
    if growth.to_epoch >= recipe.epochs:
        raise UsageError(
            f"augment.progressive.to_epoch is {growth.to_epoch} and the run's last epoch {recipe.epochs - 1} (they "
            "count from 0): training would never see image_size; take a smaller to_epoch, or more epochs"
        )
    if is_size_fixed(recipe.model):
        raise UsageError(
            f"{recipe.model} is built for one size, {size}, and augment.progressive would show it smaller pictures; "
            "take a convolutional model, or leave progressive out"
        )
