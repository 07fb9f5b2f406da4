"""What a recipe and a dataset make: the classifier with its starting weights, and the contract's two specs."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal

import torch

from shards.dataset.dataset import Dataset
from shards.errors import UsageError
from shards.pictures.decoding import VERSION as DECODING
from trainer.contract.model.backbone import (
    build_without_memory,
    find_first_convolutions,
    is_size_fixed,
    one_line,
    own_size,
)
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec
from trainer.recipes.resolved import ResolvedRecipe
from trainer.step.freeze import list_frozen_noise
from trainer.weights.expectation import NORMALISATIONS
from trainer.weights.leftovers import is_learnt, refuse_leftovers, shorten
from trainer.weights.load import load_weights, read_expectation
from trainer.weights.match import LoadReport
from trainer.weights.read import Choice
from trainer.weights.resolve import list_train_sizes

logger = logging.getLogger(__name__)

_ROUNDS_SINCE = 3
"""Version of decoding from which on luminance is rounded."""


def build_model(recipe: ResolvedRecipe, num_classes: int, begun: bool = False) -> Classifier:
    """Return the classifier of a recipe with its starting weights.

    begun: The run has a snapshot. What a new run is refused is let pass: it passed when the run began.

    Raises:
        UsageError: No such model or weights, a size that the model does not take, or layers are to be frozen that have
            no weights.
        ShardError: Weights that do not fit, or are another network's.
    """
    spec = build_model_spec(recipe, num_classes)
    for size in list_train_sizes(recipe):
        check_size(spec, size)
    torch.manual_seed(recipe.seed)
    model = Classifier(spec)
    choice = Choice(recipe.weights_key, recipe.weights_ema)
    report = load_weights(model.backbone, spec, recipe.weights, choice=choice)
    if report is not None:
        _report_loading(report, model, recipe, begun)
    if recipe.freeze:
        _refuse_frozen_noise(report, model, recipe, begun)
    return model.to(getattr(torch, recipe.dtype))


def _report_loading(report: LoadReport, model: Classifier, recipe: ResolvedRecipe, begun: bool) -> None:
    """Log what was loaded: a warning where something of the trunk or of the file was not.

    Raises:
        ShardError: Leftovers that the recipe does not allow.
    """
    name = model.spec.name
    if not (recipe.allow_leftovers or begun):
        remedy = f"{_advise(report, model)}, or insist with allow_leftovers=true"
        refuse_leftovers(report.leftovers, report.left_out, name, report.source, remedy)
    level = logging.WARNING if report.leftovers or report.untrained else logging.INFO
    logger.log(level, "weights %s into %s: %s", report.source, name, report)


def _refuse_frozen_noise(report: LoadReport | None, model: Classifier, recipe: ResolvedRecipe, begun: bool) -> None:
    """Refuse to freeze what got no weights: all that follows would learn from the features of random layers."""
    unloaded = list(model.backbone.state_dict()) if report is None else report.missing
    noise = [name for name in list_frozen_noise(model, recipe.freeze, unloaded) if is_learnt(name)]
    if not noise:
        return
    if report is None:
        source, lack = "weights=none", "loads nothing"
        remedy = f"train them ({_release(recipe)}), or give weights= that have them"
    else:
        source, lack = report.source, f"has nothing for {shorten(noise)}"
        remedy = f"leave these out of freeze, train all layers ({_release(recipe)}), or give weights= that have them"
    fact = f"freeze={_write(recipe.freeze)} keeps layers as they were loaded, and {source} {lack}: they stay random"
    if not begun:
        raise UsageError(f"{fact}; {remedy}")
    logger.warning("%s. The run began so and is resumed as it is; for better weights begin another one", fact)


def _release(recipe: ResolvedRecipe) -> str:
    """Return the options that freeze nothing."""
    return "freeze=[]" if recipe.freeze_epochs is None else "freeze=[] freeze_epochs=null"


def _write(names: list[str]) -> str:
    return f"[{', '.join(names)}]"


def _advise(report: LoadReport, model: Classifier) -> str:
    """Return what to look at where a file has leftovers."""
    first = {f"{layer}.weight" for layer in find_first_convolutions(model.backbone)}
    if model.spec.in_channels == 3 and set(report.leftovers) <= first:
        return (
            "give the model= that it belongs to; where it was trained on pictures of one channel, give "
            "preprocess.channels=1 preprocess.gray_backbone=true"
        )
    return "give the model= that it belongs to"


def build_model_spec(recipe: ResolvedRecipe, num_classes: int) -> ModelSpec:
    """Return the contract's model: the recipe's backbone with the normalisation of its weights.

    Raises:
        UsageError: The weights are another model's, or a gray backbone is to see colours.
    """
    expects = read_expectation(recipe.model, recipe.weights)
    # Otherwise the backbone takes three channels: gray pictures are repeated by the normalisation.
    channels: Literal[1, 3] = 1 if recipe.preprocess.gray_backbone else 3
    if channels == 1 and recipe.preprocess.channels != 1:
        raise UsageError("preprocess.gray_backbone takes pictures of one channel; set preprocess.channels=1 with it")
    if recipe.preprocess.normalise:
        mean, std = NORMALISATIONS[recipe.preprocess.normalise]
        expects = replace(expects, mean=mean, std=std)
    mean, std = expects.for_channels(channels)
    return ModelSpec(
        name=recipe.model,
        num_classes=num_classes,
        in_channels=channels,
        mean=mean,
        std=std,
        dropout=recipe.head_dropout,
        image_size=recipe.image_size if is_size_fixed(recipe.model) else None,
    )


def build_preprocess(recipe: ResolvedRecipe, dataset: Dataset, begun: int = DECODING) -> PreprocessSpec:
    """Return the contract's preprocessing: the recipe's geometry behind the dataset's decoding.

    begun: Version of decoding of the oldest program that trained the run: it keeps that program's luminance.
    """
    packing = dataset.manifest.packing
    options = recipe.preprocess.model_dump(exclude={"gray_backbone", "normalise"})
    options["luminance"] = 2 if options["channels"] == 1 and begun >= _ROUNDS_SINCE else 1
    return PreprocessSpec(size=recipe.image_size, decode=packing.decode, max_side=packing.max_side, **options)


def check_size(spec: ModelSpec, size: int, training: bool = True) -> None:
    """Refuse a size that the model does not take, in training or in evaluation, before any weight is made or read.

    Raises:
        UsageError: It does not take it; the sentence names the library's reason.
    """
    model = build_without_memory(lambda: Classifier(spec)).train(training)
    try:
        model(torch.empty((2, spec.in_channels, size, size), device="meta"))
    except (AssertionError, RuntimeError, TypeError, ValueError) as err:
        raise UsageError(
            f"{spec.name} does not take pictures of {size} pixels ({one_line(err)}); "
            f"its own size is {own_size(spec.name)}, take that or one nearer to it"
            f"{', or leave preprocess.gray_backbone out' if training and spec.in_channels == 1 else ''}"
        ) from err
