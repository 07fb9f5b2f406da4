"""predictions.parquet: a model's outputs for each sample, with facts about the sample."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from shards.errors import UsageError
from shards.files.atomic import write_atomically
from trainer.contract.task import Task, make_task
from trainer.evaluate.metrics.blocks import cut_rows
from trainer.evaluate.rows import Rows

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

INDEX_COLUMNS = {"group": "group", "width": "width", "height": "height", "mode": "mode", "length": "bytes"}
"""Columns copied from the index, and their names there."""
_FACTS = b"shardline"
_LOGIT, _PROBABILITY = "logit_", "probability_"


@dataclass(frozen=True)
class Predictions:
    """A model's outputs on one split of a dataset, in the order of sample ids.

    labels: in the task's form; logits: float32[N, K]; known: N rows with sample_id, path, and columns to slice by;
    facts: split, fingerprints of bundle and dataset, facts of the task, and a warning if any; they are copied to
    metrics.json.
    """

    classes: list[str]
    display_names: list[str]
    labels: Ints
    logits: npt.NDArray[np.float32]
    known: pa.Table
    facts: dict[str, Any]

    @property
    def task(self) -> Task:
        return _read_task(self.facts)

    @cached_property
    def probabilities(self) -> Floats:
        """float64[N, K]."""
        return self.task.compute_probabilities(self.logits)

    @property
    def groups(self) -> pa.Array | None:
        """The group of each sample, empty or null if it has none; None if no sample has one."""
        if "group" not in self.known.column_names:
            return None
        groups = self.known["group"].cast(pa.string()).combine_chunks()
        return groups if pc.any(pc.not_equal(groups, "")).as_py() else None

    @property
    def columns(self) -> list[str]:
        """Names of the columns to slice by."""
        return [name for name in self.known.column_names if name not in ("sample_id", "path")]

    def with_columns(self, more: pa.Table) -> Predictions:
        """Return a copy with columns of N rows added; columns of the same name are replaced."""
        known = self.known.drop_columns([name for name in more.column_names if name in self.known.column_names])
        for name in more.column_names:
            known = known.append_column(name, more[name])
        return replace(self, known=known)

    def tabulate(self, predicted: Ints) -> pa.Table:
        """Return one row per sample: its facts, label, prediction, and a logit and probability for each class."""
        table = self.known
        for column, numbers in (("label", self.labels), ("prediction", predicted)):
            table = table.append_column(column, pa.array(self.task.name_labels(numbers, self.classes), pa.string()))
        for prefix, values in ((_LOGIT, self.logits), (_PROBABILITY, self.probabilities)):
            for number, name in enumerate(self.classes):
                table = table.append_column(prefix + name, pa.array(values[:, number]))
        facts = {"classes": self.classes, "display_names": self.display_names, **self.facts}
        return table.replace_schema_metadata({_FACTS: json.dumps(facts, ensure_ascii=False)})


def gather_predictions(rows: Rows, split: Split, classes: list[str], display_names: list[str]) -> Predictions:
    """Return the rows of a whole split joined with its index.

    Raises:
        ShardError: The index is missing or damaged.
    """
    with SampleReader(split) as reader:
        index = reader.read_columns(["sample_id", *INDEX_COLUMNS])
    index = index.take(pc.sort_indices(index["sample_id"])).combine_chunks()
    assert np.array_equal(index["sample_id"].to_numpy(), rows.ids)
    known = pa.table({"sample_id": rows.ids, "path": pa.array(rows.sources, pa.string())})
    for name, shown in INDEX_COLUMNS.items():
        known = known.append_column(shown, index[name])
    return Predictions(classes, display_names, rows.labels, rows.logits, known, dict(rows.task.facts))


def read_predictions(path: Path) -> Predictions:
    """Read predictions.parquet; neither bundle nor dataset is needed.

    Raises:
        UsageError: The file does not exist, or was not written by an evaluation.
    """
    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[_FACTS])
        classes, display_names = facts.pop("classes"), facts.pop("display_names")
        labels = _read_task(facts).read_labels(table["label"].to_pylist(), classes)
        logits = np.stack([table[_LOGIT + name].to_numpy() for name in classes], axis=1).astype(np.float32)
        known = table.drop_columns(_list_answers(classes)).replace_schema_metadata(None)
    except FileNotFoundError as err:
        raise UsageError(f"{path} does not exist; an evaluation writes its rows to predictions.parquet") from err
    except (pa.ArrowException, OSError, KeyError, ValueError) as err:
        raise UsageError(
            f"{path} has no rows of an evaluation ({str(err).splitlines()[0]}); "
            "name the predictions.parquet that trainer.evaluate or a run wrote"
        ) from err
    return Predictions(classes, display_names, labels, logits, known, facts)


def _read_task(facts: dict[str, Any]) -> Task:
    return make_task(facts.get("task", "single-label"))


def _list_answers(classes: list[str]) -> list[str]:
    return ["label", "prediction", *(prefix + name for prefix in (_LOGIT, _PROBABILITY) for name in classes)]


def write_predictions(out: Path, predictions: Predictions, predicted: Ints) -> None:
    """Write predictions.parquet, predictions.csv, and predictions.txt, the tutorial's format.

    A line of predictions.txt has K probabilities, K digits that are 1 for the true classes, K digits that are 1 for the
    predicted classes, and the path, separated by spaces.
    """
    table = predictions.tabulate(predicted)
    with write_atomically(out / "predictions.parquet") as file:
        pq.write_table(table, file)
    with write_atomically(out / "predictions.csv") as file:
        pyarrow.csv.write_csv(table, file)
    with write_atomically(out / "predictions.txt") as file:
        for rows in cut_rows(len(table), len(predictions.classes)):
            file.write(_write_lines(table.slice(rows.start, rows.stop - rows.start), predictions, predicted, rows))


def _write_lines(table: pa.Table, predictions: Predictions, predicted: Ints, rows: slice) -> bytes:
    """Return the lines of predictions.txt for some rows, given as `table`."""
    digits = pa.array(["0", "1"])
    columns = [pc.cast(pc.round(table[_PROBABILITY + name], 6), pa.string()) for name in predictions.classes]
    for chosen in (predictions.labels[rows], predicted[rows]):
        flags = predictions.task.flag(chosen, len(predictions.classes))
        columns += [digits.take(pa.array(column.astype(np.int8))) for column in flags.T]
    paths = pc.replace_substring(table["path"], "\n", "\\n")
    lines = pa.chunked_array(pc.binary_join_element_wise(*columns, paths, " "))
    return "".join(f"{line}\n" for line in lines.to_pylist()).encode()
