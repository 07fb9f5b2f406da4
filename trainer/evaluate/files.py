"""The files of an evaluation: predictions, metrics, slices, figures."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from shards.cli.sentences import count_things
from shards.errors import ShardError
from shards.files.atomic import write_atomically, write_json
from trainer.contract.task import Task
from trainer.evaluate.columns import join_columns
from trainer.evaluate.extras import try_extra
from trainer.evaluate.figures.fonts import letter_classes
from trainer.evaluate.kinds import FIGURES, find_kind
from trainer.evaluate.metrics.blocks import cut_rows
from trainer.evaluate.metrics.metrics import compute_metrics, select_scalars
from trainer.evaluate.metrics.resampling import find_units
from trainer.evaluate.metrics.rule import Rule, find_rule
from trainer.evaluate.positive import Positive, read_stored, take_default
from trainer.evaluate.predictions import INDEX_COLUMNS, Predictions, write_predictions
from trainer.evaluate.slices import check_columns, slice_metrics, tabulate_slices
from trainer.unpacked.unreadable import UNREADABLE

Ints = npt.NDArray[np.int64]

METRICS, SLICES = "metrics.json", "slices.csv"
_OF_BEFORE = (SLICES, UNREADABLE)
"""Files of an earlier evaluation that could be mistaken for this one's."""


@dataclass(frozen=True)
class Judging:
    """Options for evaluating rows.

    positive: Positive class from the command; stored: that of a recipe, bundle or dataset, used if the command names
    none;
    threshold: threshold on its probability, or with several labels on that of every class; by: columns to slice by;
    columns: a table with more columns.
    """

    positive: str | None = None
    threshold: float | None = None
    by: tuple[str, ...] = ()
    columns: pa.Table | None = None
    stored: Positive | None = None

    def with_stored(self, stored: Positive | None) -> Judging:
        """Return a copy with a stored positive class, unless it already has one."""
        return self if self.stored is not None else replace(self, stored=stored)

    def find_positive(self, task: Task, classes: list[str]) -> Positive | None:
        """Return the positive class and who named it; None if there is none."""
        named = None if self.positive is None else Positive(self.positive, "--positive")
        return (named or self.stored or take_default(task, classes)) if task.is_exclusive else None

    def check(self, task: Task, classes: list[str], known: list[str] | None = None) -> None:
        """Raise UsageError if the options do not fit the classes and columns (default: columns of an index)."""
        self.find_rule(task, classes)
        more = self.columns.column_names if self.columns is not None else []
        check_columns(list(self.by), list(dict.fromkeys([*(known or INDEX_COLUMNS.values()), *more])))

    def find_rule(self, task: Task, classes: list[str]) -> Rule:
        """Return the rule that converts probabilities to predictions; raises UsageError like `check`."""
        positive = self.find_positive(task, classes)
        return find_rule(task, classes, positive.name if positive else self.positive, self.threshold)


def write_evaluation(out: Path, predictions: Predictions, judging: Judging | None = None) -> dict[str, Any]:
    """Write all files of an evaluation to `out` and return the content of metrics.json.

    A figure that cannot be drawn is absent, with the reason in `notes`.

    Raises:
        UsageError: The rows lack a column or class.
        ShardError: Outputs are not finite; then no file is written.
    """
    _refuse_nonfinite(predictions)
    judging = (judging or Judging()).with_stored(read_stored(predictions.facts))
    notes: dict[str, str] = {}
    if judging.columns is not None:
        predictions, note = join_columns(predictions, judging.columns)
        if note:
            notes["columns"] = note
    task, classes = predictions.task, predictions.classes
    judging.check(task, classes, predictions.columns)
    out.mkdir(parents=True, exist_ok=True)
    rule, positive = judging.find_rule(task, classes), judging.find_positive(task, classes)
    predictions = _record_positive(predictions, positive)
    predicted = rule.predict(predictions.logits, predictions.probabilities)
    write_predictions(out, predictions, predicted)
    result = _judge(predictions, predicted, rule, judging, notes)
    if positive is not None:
        result |= {"positive": positive.name, "positive_by": positive.said_by}
    _draw(out, predictions, result, rule)
    for name in _OF_BEFORE:
        (out / name).unlink(missing_ok=True)
    if "slices" in result:
        with write_atomically(out / SLICES) as file:
            pyarrow.csv.write_csv(tabulate_slices(result["slices"], result.get("positive")), file)
    write_json(out / METRICS, result)
    return result


def _refuse_nonfinite(predictions: Predictions) -> None:
    """Raise for logits without a finite log loss. Minus infinity is allowed for classes a sample does not have."""
    labels, logits = predictions.labels, predictions.logits
    lost: list[int] = []
    with np.errstate(invalid="ignore"):
        for rows in cut_rows(*logits.shape):
            losses = predictions.task.log_losses(labels[rows], logits[rows]).reshape(rows.stop - rows.start, -1)
            lost += (rows.start + np.flatnonzero(~np.isfinite(losses).all(axis=1))).tolist()
    if lost:
        raise ShardError(
            f"the model's outputs are not finite for {count_things(len(lost), 'picture')} of {len(labels):,} "
            f"(the first is {predictions.known['path'][lost[0]].as_py()}), so nothing was evaluated; look at that "
            "picture, or train again with a lower optim.peak_lr or with optim.clip_norm"
        )


def _record_positive(predictions: Predictions, positive: Positive | None) -> Predictions:
    """Store the positive class in the rows if one was named, so that evaluating them again uses it."""
    facts = {name: fact for name, fact in predictions.facts.items() if not name.startswith("positive")}
    if positive is not None and positive.said_by != "default":
        facts |= {"positive": positive.name, "positive_by": positive.said_by}
    return replace(predictions, facts=facts)


def _judge(
    predictions: Predictions, predicted: Ints, rule: Rule, judging: Judging, notes: dict[str, str]
) -> dict[str, Any]:
    """Return the content of metrics.json."""
    labels, logits, classes = predictions.labels, predictions.logits, predictions.classes
    units = find_units(len(labels), predictions.groups)
    metrics = compute_metrics(labels, logits, classes, rule)
    scalars = select_scalars(metrics)
    bounded = find_kind(rule.task).bound(predictions, predicted, rule, units)
    for part in (bounded["interval"]["notes"], bounded["intervals"]):
        for name in [name for name in part if name not in scalars and name not in ("per_class", "groups")]:
            del part[name]  # the metric itself is absent, with a note
    result = {**predictions.facts, "decision": rule.describe(classes), **metrics, **bounded}
    if notes := metrics.get("notes", {}) | notes:
        result["notes"] = notes
    if judging.by:
        right = rule.task.compare(labels, predicted)
        result["slices"] = slice_metrics(predictions, right, rule, units, list(judging.by))
    return result


def _draw(out: Path, predictions: Predictions, result: dict[str, Any], rule: Rule) -> None:
    """Draw the figures of an evaluation, and add notes about missing ones to the result."""
    told: list[str] = []
    for name in FIGURES:  # an earlier evaluation's could be mistaken for this one's
        with contextlib.suppress(OSError):  # a file that cannot be removed fails below with a note
            (out / name).unlink()
    display_names, classes = predictions.display_names, predictions.classes
    lettering = try_extra("every figure", lambda: letter_classes(display_names, classes), told.append)
    if lettering is not None:
        told += [lettering.note] if lettering.note else []
        for name, figure in find_kind(rule.task).draw(predictions, result, lettering, rule).items():
            try_extra(name, partial(figure, out / name), told.append)
    if told:
        result["notes"] = result.get("notes", {}) | {"figures": "; ".join(told)}
