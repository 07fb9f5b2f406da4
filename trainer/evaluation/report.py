"""report.html: one self-contained page about a run."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

import yaml

from shards.dataset import Dataset
from shards.files import write_text
from trainer.contract.bundle import read_versions
from trainer.evaluation.answers import describe_headline
from trainer.evaluation.figures import draw_training
from trainer.recipe import Recipe
from trainer.record.logbook import read_metrics

AUGMENTED = "augment.png"
"""A contact sheet of what training sees, in the run's folder."""

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #d0d7de}
table{border-collapse:collapse;display:block;overflow-x:auto}
td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #eaeef2}
td:first-child,th:first-child{text-align:left}img{max-width:100%}
pre{background:#f6f8fa;padding:.8rem;overflow-x:auto}.big{font-size:1.3rem}
@media print{body{margin:0}h2{break-after:avoid}}
"""


def write_report(recipe: Recipe, dataset: Dataset, notes: list[str]) -> Path:
    """Write curves.png and report.html into the run's folder and return the page's path."""
    rows = read_metrics(recipe.run_dir)
    draw_training(recipe.run_dir / "curves.png", rows)
    parts = [_head(recipe, rows), *(f"<p>{html.escape(note)}.</p>" for note in notes), _dataset(dataset)]
    parts += [_evaluation(path.parent) for path in sorted(recipe.run_dir.glob("evaluation/*/metrics.json"))]
    if (recipe.run_dir / AUGMENTED).is_file():
        parts.append(f"<h2>Pictures as training sees them</h2>{_picture(recipe.run_dir / AUGMENTED)}")
    parts += [
        f"<h2>Course of training</h2>{_picture(recipe.run_dir / 'curves.png')}",
        _epochs(rows),
        _reproduce(recipe),
    ]
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(recipe.name)}</title><style>{_STYLE}</style>{''.join(parts)}</html>"
    )
    write_text(recipe.run_dir / "report.html", page)
    return recipe.run_dir / "report.html"


def _head(recipe: Recipe, rows: list[dict[str, Any]]) -> str:
    return (
        f"<h1>{html.escape(recipe.name)}</h1><p>{html.escape(recipe.model)}, weights {html.escape(recipe.weights)}, "
        f"{len(rows)} of {recipe.epochs} epochs, {recipe.image_size} pixels; "
        f"best validation {recipe.stop.metric} {rows[-1]['val/best']:.4f}</p>"
    )


def _dataset(dataset: Dataset) -> str:
    header = ["part", "samples", *dataset.classes]
    body = [[name, split.samples, *split.class_counts] for name, split in dataset.manifest.splits.items()]
    note = f"<p>fingerprint {dataset.fingerprint()[:16]}, {dataset.manifest.quarantined} pictures in quarantine</p>"
    return f"<h2>Dataset</h2>{_table(header, body)}{note}"


def _evaluation(folder: Path) -> str:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    scalars = [[name, f"{value:.4f}"] for name, value in metrics.items() if isinstance(value, float)]
    columns = {"precision": "precision", "recall": "recall", "f1": "F1"}
    if "subset_accuracy" in metrics:
        columns |= {"average_precision": "average precision", "auroc": "AUROC"}
    per_class = [
        [name, *("" if row[key] is None else f"{row[key]:.4f}" for key in columns), row["support"]]
        for name, row in metrics["per_class"].items()
    ]
    warning = f"<p><strong>{html.escape(metrics['warning'])}</strong></p>" if "warning" in metrics else ""
    for name, classes in metrics.get("undefined", {}).items():
        warning += f"<p>{name} is not defined for {html.escape(', '.join(classes))}: its mean is without them.</p>"
    return (
        f"<h2>Evaluation on {html.escape(folder.name)}</h2>{warning}"
        f"<p class=big>{describe_headline(metrics)} on {metrics['samples']:,} pictures</p>"
        + _table(["metric", "value"], scalars)
        + _table(["class", *columns.values(), "support"], per_class)
        + _picture(folder / "confusion.png")
        + _picture(folder / "curves.png")
    )


def _epochs(rows: list[dict[str, Any]]) -> str:
    score = "val/map" if "val/map" in rows[0] else "val/accuracy"
    names = ["epoch", "train/loss", "val/log_loss", score, "train/lr", "feed/img_s", "feed/wait_frac"]
    return _table(names, [[f"{row[name]:.4g}" for name in names] for row in rows])


def _reproduce(recipe: Recipe) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in read_versions().items())
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    command = f"python -m trainer.run {recipe.run_dir}/recipe.yaml name=again"
    return (
        f"<h2>To reproduce</h2><pre>{html.escape(command)}</pre>"
        f"<p>recipe fingerprint {recipe.fingerprint()[:16]}; {versions}</p><pre>{html.escape(text)}</pre>"
    )


def _table(header: list[str], body: list[list[Any]]) -> str:
    def row(cells: list[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(header, 'th')}{''.join(row(cells, 'td') for cells in body)}</table>"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<p><img alt='{html.escape(path.stem)}' src='data:image/png;base64,{data}'></p>"
