"""The sources of a report: a finished run's folder, dataset, bundle and environment."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from shards.dataset.dataset import Dataset
from shards.files.atomic import write_json
from shards.workers.openmp import count_cpus, describe_waiting
from trainer.contract.bundle import Bundle, BundlePage, read_versions
from trainer.contract.compute.choice import read_cpu
from trainer.evaluate.files import METRICS
from trainer.evaluate.predictions import Predictions, read_predictions
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import Recipe, ResolvedRecipe
from trainer.record.code import read_git_sha
from trainer.record.logbook import read_metrics
from trainer.record.notes import Note, read_notes

ENVIRONMENT = "environment.json"
"""File in the run folder with the environment at the end of the run."""
LATENCY = "latency"
"""Key in that file for the model's latency."""
PARTS = ("test", "val", "train")
"""Splits in the order of the report."""


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one split: its folder, and the content of metrics.json."""

    part: str
    folder: Path
    metrics: dict[str, Any]

    @cached_property
    def predictions(self) -> Predictions:
        return read_predictions(self.folder / "predictions.parquet")


@dataclass(frozen=True)
class Finished:
    """A run with bundle and evaluations; recipe: resolved; notes: notes for the user."""

    folder: Path
    recipe: ResolvedRecipe
    dataset: Dataset
    bundle: Bundle
    notes: list[str]
    environment: dict[str, str]
    parts: list[str] = field(default_factory=lambda: list(PARTS))
    """Splits to report, if they were evaluated."""

    @property
    def page(self) -> BundlePage:
        return self.bundle.page

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl, one per epoch."""
        return read_metrics(self.folder)

    @cached_property
    def logged(self) -> list[Note]:
        """Log messages of the run besides `notes`; [] for runs of earlier versions."""
        return [note for note in read_notes(self.folder) if note.text not in self.notes]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        found = []
        for part in PARTS:
            path = self.folder / "evaluation" / part / METRICS
            if part in self.parts and path.is_file():
                found.append(Evaluation(part, path.parent, json.loads(path.read_text(encoding="utf-8"))))
        return found

    @cached_property
    def display_names(self) -> dict[str, str]:
        """Display names by class name."""
        return dict(zip(self.page.classes, self.page.display_names, strict=True))


def record_environment(recipe: Recipe, run_dir: Path, ranks: Ranks, latency: str | None) -> dict[str, str]:
    """Write environment.json to the run folder and return its content; latency None: unknown."""
    told = describe_environment(recipe, ranks) | ({LATENCY: latency} if latency else {})
    write_json(run_dir / ENVIRONMENT, told)
    return told


def read_environment(folder: Path) -> dict[str, str]:
    """Return the content of environment.json; {} for runs of earlier versions without it."""
    path = folder / ENVIRONMENT
    told: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return told


def describe_environment(recipe: Recipe, ranks: Ranks) -> dict[str, str]:
    """Return the environment of a run in words: processors, ranks, precision, versions, commit."""
    device = "CPU"
    if ranks.device.type == "cuda":
        device = f"{torch.cuda.get_device_name(ranks.device)}, CUDA {torch.version.cuda}"
    told = {
        "ranks": f"{ranks.num_ranks}, {ranks.on_node} of them on this machine",
        "device of a rank": device,
        "processor": f"{read_cpu()}, {count_cpus()} CPUs for this process",
        "threads": f"{torch.get_num_threads()} of torch ({describe_waiting()}), "
        f"{ranks.count_workers(recipe.workers)} of the loader",
        "precision": f"weights {recipe.dtype}, amp {recipe.amp}",
        "system": f"{platform.system()} {platform.release()}, Python {sys.version.split()[0]}",
        "libraries": ", ".join(f"{name} {version}" for name, version in _list_versions().items()),
    }
    commit = read_git_sha()
    return told | ({"code": f"commit {commit}"} if commit else {})


def _list_versions() -> dict[str, str]:
    versions = read_versions()
    for name in ("ray", "shardline"):  # code sent to a cluster is not installed there
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
