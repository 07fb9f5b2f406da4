"""A recipe as a run takes it: nothing is left open that its weights decide."""

from __future__ import annotations

from pydantic import Field

from trainer.recipes.options.preprocess import Interpolation, PreprocessOptions
from trainer.recipes.recipe import Recipe


class ResolvedPreprocess(PreprocessOptions):
    """Preprocessing whose interpolation is known."""

    interpolation: Interpolation


class ResolvedRecipe(Recipe):
    """What `trainer.weights.resolve.resolve_recipe` returns: size and interpolation are given, paths are absolute.

    The recipe file of a run, and what Ray's workers are handed, hold these values.
    """

    image_size: int = Field(ge=16)
    preprocess: ResolvedPreprocess
