"""Metrics of slices of the samples: by group, size, site, or any other column."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import UsageError
from trainer.contract.metrics import Metric, find_right, list_metrics
from trainer.evaluate.metrics.metrics import compute_scalars
from trainer.evaluate.metrics.resampling import Units, bound_mean
from trainer.evaluate.metrics.rule import Rule
from trainer.evaluate.predictions import Predictions

Bools = npt.NDArray[np.bool_]

VALUES = 100
"""Maximum number of slices of a column: the values with most samples; all others form one slice."""
BINS = 4
"""Number of slices of a numeric column with more than DISTINCT values, of equal size as far as ties allow."""
DISTINCT = 8


def check_columns(by: list[str], known: list[str]) -> None:
    """Raise UsageError for a column that the samples do not have."""
    for name in by:
        if name not in known:
            raise UsageError(
                f"--by {name}: the samples have the columns {', '.join(known)}; give others with --columns FILE"
            )


def slice_metrics(
    predictions: Predictions, right: Bools, rule: Rule, units: Units, by: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return for each column of `by` one row per value: value, samples, accuracy with its interval, and scalars.

    With several labels, subset_accuracy replaces accuracy.

    A scalar that is undefined for a slice is absent from its row; so is the interval if all its samples are of one
    group.
    right: bool[N], whether each prediction is correct.
    """
    return {name: list(_judge_slices(predictions, right, rule, units, name)) for name in by}


def _judge_slices(
    predictions: Predictions, right: Bools, rule: Rule, units: Units, name: str
) -> Iterator[dict[str, Any]]:
    column = predictions.known[name]
    for value, chosen in _cut_numbers(column) if _is_numeric(column) else _cut_values(column):
        metrics = compute_scalars(predictions.labels[chosen], predictions.logits[chosen], predictions.classes, rule)
        first = find_right(metrics)
        row: dict[str, Any] = {"value": value, "samples": int(chosen.sum()), first.key: metrics[first.key]}
        names, of = np.unique(units.of[chosen], return_inverse=True)
        interval = bound_mean(right[chosen], Units(units.by, of, len(names)))
        if interval is not None:
            row["interval"] = interval
        yield row | {name: metrics[name] for name in _list_scalars(first) if name in metrics}


def _list_scalars(first: Metric) -> list[str]:
    """Return the metrics in a row after the share of correct predictions."""
    return [metric.key for metric in list_metrics(first.task, "slice")]


def _is_numeric(column: pa.ChunkedArray) -> bool:
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return numeric and len(pc.unique(column)) > DISTINCT


def _cut_values(column: pa.ChunkedArray) -> Iterator[tuple[str, Bools]]:
    """Yield each value as text with bool[N], whether a sample has it; the most frequent first."""
    texts = pc.fill_null(column.cast(pa.string()), "").combine_chunks()
    counts = pc.value_counts(texts)
    order = np.lexsort((counts.field("values").to_numpy(zero_copy_only=False), -counts.field("counts").to_numpy()))
    names = counts.field("values").take(pa.array(order))
    places = pc.index_in(texts, names).to_numpy()
    for number, name in enumerate(names[:VALUES].to_pylist()):
        yield name or "(none)", places == number
    if len(names) > VALUES:
        yield f"({len(names) - VALUES:,} others)", places >= VALUES


def _cut_numbers(column: pa.ChunkedArray) -> Iterator[tuple[str, Bools]]:
    """Yield ranges of numbers in ascending order with bool[N], whether a sample is in it; samples without one last."""
    values = column.cast(pa.float64()).to_numpy()
    known = ~np.isnan(values)
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, BINS + 1)))
    bins = np.searchsorted(edges[1:-1], values, side="right")
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        chosen = known & (bins == number)
        if chosen.any():
            yield f"{low:g} to {high:g}" if number == len(edges) - 2 else f"{low:g} to below {high:g}", chosen
    if not known.all():
        yield "(none)", ~known


def tabulate_slices(slices: dict[str, list[dict[str, Any]]], positive: str | None = None) -> pa.Table:
    """Return slices as a table: column, value, samples, accuracy, low, high, each scalar, and the positive class."""
    rows = []
    for column, values in slices.items():
        for row in values:
            low, high = row.get("interval", (None, None))
            rows.append({"column": column, **row, "low": low, "high": high})
    first = find_right(rows[0])
    names = ["column", "value", "samples", first.key, "low", "high", *_list_scalars(first)]
    types = [pa.string(), pa.string(), pa.int64(), *[pa.float64()] * (len(names) - 3)]
    table = pa.table(
        {name: pa.array([row.get(name) for row in rows], kind) for name, kind in zip(names, types, strict=True)}
    )
    return table if positive is None else table.append_column("positive", pa.array([positive] * len(rows)))
