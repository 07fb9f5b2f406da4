"""Check that a recipe fits the task of its dataset: one label per picture, or several."""

from __future__ import annotations

from typing import TypeVar

from shards.dataset.dataset import Dataset
from shards.dataset.positive import describe_default, find_misfit
from shards.errors import UsageError
from shards.storage.shown import show_location
from trainer.contract.metrics import Metric, describe_lack, list_metrics
from trainer.recipes.options.loss import LOSSES
from trainer.recipes.recipe import Recipe

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def settle_metric(recipe: AnyRecipe, dataset: Dataset) -> AnyRecipe:
    """Return the recipe, with the first metric of the dataset's task if stop.metric is unset."""
    names = [metric.key for metric in list_metrics(dataset.manifest.task, "stop")]
    if "metric" in recipe.stop.model_fields_set or recipe.stop.metric in names[:1] or not names:
        return recipe
    return recipe.model_copy(update={"stop": recipe.stop.model_copy(update={"metric": names[0]})})


def refuse_misfit(recipe: Recipe, dataset: Dataset) -> None:
    """Raise if a recipe does not fit the dataset's task.

    Raises:
        UsageError: The recipe does not fit, or the dataset has no labels.
    """
    dataset.require_labels()
    where = show_location(dataset.location)
    if dataset.manifest.task == "multi-label":
        _refuse_single_label_ways(recipe, where)
    _refuse_positive(recipe, dataset, where)
    metrics = {metric.key: metric for metric in list_metrics(dataset.manifest.task, "stop")}
    if recipe.stop.metric not in metrics:
        *names, last = metrics
        raise UsageError(
            f"{where} is {dataset.manifest.task} and has no stop.metric={recipe.stop.metric}; use "
            f"{', '.join(names)} or {last}"
        )
    _refuse_undefined(metrics[recipe.stop.metric], dataset)


def _refuse_positive(recipe: Recipe, dataset: Dataset, where: str) -> None:
    classes, manifest = dataset.classes, dataset.manifest
    misfit = recipe.positive and find_misfit(recipe.positive, classes, manifest.display_names, manifest.task)
    if misfit:
        stored = manifest.positive or describe_default(classes) or "none"
        raise UsageError(
            f"positive={recipe.positive} {misfit} ({where}); name one of its classes, or set positive=null, which "
            f"uses the dataset's: {stored}"
        )


def _refuse_single_label_ways(recipe: Recipe, where: str) -> None:
    if not LOSSES[recipe.loss.name].several:
        others = " or ".join(name for name, row in LOSSES.items() if row.several)
        raise UsageError(
            f"{where} is multi-label and loss.name={recipe.loss.name} needs one label each; set loss.name={others}"
        )
    if recipe.loss.class_weights == "effective":
        raise UsageError(
            f"{where} is multi-label and loss.class_weights=effective needs one class per picture; use "
            "balanced, or give a number for each class"
        )
    if recipe.stream.order == "balanced":
        raise UsageError(
            f"{where} is multi-label and stream.order=balanced shows each class equally often, which several "
            "labels per picture do not allow; use plain or weighted, and loss.class_weights=balanced for rare classes"
        )


def _refuse_undefined(metric: Metric, dataset: Dataset) -> None:
    """Raise before training if the validation split does not define the metric."""
    if "val" not in dataset.manifest.splits:
        return  # code that needs the split reports this
    split = dataset.split("val")
    lack = describe_lack(metric, split.class_counts.sum(axis=0).tolist(), split.num_samples, dataset.classes)
    if lack is not None:
        other = next(row.key for row in list_metrics(metric.task, "stop") if row.needs == "nothing")
        raise UsageError(
            f"stop.metric={metric.key} needs {lack} in the validation split; set stop.metric={other}, or pack again "
            "with a larger val"
        )
