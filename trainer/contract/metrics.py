"""The one table of metrics: what each is called, which way is better, when it exists, and what computes it.

To add one, add a row and the function it names, which takes a `Scored` of its task (trainer.evaluate.metrics) and
returns the value, or a sentence that says why these samples do not define it. Options, errors, files, reports and tests
read the table. It is in the contract because bundles and endpoints also name metrics; functions are named as text and
imported late, so that options and serving do not import what only evaluation needs.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from shards.cli.sentences import join_some

Needs = Literal["nothing", "two classes", "every class", "positive class", "a class", "a mixed class", "both answers"]


@dataclass(frozen=True)
class Metric:
    """A row. A place is the position in a list; the table's order breaks ties, and None means not in the list."""

    key: str
    """Its name in metrics.json, recipes and charts."""
    task: Literal["single-label", "multi-label"]
    builder: str
    """`package.module:function`: Scored -> float, None if the metric does not apply, or the reason it is undefined."""
    needs: Needs = "nothing"
    """What the samples must have. two classes: samples of two classes; every class: samples of each; positive class: a
    class of interest; a class: a class that some samples have; a mixed class: one that some have and others lack; both
    answers: an answer yes and an answer no."""
    spelt: str = ""
    """Display name; empty: the key with spaces."""
    lower_is_better: bool = False
    stop: int | None = None
    """Place among the metrics that may choose the best epoch (`stop.metric`); the first is the default."""
    headline: int | None = None
    """Place among the metrics of a one-line summary."""
    slice: int | None = None
    """Place in the row of a slice, after the share of correct predictions."""
    counts_right: bool = False
    """Whether it is the share of correct predictions, which slices report: one per task."""
    positive_of_two: bool = False
    """Whether it is about the positive class of two; with more classes it is a mean over classes."""
    about_probabilities: bool = False
    """Whether it measures the quality of probabilities; reports show it beside the calibration."""
    unbounded: str = ""
    """Why it has no interval, if resampling cannot give one."""

    @property
    def name(self) -> str:
        """Display name."""
        return self.spelt or self.key.replace("_", " ").replace("f1", "F1")


METRICS: Final = (
    Metric(
        "accuracy", "single-label", "trainer.evaluate.metrics.one_label:accuracy",
        stop=1, headline=1, counts_right=True,
    ),
    Metric(
        "balanced_accuracy", "single-label", "trainer.evaluate.metrics.one_label:balanced_accuracy",
        stop=1, slice=1,
    ),
    Metric("macro_precision", "single-label", "trainer.evaluate.metrics.one_label:macro_precision"),
    Metric("weighted_precision", "single-label", "trainer.evaluate.metrics.one_label:weighted_precision"),
    Metric("macro_recall", "single-label", "trainer.evaluate.metrics.one_label:macro_recall"),
    Metric("weighted_recall", "single-label", "trainer.evaluate.metrics.one_label:weighted_recall"),
    Metric("macro_f1", "single-label", "trainer.evaluate.metrics.one_label:macro_f1", stop=1, slice=1),
    Metric("weighted_f1", "single-label", "trainer.evaluate.metrics.one_label:weighted_f1"),
    Metric("mcc", "single-label", "trainer.evaluate.metrics.one_label:mcc", "two classes", "MCC"),
    Metric("kappa", "single-label", "trainer.evaluate.metrics.one_label:kappa", "two classes", "Cohen's kappa"),
    Metric("top5_accuracy", "single-label", "trainer.evaluate.metrics.one_label:top5_accuracy"),
    Metric(
        "auroc", "single-label", "trainer.evaluate.metrics.one_label:auroc",
        "every class", "AUROC", stop=1, slice=1, positive_of_two=True,
    ),
    Metric(
        "auprc", "single-label", "trainer.evaluate.metrics.one_label:auprc",
        "every class", "AUPRC (average precision)",
        slice=1, positive_of_two=True,
    ),
    Metric(
        "sensitivity", "single-label", "trainer.evaluate.metrics.one_label:sensitivity",
        "positive class", slice=1,
    ),
    Metric(
        "specificity", "single-label", "trainer.evaluate.metrics.one_label:specificity",
        "positive class", slice=1,
    ),
    Metric(
        "sensitivity_at_specificity_90", "single-label",
        "trainer.evaluate.metrics.one_label:sensitivity_at_specificity_90", "positive class",
    ),
    Metric(
        "sensitivity_at_specificity_95", "single-label",
        "trainer.evaluate.metrics.one_label:sensitivity_at_specificity_95", "positive class",
    ),
    Metric(
        "log_loss", "single-label", "trainer.evaluate.metrics.one_label:log_loss", spelt="log loss (nats)",
        lower_is_better=True, stop=1, slice=1, about_probabilities=True,
    ),
    Metric(
        "brier", "single-label", "trainer.evaluate.metrics.one_label:brier", spelt="Brier score",
        lower_is_better=True, slice=1, about_probabilities=True,
    ),
    Metric(
        "ece", "single-label", "trainer.evaluate.metrics.one_label:ece",
        spelt="ECE, expected calibration error",
        lower_is_better=True, slice=1, about_probabilities=True, unbounded="resampling would bias it upward",
    ),
    Metric(
        "subset_accuracy", "multi-label", "trainer.evaluate.metrics.many_labels:subset_accuracy",
        spelt="all labels right",
        stop=6, headline=3, counts_right=True,
    ),
    Metric(
        "hamming_loss", "multi-label", "trainer.evaluate.metrics.many_labels:hamming_loss",
        lower_is_better=True, stop=7, slice=1,
    ),
    Metric("micro_f1", "multi-label", "trainer.evaluate.metrics.many_labels:micro_f1", stop=3, slice=3),
    Metric(
        "log_loss", "multi-label", "trainer.evaluate.metrics.many_labels:log_loss", spelt="log loss (nats)",
        lower_is_better=True, stop=8, slice=6, about_probabilities=True,
    ),
    Metric(
        "macro_f1", "multi-label", "trainer.evaluate.metrics.many_labels:macro_f1",
        "a class", stop=2, headline=2, slice=2,
    ),
    Metric(
        "map", "multi-label", "trainer.evaluate.metrics.many_labels:mean_average_precision",
        "a class", "mAP", stop=1, headline=1, slice=4,
    ),
    Metric(
        "auroc", "multi-label", "trainer.evaluate.metrics.many_labels:auroc",
        "a mixed class", "AUROC", stop=4, slice=5,
    ),
    Metric(
        "micro_auroc", "multi-label", "trainer.evaluate.metrics.many_labels:micro_auroc",
        "both answers", "micro AUROC", stop=5,
    ),
)  # fmt: skip
"""In the order of metrics.json."""

STOP_METRICS: Final = tuple(dict.fromkeys(metric.key for metric in METRICS if metric.stop is not None))
"""The values of `stop.metric`, for both tasks."""


def list_metrics(task: str, place: Literal["stop", "headline", "slice"] | None = None) -> list[Metric]:
    """Return the rows of a task, or those in one list, in its order.

    >>> [metric.key for metric in list_metrics("multi-label", "headline")]
    ['map', 'macro_f1', 'subset_accuracy']
    """
    rows = [metric for metric in METRICS if metric.task == task]
    if place is None:
        return rows
    places = {metric: getattr(metric, place) for metric in rows}
    return sorted((metric for metric in rows if places[metric] is not None), key=places.__getitem__)


def describe_lack(metric: Metric, class_counts: Sequence[int], total: int, classes: Sequence[str]) -> str | None:
    """Return what a metric needs and the samples lack, to follow the word "needs"; None if nothing is missing.

    The needs of metrics of the positive class depend on that class and are not checked.

    Args:
        metric: A row.
        class_counts: Samples of each class.
        total: Number of samples; with several labels, a sample counts in several classes or in none.
        classes: Class names.

    >>> describe_lack(next(row for row in METRICS if row.key == "auroc"), [3, 0], 3, ["ants", "bees"])
    'pictures of every class, and there are none of bees'
    """
    missing = [name for name, count in zip(classes, class_counts, strict=True) if not count]
    there, mixed = len(classes) - len(missing), any(0 < count < total for count in class_counts)
    match metric.needs:
        case "two classes" if there < 2:
            return "pictures of two classes, and all are of one"
        case "every class" if missing:
            return f"pictures of every class, and there are none of {join_some(missing, 5)}"
        case "every class" if len(classes) < 2:
            return "at least two classes, and there is one"
        case "a class" if not there:
            return "a class that some pictures have, and there is none"
        case "a mixed class" if not mixed:
            return "a class that some pictures have and others have not, and there is none"
        case "both answers" if not 0 < sum(class_counts) < total * len(classes):
            return f"pictures with a label and pictures that lack one, and all have {'all' if there else 'none'}"
    return None


def find_right(names: Container[str]) -> Metric:
    """Return the metric for the share of correct predictions whose key is in `names`.

    Raises:
        StopIteration: No task has one.
    """
    return next(metric for metric in METRICS if metric.counts_right and metric.key in names)


def is_lower_better(key: str) -> bool:
    """Return whether lower values of a metric are better; False for names not in the table.

    >>> is_lower_better("brier"), is_lower_better("map")
    (True, False)
    """
    return any(metric.lower_is_better for metric in METRICS if metric.key == key)


def spell_metric(key: str) -> str:
    """Return a metric's display name.

    >>> spell_metric("macro_f1"), spell_metric("auroc"), spell_metric("recall")
    ('macro F1', 'AUROC', 'recall')
    """
    known = [metric for metric in METRICS if metric.key == key]
    return (known[0] if known else Metric(key, "single-label", "")).name


def is_of_positive(name: str, num_classes: int) -> bool:
    """Return whether a metric, with or without a prefix (`val/`), is about the positive class alone.

    >>> is_of_positive("test/auprc", 2), is_of_positive("auprc", 3), is_of_positive("accuracy", 2)
    (True, False, False)
    """
    last = name.rpartition("/")[2]
    return any(
        metric.key == last and (metric.needs == "positive class" or (metric.positive_of_two and num_classes == 2))
        for metric in METRICS
    )


def name_figure(name: str, positive: str | None, num_classes: int) -> str:
    """Return the display name of a metric, with the positive class if the metric is about it.

    >>> name_figure("val/sensitivity", "DEFECTIVE", 2)
    'val/sensitivity (DEFECTIVE)'
    """
    return f"{name} ({positive})" if positive is not None and is_of_positive(name, num_classes) else name


def name_figures(numbers: Mapping[str, float], positive: str | None, num_classes: int) -> dict[str, float]:
    """Return numbers keyed by the names from `name_figure`."""
    return {name_figure(name, positive, num_classes): value for name, value in numbers.items()}


def describe_headline(metrics: dict[str, Any]) -> str:
    """Return the headline metrics, each followed by its 95 % interval if it has one.

    >>> describe_headline({"subset_accuracy": 0.5, "map": 0.75, "intervals": {"map": [0.7, 0.8]}})
    'mAP 0.7500 [0.7000, 0.8000], all labels right 0.5000'
    """
    told = list_metrics(find_right(metrics).task, "headline")
    shown = [f"{each.name} {metrics[each.key]:.4f}{_bound(metrics, each.key)}" for each in told if each.key in metrics]
    return ", ".join(shown)


def describe_of_positive(metrics: dict[str, Any]) -> str | None:
    """Return the metrics that depend on the positive class, with its name; None if no class is positive.

    >>> describe_of_positive({"accuracy": 0.5, "sensitivity": 0.75, "positive": "BAD", "per_class": {"BAD": {}}})
    'sensitivity (BAD) 0.7500'
    """
    positive, count = metrics.get("positive"), len(metrics.get("per_class", ()))
    of_one = [each for each in list_metrics(find_right(metrics).task) if is_of_positive(each.key, count)]
    told = [
        f"{each.spelt.partition(' (')[0] or each.name} ({positive}) {metrics[each.key]:.4f}{_bound(metrics, each.key)}"
        for each in of_one
        if each.key in metrics
    ]
    return ", ".join(told) if positive is not None and told else None


def _bound(metrics: dict[str, Any], name: str) -> str:
    bounds = metrics.get("intervals", {}).get(name)
    return f" [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""
