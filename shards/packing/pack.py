"""Pictures to a dataset: check every picture, permute, cut into shards, publish."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from shards.audit.check import Progress, Rejected, check_sources, refuse_rejects, refuse_unknown_range
from shards.decode import DecodeOptions
from shards.errors import UsageError
from shards.files import TEMPORARY, write_json, write_text
from shards.fingerprint import fingerprint_file, fingerprint_json
from shards.index import SHARD_SCHEMA, write_table
from shards.manifest import MANIFEST_NAME, TABLE_NAME, Manifest, Packing, SplitSummary, read_manifest
from shards.packing.cut import ShardPlan, plan_shards, refuse_lost_classes
from shards.packing.write import write_shards
from shards.sources.folder import SPLITS, SourceList

MARKER = ".packing.json"
QUARANTINE = "quarantine.csv"


class PackOptions(BaseModel):
    """What a user can choose about packing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0)
    """Seed of the split and of the permutation."""
    shard_bytes: int = Field(default=64 << 20, gt=0)
    """Picture bytes after which a shard is closed."""
    shares: dict[str, float] = {"val": 0.1, "test": 0.1}
    """Shares of the classes that go to val and test, where the folder has no splits of its own."""
    max_reject_rate: float = Field(default=0.01, ge=0, le=1)
    """Share of unreadable pictures above which nothing is packed."""
    workers: int = Field(default=2, ge=1)
    """Threads that decode; they do not change the result."""
    decode: DecodeOptions = DecodeOptions()


def pack(listed: SourceList, out: Path, options: PackOptions, progress: Progress = lambda *_: None) -> Manifest:
    """Write a dataset into `out` and return its manifest.

    The same pictures and options give byte-identical shards. A run that was stopped goes on from its finished
    shards; `dataset.json` appears last. Unreadable pictures go to `quarantine.csv` and nowhere else.

    Raises:
        UsageError: `out` holds something else.
        ShardError: Too many unreadable pictures, deep gray of unknown range, or a file that changed meanwhile.
    """
    _refuse_foreign(out)  # before the pictures are decoded, which may take hours
    checked, rejected = check_sources(listed.sources, options.decode, options.workers, progress)
    refuse_rejects(rejected, len(listed.sources), options.max_reject_rate)
    refuse_unknown_range(checked, options.decode)
    plan = plan_shards(checked, shares=options.shares, seed=options.seed, shard_bytes=options.shard_bytes)
    refuse_lost_classes(plan, listed.classes)
    identity = _identify(plan, listed.classes, options)
    if (out / MANIFEST_NAME).exists():
        return _same_or_refuse(out, identity)
    _claim(out, identity)
    rows = list(write_shards(plan, listed.classes, out, identity, progress))
    return _publish(out, rows, listed.classes, options, identity, rejected)


def _identify(plan: list[ShardPlan], classes: list[str], options: PackOptions) -> str:
    samples = [
        [shard.name, item.source.name, item.source.label, item.source.weight, item.bytes_xxh3]
        for shard in plan
        for item in shard.samples
    ]
    shape = options.model_dump(mode="json", include={"seed", "shard_bytes", "decode"})
    return fingerprint_json([shape, classes, samples])


def _same_or_refuse(out: Path, identity: str) -> Manifest:
    manifest = read_manifest(out)
    if manifest.packing.plan != identity:
        raise UsageError(
            f"{out} already holds a dataset of other pictures or options; name another folder, or delete it first"
        )
    (out / MARKER).unlink(missing_ok=True)  # of a run that was killed just after it had published
    return manifest


def _refuse_foreign(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the dataset")
    names = {path.name for path in out.iterdir()}
    ours = not names.isdisjoint({MANIFEST_NAME, MARKER})
    if not ours and not all(name.startswith(MARKER) for name in names):  # killed before its marker had its name
        raise UsageError(f"{out} is not empty and not an unfinished dataset; name another folder")


def _claim(out: Path, identity: str) -> None:
    """Make `out` ours, keeping shards of the same plan and removing those of another unfinished one."""
    out.mkdir(parents=True, exist_ok=True)
    for leftover in out.rglob(f"*{TEMPORARY}-*"):  # a killed run could not remove its temporary files
        leftover.unlink()
    marker = out / MARKER
    if marker.exists() and identity not in marker.read_text(encoding="utf-8"):
        for split in SPLITS:
            shutil.rmtree(out / split, ignore_errors=True)
    write_json(marker, {"plan": identity})


def _publish(
    out: Path,
    rows: list[dict[str, Any]],
    classes: list[str],
    options: PackOptions,
    identity: str,
    rejected: list[Rejected],
) -> Manifest:
    write_table(out / TABLE_NAME, rows, SHARD_SCHEMA)
    _write_quarantine(out / QUARANTINE, rejected)
    manifest = Manifest(
        classes=classes,
        display_names=classes,
        splits={split: _summarise(split, rows) for split in SPLITS if any(row["split"] == split for row in rows)},
        packing=Packing(seed=options.seed, shard_bytes=options.shard_bytes, decode=options.decode, plan=identity),
        table_sha256=fingerprint_file(out / TABLE_NAME),
        quarantined=len(rejected),
    )
    manifest.write(out)
    (out / MARKER).unlink()
    return manifest


def _summarise(split: str, rows: list[dict[str, Any]]) -> SplitSummary:
    mine = [row for row in rows if row["split"] == split]
    return SplitSummary(
        samples=sum(row["count"] for row in mine),
        shards=len(mine),
        bytes=sum(row["bytes"] for row in mine),
        class_counts=np.sum([row["class_counts"] for row in mine], axis=0).tolist(),
    )


def _write_quarantine(path: Path, rejected: list[Rejected]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("path", "reason"), *((item.name, item.reason) for item in rejected)])
    write_text(path, text.getvalue())
