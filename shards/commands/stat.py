"""`python -m shards stat DATASET`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from shards.commands.arguments import STYLE
from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.manifest import Manifest
from shards.dataset.positive import describe_default


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("stat", help="what a dataset and its shards hold", formatter_class=STYLE)
    parser.add_argument("dataset", help="folder or URI of the dataset")
    parser.add_argument("--shards", action="store_true", help="a line for every shard")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


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
    print(f"{location}  {manifest.fingerprint()[:12]}  {manifest.task}, {found}")
    for name, split in manifest.splits.items():
        names = zip(manifest.display_names, split.class_counts, strict=True)
        classes = ", ".join(f"{label} {count:,}" for label, count in names)
        size = f"{split.samples:>9,} samples in {split.shards:,} shards, {split.bytes / 2**20:,.1f} MiB"
        print(f"  {name:5}  {size}: {classes or 'unlabelled'}")
    positive = _describe_positive(manifest)
    if positive:
        print(f"  positive class: {positive}")


def _describe_positive(manifest: Manifest) -> str | None:
    """Return which class is looked for; None where none is."""
    if manifest.positive or manifest.task != "single-label":
        return manifest.positive
    default = describe_default(manifest.classes)
    return default and f"{default} (`pack` and `index` take --positive CLASS)"


def summarise_mix(dataset: Dataset) -> dict[str, dict[str, list[float]]]:
    """Return for each split and class the smallest and the largest share that a shard of it has."""
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
            parts = ", ".join(f"{label} {low:.0%}..{high:.0%}" for label, (low, high) in classes.items())
            print(f"  {name:5}  share of a class in a shard: {parts}")


def _print_shards(dataset: Dataset) -> None:
    rows: list[dict[str, Any]] = dataset.table.to_pylist()
    for row in rows:
        mix = zip(dataset.classes, row["class_counts"], strict=True)
        print(
            f"  {row['name']}  {row['count']:>7,} samples, {row['bytes'] / 2**20:,.1f} MiB: "
            + ", ".join(f"{label} {count:,}" for label, count in mix)
        )
