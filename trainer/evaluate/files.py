"""The files of an evaluation: predictions, metrics, slices, figures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from shards.files.atomic import write_atomically, write_json
from trainer.evaluate.columns import join_columns
from trainer.evaluate.extras import try_extra
from trainer.evaluate.figures.figures import draw_confusion
from trainer.evaluate.figures.fonts import Lettering, letter_classes
from trainer.evaluate.figures.multi_label_figures import draw_confusions
from trainer.evaluate.figures.score_figures import draw_reliability, draw_scores, draw_thresholds
from trainer.evaluate.metrics.intervals import Answers, compute_intervals
from trainer.evaluate.metrics.metrics import compute_metrics, select_scalars
from trainer.evaluate.metrics.multi_label_intervals import compute_multi_label_intervals
from trainer.evaluate.metrics.resampling import find_units
from trainer.evaluate.metrics.rule import EachRule, Rule, find_each_rule, find_rule
from trainer.evaluate.positive import Positive, read_stored, take_default
from trainer.evaluate.predictions import INDEX_COLUMNS, Predictions, write_predictions
from trainer.evaluate.slices import check_columns, slice_metrics, tabulate_slices

Ints = npt.NDArray[np.int64]
Drawing = Callable[[Path], None]

METRICS, SLICES = "metrics.json", "slices.csv"
FIGURES = ("confusion.png", "confusion_normalised.png", "curves.png", "reliability.png", "thresholds.png")


@dataclass(frozen=True)
class Judging:
    """What is asked of the rows of an evaluation.

    positive: class that is looked for, as a command names it; stored: that of a recipe, bundle or dataset, where the
    command names none; threshold: on its probability, or where pictures have several labels on that of
    every class; by: columns to slice by; columns: a table of more of them.
    """

    positive: str | None = None
    threshold: float | None = None
    by: tuple[str, ...] = ()
    columns: pa.Table | None = None
    stored: Positive | None = None

    def with_stored(self, stored: Positive | None) -> Judging:
        """Return this with a positive class that is stored somewhere, unless it has one that comes first."""
        return self if self.stored is not None else replace(self, stored=stored)

    def find_positive(self, classes: list[str], multi_label: bool) -> Positive | None:
        """Return the class that is looked for, and who named it; None where none is."""
        if multi_label:
            return None
        named = None if self.positive is None else Positive(self.positive, "--positive")
        return named or self.stored or take_default(classes)

    def check(self, classes: list[str], known: list[str] | None = None, multi_label: bool = False) -> None:
        """Raise UsageError where it does not fit the classes and the columns, by default those of an index."""
        self.find_rule(classes, multi_label)
        more = self.columns.column_names if self.columns is not None else []
        check_columns(list(self.by), list(dict.fromkeys([*(known or INDEX_COLUMNS.values()), *more])))

    def find_rule(self, classes: list[str], multi_label: bool) -> Rule | EachRule:
        """Return how probabilities become predictions; raises UsageError as `check`."""
        if multi_label:
            return find_each_rule(classes, self.positive, self.threshold)
        positive = self.find_positive(classes, multi_label)
        return find_rule(classes, positive.name if positive else None, self.threshold)


def write_evaluation(out: Path, predictions: Predictions, judging: Judging | None = None) -> dict[str, Any]:
    """Write all files of an evaluation into `out` and return what metrics.json holds.

    A figure that cannot be drawn is absent, with the reason in `notes`.

    Raises:
        UsageError: Columns or classes that the rows do not have.
    """
    judging = (judging or Judging()).with_stored(read_stored(predictions.facts))
    notes: dict[str, str] = {}
    if judging.columns is not None:
        predictions, note = join_columns(predictions, judging.columns)
        if note:
            notes["columns"] = note
    judging.check(predictions.classes, predictions.columns, predictions.is_multi_label)
    out.mkdir(parents=True, exist_ok=True)
    rule = judging.find_rule(predictions.classes, predictions.is_multi_label)
    positive = judging.find_positive(predictions.classes, predictions.is_multi_label)
    predictions = _record_positive(predictions, positive)
    predicted = rule.predict(predictions.logits, predictions.probabilities)
    write_predictions(out, predictions, predicted)
    result = _judge(predictions, predicted, rule, judging, notes)
    if positive is not None:
        result |= {"positive": positive.name, "positive_by": positive.said_by}
    _draw(out, predictions, result, rule)
    (out / SLICES).unlink(missing_ok=True)  # of an earlier evaluation
    if "slices" in result:
        with write_atomically(out / SLICES) as file:
            pyarrow.csv.write_csv(tabulate_slices(result["slices"], result.get("positive")), file)
    write_json(out / METRICS, result)
    return result


def _record_positive(predictions: Predictions, positive: Positive | None) -> Predictions:
    """Return rows that know the class that was looked for, where somebody named it: so do those who judge them anew."""
    facts = {name: fact for name, fact in predictions.facts.items() if not name.startswith("positive")}
    if positive is not None and positive.said_by != "default":
        facts |= {"positive": positive.name, "positive_by": positive.said_by}
    return replace(predictions, facts=facts)


def _judge(
    predictions: Predictions, predicted: Ints, rule: Rule | EachRule, judging: Judging, notes: dict[str, str]
) -> dict[str, Any]:
    """Return what metrics.json holds."""
    labels, logits, classes = predictions.labels, predictions.logits, predictions.classes
    units = find_units(len(labels), predictions.groups)
    metrics = compute_metrics(labels, logits, classes, rule)
    scalars = select_scalars(metrics)
    if isinstance(rule, EachRule):
        bounded = compute_multi_label_intervals(labels, logits, predicted, classes, units)
    else:
        bounded = compute_intervals(Answers(labels, predicted, logits), classes, rule, units)
    for part in (bounded["interval"]["notes"], bounded["intervals"]):
        for name in [name for name in part if name not in scalars and name not in ("per_class", "groups")]:
            del part[name]  # the metric itself is absent, and its note says why
    result = {**predictions.facts, "decision": rule.describe(classes), **metrics, **bounded}
    if notes := metrics.get("notes", {}) | notes:
        result["notes"] = notes
    if judging.by:
        right = (predicted == labels).reshape(len(labels), -1).all(axis=1)
        result["slices"] = slice_metrics(predictions, right, rule, units, list(judging.by))
    return result


def _draw(out: Path, predictions: Predictions, result: dict[str, Any], rule: Rule | EachRule) -> None:
    """Draw all figures of an evaluation that can be drawn, and add to the notes of the result what is to be known."""
    told: list[str] = []
    for name in FIGURES:  # an earlier evaluation's would pass for this one's
        with contextlib.suppress(OSError):  # what cannot be removed cannot be replaced either, and that is told
            (out / name).unlink()
    display_names, classes = predictions.display_names, predictions.classes
    lettering = try_extra("every figure", lambda: letter_classes(display_names, classes), told.append)
    if lettering is not None:
        told += [lettering.note] if lettering.note else []
        if isinstance(rule, EachRule):
            drawings = _draw_multi_label(predictions, result, lettering)
        else:
            drawings = _draw_single_label(predictions, result, lettering, rule)
        for name, figure in drawings.items():
            try_extra(name, partial(figure, out / name), told.append)
    if told:
        result["notes"] = result.get("notes", {}) | {"figures": "; ".join(told)}


def _draw_single_label(
    predictions: Predictions, result: dict[str, Any], lettering: Lettering, rule: Rule
) -> dict[str, Drawing]:
    """Return what draws each of FIGURES into a path."""
    labels, probabilities, confusion = predictions.labels, predictions.probabilities, np.array(result["confusion"])
    return {
        "confusion.png": lambda path: draw_confusion(path, confusion, lettering),
        "confusion_normalised.png": lambda path: draw_confusion(path, confusion, lettering, normalised=True),
        "curves.png": lambda path: draw_scores(path, labels, probabilities, lettering, rule),
        "reliability.png": lambda path: draw_reliability(path, labels, probabilities),
        "thresholds.png": lambda path: draw_thresholds(path, labels, probabilities, lettering, rule),
    }


def _draw_multi_label(predictions: Predictions, result: dict[str, Any], lettering: Lettering) -> dict[str, Drawing]:
    """Return what draws each figure of pictures with several labels into a path."""
    confusions = np.array(list(result["confusion_per_class"].values()))
    labels, probabilities = predictions.labels, predictions.probabilities
    return {
        "confusion.png": lambda path: draw_confusions(path, confusions, lettering),
        "curves.png": lambda path: draw_scores(path, labels, probabilities, lettering, Rule()),
    }
