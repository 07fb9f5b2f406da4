"""A bundle evaluated on one split of a dataset: rows, metrics and files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shards.cli.progress import Progress
from shards.dataset.dataset import Dataset, open_dataset
from shards.errors import UsageError
from trainer.contract.bundle import Bundle
from trainer.evaluate.files import Judging, write_evaluation
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
    """Rank 0 speaks for all."""


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
    """Evaluate a bundle on one split of a dataset, write the files, return rows and metrics; every rank calls it.

    A part named train is the one that the weights were fitted to; the result says so. Where `judging` names no positive
    class, the bundle's counts, else the dataset's. advance: as `evaluate_split`.

    Raises:
        UsageError: The dataset has other classes, or several labels a sample where the bundle gives one (or the other
            way round), or no such part.
    """
    if bundle.page.task != dataset.manifest.task:
        raise UsageError(
            f"the bundle is {bundle.page.task}, the dataset {dataset.manifest.task}; their labels do not compare, so "
            "nothing was evaluated; take a dataset of the bundle's kind"
        )
    if bundle.page.classes != dataset.classes:
        raise UsageError(
            f"the bundle knows the classes {', '.join(bundle.page.classes)}, the dataset has "
            f"{', '.join(dataset.classes)}; labels would not mean the same, so nothing was evaluated"
        )
    split = dataset.split(part)
    rows = evaluate_split(bundle.model, bundle.page.preprocess, split, ranks, workers, advance)
    if not ranks.is_first:
        return rows, {}
    predictions = gather_predictions(rows, split, bundle.page.classes, bundle.page.display_names)
    facts = {"part": part, "bundle": bundle.page.fingerprint(), "dataset": dataset.fingerprint()}
    if part == "train" and facts["dataset"] == bundle.page.dataset:
        facts["warning"] = "these are the pictures that the weights were fitted to; the numbers flatter them"
    stored = take_first(bundle=bundle.page.positive, dataset=dataset.manifest.positive)
    metrics = write_evaluation(
        out, replace(predictions, facts=facts | predictions.facts), (judging or Judging()).with_stored(stored)
    )
    return rows, metrics
