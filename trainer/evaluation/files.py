"""The files of an evaluation: metrics.json, predictions.parquet and .csv, confusion.png, curves.png."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from shards.files import write_atomically, write_json
from trainer.contract.bundle import BundlePage
from trainer.evaluation.answers import name_answers
from trainer.evaluation.figures import draw_confusion, draw_scores
from trainer.evaluation.metrics import compute_metrics
from trainer.evaluation.multi_label_figures import draw_confusions, draw_label_scores
from trainer.evaluation.rows import Rows


def write_evaluation(out: Path, rows: Rows, page: BundlePage, dataset: str, part: str) -> dict[str, Any]:
    """Write all files of an evaluation into `out` and return the metrics.

    A part named train is the one that the weights were fitted to; the result says so.
    """
    out.mkdir(parents=True, exist_ok=True)
    metrics = compute_metrics(rows.labels, rows.logits, page.classes)
    result = {"part": part, "bundle": page.fingerprint(), "dataset": dataset, **metrics}
    if part == "train" and dataset == page.dataset:
        result["warning"] = "these are the pictures that the weights were fitted to; the numbers flatter them"
    table = tabulate_predictions(rows, page.classes)
    with write_atomically(out / "predictions.parquet") as file:
        pq.write_table(table, file)
    with write_atomically(out / "predictions.csv") as file:
        pyarrow.csv.write_csv(table, file)
    if rows.is_multi_label:
        tables = np.array(list(metrics["confusion_per_class"].values()))
        draw_confusions(out / "confusion.png", tables, page.display_names)
        draw_label_scores(out / "curves.png", rows.labels, rows.logits, page.display_names)
    else:
        draw_confusion(out / "confusion.png", np.array(metrics["confusion"]), page.display_names)
        draw_scores(out / "curves.png", rows.labels, rows.probabilities, page.display_names)
    write_json(out / "metrics.json", result)
    return result


def tabulate_predictions(rows: Rows, classes: list[str]) -> pa.Table:
    """Return a row a sample: sample_id, path, label, prediction, and a logit and a probability for each class.

    Several labels of a picture are joined by `;`, as in the lists that are packed.
    """
    probabilities = rows.probabilities
    labels, predictions = name_answers(rows, classes)
    columns: dict[str, Any] = {
        "sample_id": rows.ids,
        "path": rows.sources,
        "label": labels,
        "prediction": predictions,
    }
    columns |= {f"logit_{name}": rows.logits[:, number] for number, name in enumerate(classes)}
    columns |= {f"probability_{name}": probabilities[:, number] for number, name in enumerate(classes)}
    return pa.table(columns)
