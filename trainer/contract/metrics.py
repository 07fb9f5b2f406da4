"""The one table of metrics: what each is called, which way is better, when it exists, and what computes it.

To add one: a row, and the function that it names, which takes a `Scored` of its task (trainer.evaluate.metrics) and
returns the value, or in words why these samples do not define it. Options, refusals, files, reports and tests read the
table. It lies in the contract because pages of bundles and endpoints name these figures, too; the functions are named
as text and loaded late, so that neither options nor serving import what evaluation alone needs.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shards.cli.sentences import join_some

Needs = Literal["nothing", "two classes", "every class", "positive class", "a class", "a mixed class", "both answers"]


@dataclass(frozen=True)
class Metric:
    """A row; places are those in lists, of equal ones the order of the table decides, and None is not in the list."""

    key: str
    """Its name in metrics.json, recipes and charts."""
    task: Literal["single-label", "multi-label"]
    builder: str
    """`package.module:function`: Scored -> float, None where there is no such figure, or why it is not defined."""
    needs: Needs = "nothing"
    """Of the samples: two classes with some; some of every class; a class that is looked for; a class that some have;
    one that some have and others have not; an answer yes and an answer no."""
    spelt: str = ""
    """As people write it; empty: as the key, with blanks."""
    lower_is_better: bool = False
    stop: int | None = None
    """Place among those that may choose the best epoch (`stop.metric`); the first does where a recipe names none."""
    headline: int | None = None
    """Place among those by which a result is told in a line."""
    slice: int | None = None
    """Place in the row of a slice, after the share of right answers."""
    counts_right: bool = False
    """The share of samples whose answer is right: one a task, by which slices are told."""
    positive_of_two: bool = False
    """Of two classes it is the positive one's; of more it is a mean over classes."""
    about_probabilities: bool = False
    """Whether they are what they say; a report shows it beside the calibration."""
    unbounded: str = ""
    """Why it has no interval, where no resample gives one."""

    @property
    def name(self) -> str:
        """As people write it."""
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
"""What `stop.metric` may name, of either task."""


def list_metrics(task: str, place: Literal["stop", "headline", "slice"] | None = None) -> list[Metric]:
    """Return the rows of a task, or those that have a place in a list, in its order.

    >>> [metric.key for metric in list_metrics("multi-label", "headline")]
    ['map', 'macro_f1', 'subset_accuracy']
    """
    rows = [metric for metric in METRICS if metric.task == task]
    if place is None:
        return rows
    places = {metric: getattr(metric, place) for metric in rows}
    return sorted((metric for metric in rows if places[metric] is not None), key=places.__getitem__)


def describe_lack(metric: Metric, class_counts: Sequence[int], total: int, classes: Sequence[str]) -> str | None:
    """Return what a metric needs of samples and these lack, to go on from "needs"; None where they define it.

    What a metric of the positive class needs, which depends on that class, is not looked at.

    Args:
        metric: A row.
        class_counts: Samples of each class.
        total: Samples in all; of several labels each counts in several classes, or in none.
        classes: Their names.

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
    """Return the share of right answers of the task that has figures of these names.

    Raises:
        StopIteration: No task has.
    """
    return next(metric for metric in METRICS if metric.counts_right and metric.key in names)


def is_lower_better(key: str) -> bool:
    """Say whether less of a metric is better; more of a name that the table does not have.

    >>> is_lower_better("brier"), is_lower_better("map")
    (True, False)
    """
    return any(metric.lower_is_better for metric in METRICS if metric.key == key)


def spell_metric(key: str) -> str:
    """Return a metric's name as people write it.

    >>> spell_metric("macro_f1"), spell_metric("auroc"), spell_metric("recall")
    ('macro F1', 'AUROC', 'recall')
    """
    known = [metric for metric in METRICS if metric.key == key]
    return (known[0] if known else Metric(key, "single-label", "")).name


def is_of_positive(name: str, num_classes: int) -> bool:
    """Say whether a metric, with or without an area before it (`val/`), is about the positive class alone.

    >>> is_of_positive("test/auprc", 2), is_of_positive("auprc", 3), is_of_positive("accuracy", 2)
    (True, False, False)
    """
    last = name.rpartition("/")[2]
    return any(
        metric.key == last and (metric.needs == "positive class" or (metric.positive_of_two and num_classes == 2))
        for metric in METRICS
    )


def name_figure(name: str, positive: str | None, num_classes: int) -> str:
    """Return the name of a metric as people see it, with its class where it is about the positive one.

    >>> name_figure("val/sensitivity", "DEFECTIVE", 2)
    'val/sensitivity (DEFECTIVE)'
    """
    return f"{name} ({positive})" if positive is not None and is_of_positive(name, num_classes) else name


def name_figures(numbers: Mapping[str, float], positive: str | None, num_classes: int) -> dict[str, float]:
    """Return numbers by the names of `name_figure`."""
    return {name_figure(name, positive, num_classes): value for name, value in numbers.items()}
