"""Evaluate a bundle on one split of a dataset: rows, metrics and files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shards.cli.progress import Progress
from shards.dataset.dataset import Dataset, open_dataset
from trainer.contract.bundle import Bundle
from trainer.evaluate.files import Judging, write_evaluation
from trainer.evaluate.matching import match_dataset
from trainer.evaluate.positive import take_first
from trainer.evaluate.predictions import gather_predictions
from trainer.evaluate.rows import Rows, evaluate_split
from trainer.ranks.ranks import Ranks


def evaluate_on_rank(
    ranks: Ranks, bundle: Path, location: str, part: str, out: Path, workers: int, judging: Judging | None = None
) -> dict[str, Any]:
    """Evaluate on one rank of several; return the metrics."""
    loaded, dataset = Bundle.load(bundle, str(ranks.device)), open_dataset(location)
    with contextlib.closing(Progress(f"evaluating on {part}", dataset.split(part).num_samples)) as progress:
        advance = progress.show if ranks.is_first else _ignore
        return evaluate_bundle(loaded, dataset, part, ranks, workers, out, judging=judging, advance=advance)[1]


def _ignore(_done: int) -> None:
    """Only rank 0 reports progress."""


def evaluate_bundle(
    bundle: Bundle,
    dataset: Dataset,
    part: str,
    ranks: Ranks,
    workers: int,
    out: Path,
    judging: Judging | None = None,
    advance: Callable[[int], None] = lambda _done: None,
) -> tuple[Rows, dict[str, Any]]:
    """Evaluate a bundle on one split of a dataset, write the files, and return rows and metrics; every rank calls it.

    If the split is train, to which the weights were fitted, the result has a warning. If `judging` names no positive
    class, it is the bundle's, else the dataset's. advance: see `evaluate_split`.

    Raises:
        UsageError: Like `match_dataset`.
    """
    match = match_dataset(bundle.page, dataset, part)
    split = dataset.split(part)
    rows = match.renumber(evaluate_split(bundle.model, bundle.page.preprocess, split, ranks, workers, advance))
    if not ranks.is_first:
        return rows, {}
    predictions = gather_predictions(rows, split, bundle.page.classes, bundle.page.display_names)
    facts: dict[str, Any] = {"part": part, "bundle": bundle.page.fingerprint(), "dataset": dataset.fingerprint()}
    if part == "train" and facts["dataset"] == bundle.page.dataset:
        facts["warning"] = "the weights were fitted to these pictures, so the numbers are too good"
    if match.notes:
        facts["source_notes"] = match.notes
    stored = take_first(bundle=bundle.page.positive, dataset=match.find(dataset.manifest.positive))
    metrics = write_evaluation(
        out, replace(predictions, facts=facts | predictions.facts), (judging or Judging()).with_stored(stored)
    )
    return rows, metrics
