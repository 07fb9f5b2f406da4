"""predictions.parquet: what a model said of each sample, beside what is known of the sample."""

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

from shards.dataset.dataset import Split
from shards.dataset.read import SampleReader
from shards.errors import UsageError
from shards.files.atomic import write_atomically
from trainer.contract.task import Task, make_task
from trainer.evaluate.metrics.blocks import cut_rows
from trainer.evaluate.rows import Rows

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

INDEX_COLUMNS = {"group": "group", "width": "width", "height": "height", "mode": "mode", "length": "bytes"}
"""Columns of the index that go with each sample, and what they are called there."""
_FACTS = b"shardline"
_LOGIT, _PROBABILITY = "logit_", "probability_"


@dataclass(frozen=True)
class Predictions:
    """A model's answers on one part of a dataset, in the order of sample ids.

    labels: as of the task; logits: float32[N, K]; known: N rows, sample_id, path, and columns to slice by; facts: part,
    fingerprints of bundle and dataset, what the task adds, and a warning where there is one; they go into metrics.json.
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
        """The group of each sample, empty or null where it has none; None where no sample has one."""
        if "group" not in self.known.column_names:
            return None
        groups = self.known["group"].cast(pa.string()).combine_chunks()
        return groups if pc.any(pc.not_equal(groups, "")).as_py() else None

    @property
    def columns(self) -> list[str]:
        """Names of what the samples can be sliced by."""
        return [name for name in self.known.column_names if name not in ("sample_id", "path")]

    def with_columns(self, more: pa.Table) -> Predictions:
        """Return these with columns of N rows added; one of the same name is replaced."""
        known = self.known.drop_columns([name for name in more.column_names if name in self.known.column_names])
        for name in more.column_names:
            known = known.append_column(name, more[name])
        return replace(self, known=known)

    def tabulate(self, predicted: Ints) -> pa.Table:
        """Return a row a sample: what is known of it, label, prediction, a logit and a probability for each class."""
        table = self.known
        for column, numbers in (("label", self.labels), ("prediction", predicted)):
            table = table.append_column(column, pa.array(self.task.name_labels(numbers, self.classes), pa.string()))
        for prefix, values in ((_LOGIT, self.logits), (_PROBABILITY, self.probabilities)):
            for number, name in enumerate(self.classes):
                table = table.append_column(prefix + name, pa.array(values[:, number]))
        facts = {"classes": self.classes, "display_names": self.display_names, **self.facts}
        return table.replace_schema_metadata({_FACTS: json.dumps(facts, ensure_ascii=False)})


def gather_predictions(rows: Rows, split: Split, classes: list[str], display_names: list[str]) -> Predictions:
    """Return rows of a whole split with what its index knows of each sample.

    Raises:
        ShardError: An index that is missing or damaged.
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
    """Return what predictions.parquet holds; no bundle and no dataset is needed.

    Raises:
        UsageError: No such file, or one that no evaluation wrote.
    """
    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[_FACTS])
        classes, display_names = facts.pop("classes"), facts.pop("display_names")
        labels = _read_task(facts).read_labels(table["label"].to_pylist(), classes)
        logits = np.stack([table[_LOGIT + name].to_numpy() for name in classes], axis=1).astype(np.float32)
        known = table.drop_columns(_list_answers(classes)).replace_schema_metadata(None)
    except FileNotFoundError as err:
        raise UsageError(f"{path} does not exist; an evaluation leaves its rows in predictions.parquet") from err
    except (pa.ArrowException, OSError, KeyError, ValueError) as err:
        raise UsageError(
            f"{path} holds no rows of an evaluation ({str(err).splitlines()[0]}); "
            "name the predictions.parquet that trainer.evaluate or a run wrote"
        ) from err
    return Predictions(classes, display_names, labels, logits, known, facts)


def _read_task(facts: dict[str, Any]) -> Task:
    return make_task(facts.get("task", "single-label"))


def _list_answers(classes: list[str]) -> list[str]:
    return ["label", "prediction", *(prefix + name for prefix in (_LOGIT, _PROBABILITY) for name in classes)]


def write_predictions(out: Path, predictions: Predictions, predicted: Ints) -> None:
    """Write predictions.parquet, predictions.csv, and predictions.txt, the tutorial's form of them.

    A line of predictions.txt: K probabilities, K digits of which those of the true classes are 1, K of which those of
    the predicted ones are, and the path, with spaces between.
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
    """Return the lines of some rows of predictions.txt, which are `table`."""
    digits = pa.array(["0", "1"])
    columns = [pc.cast(pc.round(table[_PROBABILITY + name], 6), pa.string()) for name in predictions.classes]
    for chosen in (predictions.labels[rows], predicted[rows]):
        flags = predictions.task.flag(chosen, len(predictions.classes))
        columns += [digits.take(pa.array(column.astype(np.int8))) for column in flags.T]
    paths = pc.replace_substring(table["path"], "\n", "\\n")
    lines = pa.chunked_array(pc.binary_join_element_wise(*columns, paths, " "))
    return "".join(f"{line}\n" for line in lines.to_pylist()).encode()
