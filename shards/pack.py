"""Pictures to a dataset: check every picture, permute, cut into shards, publish."""

from __future__ import annotations

import csv
import io
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from shards.decode import DecodeOptions, Picture, inspect
from shards.errors import DecodeError, ShardError, UsageError
from shards.files import TEMPORARY, write_atomically, write_json, write_text
from shards.fingerprint import fingerprint_file, fingerprint_json
from shards.index import INDEX_SCHEMA, SHARD_SCHEMA, read_facts, write_table
from shards.manifest import MANIFEST_NAME, TABLE_NAME, Manifest, Packing, SplitSummary, read_manifest
from shards.sources import SPLITS, Source, SourceList
from shards.splits import split_stratified
from shards.tar import Member, TarWriter

MARKER = ".packing.json"
QUARANTINE = "quarantine.csv"
ENDING_OF_FORMAT = {"jpeg": "jpg", "tiff": "tif", "jpeg2000": "jp2", "ppm": "ppm", "mpo": "jpg"}

Progress = Callable[[str, int, int, int], None]
"""Called as progress(stage, pictures done, pictures in all, bytes of this picture)."""


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


@dataclass(frozen=True)
class Checked:
    """A source whose picture decoded, with the digest of its bytes."""

    source: Source
    picture: Picture
    length: int
    bytes_xxh3: str


@dataclass(frozen=True)
class Rejected:
    """A source whose picture did not decode, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be written: its samples in order; ids run on from first_id."""

    split: str
    name: str
    first_id: int
    samples: list[Checked]


def pack(listed: SourceList, out: Path, options: PackOptions, progress: Progress = lambda *_: None) -> Manifest:
    """Write a dataset into `out` and return its manifest.

    The same pictures and options give byte-identical shards. A run that was stopped goes on from its finished
    shards; `dataset.json` appears last. Unreadable pictures go to `quarantine.csv` and nowhere else.

    Raises:
        UsageError: `out` holds something else.
        ShardError: Too many unreadable pictures, deep gray of unknown range, or a file that changed meanwhile.
    """
    _refuse_foreign(out)  # before the pictures are decoded, which may take hours
    checked, rejected = check_sources(listed.sources, options, progress)
    _refuse_rejects(rejected, len(listed.sources), options)
    _refuse_unknown_range(checked, options)
    plan = plan_shards(checked, options)
    _refuse_lost_classes(plan, listed.classes)
    identity = _identify(plan, listed.classes, options)
    if (out / MANIFEST_NAME).exists():
        return _same_or_refuse(out, identity)
    _claim(out, identity)
    rows = list(_write_shards(plan, listed.classes, out, identity, progress))
    return _publish(out, rows, listed.classes, options, identity, rejected)


def check_sources(
    sources: Sequence[Source], options: PackOptions, progress: Progress
) -> tuple[list[Checked], list[Rejected]]:
    """Decode every picture once; return those that decode, and those that do not, in the given order."""

    def check(source: Source) -> Checked | Rejected:
        data = source.path.read_bytes()
        try:
            picture = inspect(data, options.decode)
        except DecodeError as err:
            return Rejected(source.name, str(err))
        return Checked(source, picture, len(data), xxhash.xxh3_128_hexdigest(data))

    checked: list[Checked] = []
    rejected: list[Rejected] = []
    pool = ThreadPoolExecutor(options.workers)
    try:
        for done, result in enumerate(pool.map(check, sources), start=1):
            if isinstance(result, Checked):
                checked.append(result)
            else:
                rejected.append(result)
            progress("check", done, len(sources), result.length if isinstance(result, Checked) else 0)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for a million queued pictures
    return checked, rejected


def plan_shards(checked: list[Checked], options: PackOptions) -> list[ShardPlan]:
    """Return the shards of every split: a seeded permutation, cut where the bytes are full."""
    splits = [item.source.split for item in checked]
    if None in splits:
        labels = [item.source.label for item in checked]
        members = zip(split_stratified(labels, options.shares, options.seed), checked, strict=True)
    else:
        members = zip([split or "" for split in splits], checked, strict=True)
    by_split: defaultdict[str, list[Checked]] = defaultdict(list)
    for split, item in members:
        by_split[split].append(item)
    plan: list[ShardPlan] = []
    next_id = 0
    for number, split in enumerate(SPLITS):
        items = by_split[split]
        order = np.random.default_rng((options.seed, number)).permutation(len(items))
        for position, samples in enumerate(_cut([items[i] for i in order], options.shard_bytes)):
            plan.append(ShardPlan(split, f"{split}/{position:06d}.tar", next_id, samples))
            next_id += len(samples)
    return plan


def _cut(items: Iterable[Checked], shard_bytes: int) -> Iterable[list[Checked]]:
    samples: list[Checked] = []
    size = 0
    for item in items:
        if samples and size + item.length > shard_bytes:
            yield samples
            samples, size = [], 0
        samples.append(item)
        size += item.length
    if samples:
        yield samples


def _refuse_rejects(rejected: list[Rejected], total: int, options: PackOptions) -> None:
    if len(rejected) > options.max_reject_rate * total:
        first = rejected[0]
        raise ShardError(
            f"{len(rejected):,} of {total:,} pictures cannot be read, over the limit of {options.max_reject_rate:.1%}; "
            f"the first is {first.name}: {first.reason}. Repair or remove them, or raise --max-reject-rate"
        )


def _refuse_unknown_range(checked: list[Checked], options: PackOptions) -> None:
    """A 12-bit X-ray in a 16-bit file would come out black: ask instead of guessing."""
    peak = max((item.picture.peak for item in checked), default=0.0)
    if options.decode.gray_range is None and 0 < peak < 32768:
        bits = max(1, int(peak).bit_length())
        raise ShardError(
            f"the deep gray pictures use values up to {peak:g} of 65535, so they would come out dark; "
            f"say which values are black and white, for example --range 0,{2**bits - 1} for {bits} bits"
        )


def _refuse_lost_classes(plan: list[ShardPlan], classes: list[str]) -> None:
    """The unreadable pictures may be all that a class had in train."""
    left = {item.source.label for shard in plan if shard.split == "train" for item in shard.samples}
    lost = [name for name in classes if name not in left]
    if lost:
        raise ShardError(
            f"class '{lost[0]}' has no readable picture in train, so it cannot be learnt; "
            "repair its pictures or remove its folder"
        )


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


def _write_shards(
    plan: list[ShardPlan], classes: list[str], out: Path, identity: str, progress: Progress
) -> Iterable[dict[str, Any]]:
    """Yield the shard table's rows, writing each shard that is not there yet."""
    total = sum(len(shard.samples) for shard in plan)
    done = 0
    for shard in plan:
        path = out / shard.name
        index_path = path.with_suffix(".index.parquet")
        if not _is_finished(path, index_path, identity):
            path.parent.mkdir(exist_ok=True)
            _write_shard(shard, classes, path, index_path, identity)
        facts = read_facts(index_path)
        labels = [classes.index(item.source.label) for item in shard.samples]
        yield {
            "split": shard.split,
            "name": shard.name,
            "bytes": int(facts["bytes"]),
            "count": len(shard.samples),
            "first_id": shard.first_id,
            "class_counts": np.bincount(labels, minlength=len(classes)).tolist(),
            "sha256": facts["sha256"],
            "index_sha256": fingerprint_file(index_path),
        }
        done += len(shard.samples)
        progress("write", done, total, sum(item.length for item in shard.samples))


def _is_finished(path: Path, index_path: Path, identity: str) -> bool:
    """The index is written after its tar, so an index of this plan beside a tar of its size is a finished shard."""
    if not (path.is_file() and index_path.is_file()):
        return False
    try:
        facts = read_facts(index_path)
    except ShardError:
        return False
    return facts.get("plan") == identity and facts.get("bytes") == str(path.stat().st_size)


def _write_shard(shard: ShardPlan, classes: list[str], path: Path, index_path: Path, identity: str) -> None:
    rows: list[dict[str, Any]] = []
    with write_atomically(path) as file:
        writer = TarWriter(file)
        for sample_id, item in enumerate(shard.samples, start=shard.first_id):
            rows.append(_add_sample(writer, sample_id, item, classes))
        sha256 = writer.finish()
    write_table(index_path, rows, INDEX_SCHEMA, {"plan": identity, "bytes": str(writer.size), "sha256": sha256})


def _add_sample(writer: TarWriter, sample_id: int, item: Checked, classes: list[str]) -> dict[str, Any]:
    """Write one sample and return its index row."""
    source, picture = item.source, item.picture
    data = source.path.read_bytes()
    if xxhash.xxh3_128_hexdigest(data) != item.bytes_xxh3:
        raise ShardError(
            f"{source.path} changed while it was packed; nothing of it was published. Run the command again"
        )
    key, label = f"{sample_id:09d}", classes.index(source.label)
    ending = ENDING_OF_FORMAT.get(picture.format, picture.format)
    facts: dict[str, object] = {"label": source.label, "source": source.name, "weight": source.weight}
    offset = writer.add(Member(key, data, ending, label, facts))
    return {
        "sample_id": sample_id,
        "key": key,
        "offset": offset,
        "length": len(data),
        "label": label,
        "weight": source.weight,
        "group": "",
        "width": picture.width,
        "height": picture.height,
        "mode": picture.mode,
        "pixels_xxh3": picture.pixels_xxh3,
        "source": source.name,
    }


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
