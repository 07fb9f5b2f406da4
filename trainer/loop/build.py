"""Build the classifier with its initial weights, and the contract's two specs, from a recipe and a dataset."""

from __future__ import annotations

from typing import Literal

import torch

from shards.dataset.dataset import Dataset
from shards.errors import UsageError
from shards.pictures.decoding import VERSION as DECODING
from trainer.contract.model.backbone import (
    build_without_memory,
    is_size_fixed,
    one_line,
    own_size,
)
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec
from trainer.recipes.recipe import ResolvedRecipe
from trainer.weights.expectation import Expectation
from trainer.weights.expected import read_expectation
from trainer.weights.resolve import list_train_sizes

_ROUNDS_SINCE = 3
"""Version of the decoding rules from which luminance is rounded."""


def build_model(recipe: ResolvedRecipe, num_classes: int, begun: bool = False) -> Classifier:
    """Return the classifier of a recipe with its initial weights.

    begun: Whether the run has a snapshot; then checks of new runs are skipped.

    Raises:
        UsageError: The model or weights are unknown, the model does not take the size, or layers to freeze have no
            weights.
        ShardError: The weights do not fit, or belong to another network.
    """
    spec = build_model_spec(recipe, num_classes)
    for size in list_train_sizes(recipe):
        check_size(spec, size)
    torch.manual_seed(recipe.seed)
    model = Classifier(spec)
    if recipe.weights != "none" or recipe.freeze:
        from trainer.loop.start import load_start  # late: a run from scratch reads no weights

        load_start(model, recipe, _read_expectation(recipe), begun)
    return model.to(getattr(torch, recipe.dtype))


def build_model_spec(recipe: ResolvedRecipe, num_classes: int) -> ModelSpec:
    """Return the contract's model: the recipe's backbone with the normalisation of its weights.

    Raises:
        UsageError: The weights belong to another model, or a gray backbone would get colour pictures.
    """
    # Otherwise the backbone takes three channels, and the normalisation repeats gray pictures.
    channels: Literal[1, 3] = 1 if recipe.preprocess.gray_backbone else 3
    if channels == 1 and recipe.preprocess.channels != 1:
        raise UsageError("preprocess.gray_backbone needs pictures with one channel; also set preprocess.channels=1")
    mean, std = _read_expectation(recipe).for_channels(channels)
    return ModelSpec(
        name=recipe.model,
        num_classes=num_classes,
        in_channels=channels,
        mean=mean,
        std=std,
        dropout=recipe.head_dropout,
        image_size=recipe.image_size if is_size_fixed(recipe.model) else None,
    )


def _read_expectation(recipe: ResolvedRecipe) -> Expectation:
    return read_expectation(recipe.model, recipe.weights).normalised(recipe.preprocess.normalise)


def build_preprocess(recipe: ResolvedRecipe, dataset: Dataset, begun: int = DECODING) -> PreprocessSpec:
    """Return the contract's preprocessing: the dataset's decoding followed by the recipe's geometry.

    begun: Oldest version of the decoding rules used in the run, whose luminance rule is kept.
    """
    packing = dataset.manifest.packing
    options = recipe.preprocess.model_dump(exclude={"gray_backbone", "normalise"})
    options["luminance"] = 2 if options["channels"] == 1 and begun >= _ROUNDS_SINCE else 1
    return PreprocessSpec(size=recipe.image_size, decode=packing.decode, max_side=packing.max_side, **options)


def check_size(spec: ModelSpec, size: int, training: bool = True) -> None:
    """Raise if the model does not take a size in training or evaluation, before weights are created or read.

    Raises:
        UsageError: The model does not take it; the message has the library's reason.
    """
    model = build_without_memory(lambda: Classifier(spec)).train(training)
    try:
        model(torch.empty((2, spec.in_channels, size, size), device="meta"))
    except (AssertionError, RuntimeError, TypeError, ValueError) as err:
        raise UsageError(
            f"{spec.name} does not take pictures of {size} pixels ({one_line(err)}); "
            f"use its own size, {own_size(spec.name)}, or one nearer to it"
            f"{', or leave preprocess.gray_backbone out' if training and spec.in_channels == 1 else ''}"
        ) from err
