"""Fill in what a recipe leaves open from its weights: size and interpolation of the pictures."""

from __future__ import annotations

from shards.errors import UsageError
from trainer.contract.model.backbone import is_size_fixed
from trainer.recipes.recipe import Recipe, ResolvedPreprocess, ResolvedRecipe
from trainer.weights.expected import read_expectation


def resolve_recipe(recipe: Recipe) -> ResolvedRecipe:
    """Return the recipe with absolute paths, and with the size and interpolation of its weights if they are unset.

    Raises:
        UsageError: The weights belong to another model.
    """
    recipe = recipe.with_absolute_paths()
    size, interpolation = recipe.image_size, recipe.preprocess.interpolation
    if size is None or interpolation is None:
        expects = read_expectation(recipe.model, recipe.weights)
        size, interpolation = size or expects.size, interpolation or expects.interpolation
    preprocess = ResolvedPreprocess(**recipe.preprocess.model_dump() | {"interpolation": interpolation})
    return ResolvedRecipe.model_validate(dict(recipe) | {"image_size": size, "preprocess": preprocess})


def list_train_sizes(recipe: ResolvedRecipe) -> set[int]:
    """Return the sides of training pictures in the first and last epoch, pixels; one if they do not grow."""
    return {recipe.augment.train_size(0, recipe.image_size), recipe.image_size}


def check_growth(recipe: ResolvedRecipe) -> None:
    """Raise if progressive resizing does not reach image_size within the run, or the model has a fixed size.

    Raises:
        UsageError: Progressive resizing does not fit the run or the model.
    """
    growth, size = recipe.augment.progressive, recipe.image_size
    if growth is None:
        return
    if growth.start_size >= size:
        raise UsageError(
            f"augment.progressive.start_size is {growth.start_size} and image_size is {size}: pictures would not grow; "
            "use a smaller start_size, or leave progressive out"
        )
    if growth.to_epoch >= recipe.epochs:
        raise UsageError(
            f"augment.progressive.to_epoch is {growth.to_epoch} and the run's last epoch is {recipe.epochs - 1} (they "
            "count from 0): training would never reach image_size; use a smaller to_epoch, or more epochs"
        )
    if is_size_fixed(recipe.model):
        raise UsageError(
            f"{recipe.model} has a fixed input size, {size}, but augment.progressive uses smaller pictures; "
            "use a convolutional model, or leave progressive out"
        )
