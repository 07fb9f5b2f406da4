"""What a dataset's pictures have, one label or several, and what a recipe may ask of them."""

from __future__ import annotations

from typing import TypeVar

from shards.dataset.dataset import Dataset, shorten
from shards.dataset.positive import describe_default, find_misfit
from shards.errors import UsageError
from trainer.contract.metrics import Metric, describe_lack, list_metrics
from trainer.recipes.options.loss import LOSSES
from trainer.recipes.recipe import Recipe

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def settle_metric(recipe: AnyRecipe, dataset: Dataset) -> AnyRecipe:
    """Return the recipe with the first metric of its dataset's task where it gives none of its own."""
    names = [metric.key for metric in list_metrics(dataset.manifest.task, "stop")]
    if "metric" in recipe.stop.model_fields_set or recipe.stop.metric in names[:1] or not names:
        return recipe
    return recipe.model_copy(update={"stop": recipe.stop.model_copy(update={"metric": names[0]})})


def refuse_misfit(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse a recipe that asks what the dataset's task has no answer to.

    Raises:
        UsageError: It does, or the dataset has no labels.
    """
    dataset.require_labels()
    where = shorten(dataset.location)
    if dataset.manifest.task == "multi-label":
        _refuse_single_label_ways(recipe, where)
    _refuse_positive(recipe, dataset, where)
    metrics = {metric.key: metric for metric in list_metrics(dataset.manifest.task, "stop")}
    if recipe.stop.metric not in metrics:
        *names, last = metrics
        raise UsageError(
            f"{where} is {dataset.manifest.task} and has no stop.metric={recipe.stop.metric}; take "
            f"{', '.join(names)} or {last}"
        )
    _refuse_undefined(metrics[recipe.stop.metric], dataset)


def _refuse_positive(recipe: Recipe, dataset: Dataset, where: str) -> None:
    classes, manifest = dataset.classes, dataset.manifest
    misfit = recipe.positive and find_misfit(recipe.positive, classes, manifest.display_names, manifest.task)
    if misfit:
        stored = manifest.positive or describe_default(classes) or "none"
        raise UsageError(
            f"positive={recipe.positive} {misfit} ({where}); name a class that it has, or give positive=null, which "
            f"takes what the dataset says: {stored}"
        )


def _refuse_single_label_ways(recipe: Recipe, where: str) -> None:
    if not LOSSES[recipe.loss.name].several:
        others = " or ".join(name for name, row in LOSSES.items() if row.several)
        raise UsageError(
            f"{where} is multi-label and loss.name={recipe.loss.name} takes one label a picture; set loss.name={others}"
        )
    if recipe.loss.class_weights == "effective":
        raise UsageError(
            f"{where} is multi-label and loss.class_weights=effective weighs pictures by their one class; take "
            "balanced, or give a number for each class"
        )
    if recipe.stream.order == "balanced":
        raise UsageError(
            f"{where} is multi-label and stream.order=balanced shows each class equally often, which pictures of "
            "several classes cannot be; take plain or weighted, and loss.class_weights=balanced for rare classes"
        )


def _refuse_undefined(metric: Metric, dataset: Dataset) -> None:
    """Refuse a metric that the validation split cannot give, before an epoch is trained for it."""
    if "val" not in dataset.manifest.splits:
        return  # reported by those who need the split
    split = dataset.split("val")
    lack = describe_lack(metric, split.class_counts.sum(axis=0).tolist(), split.num_samples, dataset.classes)
    if lack is not None:
        other = next(row.key for row in list_metrics(metric.task, "stop") if row.needs == "nothing")
        raise UsageError(
            f"stop.metric={metric.key} needs {lack} in the validation split; set stop.metric={other}, or pack again "
            "with a larger val"
        )
