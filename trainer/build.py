"""What a recipe and a dataset make: the classifier with its starting weights, and the contract's two specs."""

from __future__ import annotations

import logging

import torch

from shards.dataset import Dataset
from trainer.contract.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec
from trainer.recipe import Recipe
from trainer.weights.load import load_weights, read_normalisation

logger = logging.getLogger(__name__)


def build_model(recipe: Recipe, num_classes: int) -> Classifier:
    """Return the classifier of a recipe with its starting weights."""
    torch.manual_seed(recipe.seed)
    spec = build_model_spec(recipe, num_classes)
    model = Classifier(spec)
    report = load_weights(model.backbone, spec, recipe.weights)
    if report is not None:
        logger.info("weights %s: %s", recipe.weights, report)
    return model.to(getattr(torch, recipe.dtype))


def build_model_spec(recipe: Recipe, num_classes: int) -> ModelSpec:
    """Return the contract's model: the recipe's backbone with the normalisation of its weights."""
    mean, std = read_normalisation(recipe.weights)
    # The backbone always takes three channels: gray pictures are repeated by the normalisation.
    return ModelSpec(name=recipe.model, num_classes=num_classes, mean=mean, std=std)


def build_preprocess(recipe: Recipe, dataset: Dataset) -> PreprocessSpec:
    """Return the contract's preprocessing: the recipe's geometry behind the dataset's decoding."""
    packing = dataset.manifest.packing
    return PreprocessSpec(
        size=recipe.image_size, decode=packing.decode, max_side=packing.max_side, **recipe.preprocess.model_dump()
    )
