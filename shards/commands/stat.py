"""`python -m shards stat DATASET`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from shards.cli.calling import CommandParser
from shards.cli.messages import add_volume
from shards.commands.arguments import STYLE
from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.manifest import Manifest
from shards.dataset.positive import describe_default
from shards.storage.shown import show_location

_LISTED, _NAMED = 50, 3
"""With at most _LISTED classes, each has its count printed; with more, only _NAMED at either end."""


def main(argv: list[str]) -> int:
    return run(build_parser().parse_args(argv))


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m shards stat", formatter_class=STYLE)
    parser.add_argument("dataset", help="folder or URI of the dataset")
    parser.add_argument("--shards", action="store_true", help="print a line for every shard")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_volume(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print a summary."""
    dataset = open_dataset(arguments.dataset)
    if arguments.json:
        shards = dataset.table.drop_columns(["index_sha256"]).to_pylist()
        page = {**dataset.manifest.model_dump(mode="json"), "fingerprint": dataset.fingerprint()}
        print(json.dumps({**page, "mix": summarise_mix(dataset), "shard_table": shards}))
        return 0
    print_dataset(arguments.dataset, dataset.manifest)
    _print_mix(dataset)
    if arguments.shards:
        _print_shards(dataset)
    return 0


def print_dataset(location: object, manifest: Manifest) -> None:
    """Print a line about the dataset and one for each split."""
    audited = manifest.audited
    found = "not audited"
    if audited.level == "full":
        found = f"audited: {audited.leaks} leaks, {audited.conflicts} conflicts, {audited.duplicates} duplicates"
    print(f"{show_location(location)}  {manifest.fingerprint()[:12]}  {manifest.task}, {found}")
    for name, split in manifest.splits.items():
        classes = _describe_counts(manifest.display_names, split.class_counts)
        size = f"{split.samples:>9,} samples in {split.shards:,} shards, {split.bytes / 2**20:,.1f} MiB"
        print(f"  {name:5}  {size}: {classes or 'unlabelled'}")
    if len(manifest.classes) > _LISTED:
        print("  (`stat --json` prints the count of each class)")
    positive = _describe_positive(manifest)
    if positive:
        print(f"  positive class: {positive}")


def _describe_counts(names: Sequence[str], counts: Sequence[int]) -> str:
    """Return the number of samples of each class; with many classes, the range, and the classes with fewest and most.

    >>> _describe_counts(["ant", "bee"], [3, 1])
    'ant 3, bee 1'
    >>> _describe_counts([f"c{number}" for number in range(2_000)], list(range(2_000)))
    '2,000 classes of 0 to 1,999, fewest c0 0, c1 1, c2 2, most c1999 1,999, c1998 1,998, c1997 1,997'
    """
    if len(names) <= _LISTED:
        return ", ".join(f"{label} {count:,}" for label, count in zip(names, counts, strict=True))
    order = sorted(range(len(names)), key=lambda number: counts[number])
    fewest, most = order[:_NAMED], order[: -_NAMED - 1 : -1]
    some = (", ".join(f"{names[number]} {counts[number]:,}" for number in numbers) for numbers in (fewest, most))
    return f"{len(names):,} classes of {min(counts):,} to {max(counts):,}, fewest {', most '.join(some)}"


def _describe_positive(manifest: Manifest) -> str | None:
    """Return the positive class, None if there is none."""
    if manifest.positive or manifest.task != "single-label":
        return manifest.positive
    default = describe_default(manifest.classes)
    return default and f"{default} (`pack` and `index` take --positive CLASS)"


def summarise_mix(dataset: Dataset) -> dict[str, dict[str, list[float]]]:
    """Return for each split and class its smallest and largest share in a shard."""
    mix: dict[str, dict[str, list[float]]] = {}
    for name in dataset.manifest.splits:
        counts = dataset.split(name).class_counts
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        ranges = zip(dataset.classes, shares.min(axis=0), shares.max(axis=0), strict=True)
        mix[name] = {label: [round(float(low), 4), round(float(high), 4)] for label, low, high in ranges}
    return mix


def _print_mix(dataset: Dataset) -> None:
    for name, classes in summarise_mix(dataset).items():
        if classes:
            print(f"  {name:5}  share of a class in a shard: {_describe_ranges(classes)}")


def _describe_ranges(classes: dict[str, list[float]]) -> str:
    shown = list(classes)
    if len(classes) > _LISTED:
        shown = sorted(classes, key=lambda label: classes[label][0] - classes[label][1])[:_NAMED]
    parts = ", ".join(f"{label} {classes[label][0]:.0%}..{classes[label][1]:.0%}" for label in shown)
    return parts if len(shown) == len(classes) else f"largest differences: {parts}"


def _print_shards(dataset: Dataset) -> None:
    rows: list[dict[str, Any]] = dataset.table.to_pylist()
    for row in rows:
        size = f"{row['count']:>7,} samples, {row['bytes'] / 2**20:,.1f} MiB"
        print(f"  {row['name']}  {size}: {_describe_counts(dataset.classes, row['class_counts'])}")
