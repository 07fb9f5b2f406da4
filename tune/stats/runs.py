"""The runs of a variant: what each of them answered to the same pictures."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.errors import UsageError
from trainer.evaluate.metrics.resampling import find_units
from trainer.evaluate.predictions import Predictions, read_predictions

Ints = npt.NDArray[np.int64]
_LOOKED_AT = "evaluation/*/predictions.parquet"


@dataclass(frozen=True)
class Variant:
    """Runs that differ in their seeds alone; files: where each one's answers are."""

    name: str
    files: list[Path]
    runs: list[Predictions]


def read_variants(globs: Mapping[str, Sequence[str]]) -> list[Variant]:
    """Return each variant's runs by its file patterns, all of the same pictures in the same order.

    Args:
        globs: Name -> patterns of predictions.parquet files, or of run folders with one evaluation.

    Raises:
        UsageError: A pattern that finds nothing, a file that two variants have, files that no evaluation wrote, or runs
            that were evaluated on different pictures, labels or classes.
    """
    variants = []
    for name, patterns in globs.items():
        files = [file for pattern in patterns for file in _find_files(name, pattern)]
        variants.append(Variant(name, files, [read_predictions(file) for file in files]))
    _refuse_shared(variants)
    first = variants[0]
    for variant in variants:
        for file, run in zip(variant.files, variant.runs, strict=True):
            _refuse_other(first.files[0], first.runs[0], file, run)
    return variants


def find_groups(run: Predictions) -> Ints | None:
    """Return the group of each picture as a number; pictures without one are groups of their own. None: no groups."""
    return None if run.groups is None else find_units(len(run.labels), run.groups).of


def _find_files(name: str, pattern: str) -> list[Path]:
    files = []
    for place in sorted(map(Path, glob.glob(pattern, recursive=True))):
        found = sorted(place.glob(_LOOKED_AT)) if place.is_dir() else [place]
        if len(found) > 1:
            raise UsageError(
                f"{place} was evaluated on {len(found)} splits; name one, such as {found[0]}, in the pattern of {name}"
            )
        files += found
    if not files:
        raise UsageError(
            f"no run of {name} is found by {pattern}; name run folders or predictions.parquet files, such as "
            f"'runs/{name}-s*/evaluation/test/predictions.parquet'"
        )
    return files


def _refuse_shared(variants: Sequence[Variant]) -> None:
    """Refuse a file that stands twice: it would count as another seed, or be compared with itself."""
    owner: dict[Path, str] = {}
    for variant in variants:
        for file in variant.files:
            path = file.resolve()
            if path in owner:
                raise UsageError(f"{file} is named twice, by {owner[path]} and by {variant.name}; each run counts once")
            owner[path] = variant.name


def _refuse_other(first_file: Path, first: Predictions, file: Path, run: Predictions) -> None:
    """Refuse a run whose pictures, labels or classes are not those of the first one."""
    if run.task.name != "single-label":
        raise UsageError(f"{file} has several labels a picture, which are not compared yet; compare runs of one label")
    what = None
    if run.classes != first.classes:
        what = "classes"
    elif not np.array_equal(run.known["sample_id"], first.known["sample_id"]):
        what = "pictures"
    elif not np.array_equal(run.labels, first.labels):
        what = "labels"
    elif run.facts.get("dataset") != first.facts.get("dataset"):
        what = "dataset"
    if what is not None:
        raise UsageError(
            f"{file} was evaluated on other {what} than {first_file}, so their answers cannot be paired; evaluate both "
            "on one split with trainer.evaluate"
        )
