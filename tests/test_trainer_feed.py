"""The feed: batches whose content is the plan's whatever the workers, no substitute for a bad picture, no leak."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import xxhash
from torch import Tensor

from shards.dataset.dataset import open_dataset
from shards.dataset.index import INDEX_SCHEMA, build_table, encode_table
from shards.dataset.read import Sample
from shards.dataset.split import Split
from shards.errors import ShardError
from shards.files.fingerprint import hash_bytes
from shards.order.plan import Refs, concat_refs, sequential_refs
from shards.workers.openmp import count_cpus
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.feed.feed import BATCHES_AHEAD, Batch, Feed, count_ahead
from trainer.feed.meter import Meter
from trainer.feed.stream import TrainStream
from trainer.ranks.ranks import Ranks, single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.weights.resolve import resolve_recipe

SPEC = PreprocessSpec(size=32)
SHAPE = (3, 32, 32)
NUM_SAMPLES = 72

torch.set_num_threads(1)


def make_recipe(data: Path | str, *options: str) -> Recipe:
    fixed = [f"data={data}", "name=feed", "augment.crop=random", "augment.policy=strong", "batch_size_global=10"]
    return resolve_recipe(load_recipe("smoke", [*fixed, *options]))


def open_stream(recipe: Recipe) -> TrainStream:
    dataset = open_dataset(recipe.data, recipe.cache_options())
    return TrainStream(dataset.split("train"), recipe, SPEC, single_rank())


def hash_batches(batches: Iterator[Batch]) -> list[tuple[list[int], list[int]]]:
    """Sample ids and hashes of the pixels of each batch."""
    return [(batch.ids.tolist(), [hash_image(image) for image in batch.images]) for batch in batches]


def hash_image(image: Tensor) -> int:
    return xxhash.xxh3_64_intdigest(image.numpy().tobytes())


def load(sample: Sample, _copy: int, _meter: Meter) -> Tensor:
    return prepare(sample.data, SPEC)


def in_order(split: Split, size: int) -> list[Refs]:
    """All samples in stored order, in batches."""
    starts = range(0, split.num_samples, size)
    return [sequential_refs(split.counts, start, min(start + size, split.num_samples)) for start in starts]


@pytest.fixture(scope="module")
def inline(dataset_path: Path) -> list[tuple[list[int], list[int]]]:
    """An epoch without worker threads."""
    stream = open_stream(make_recipe(dataset_path, "workers=0"))
    try:
        return hash_batches(stream.iterate(1, 0))
    finally:
        stream.close()


POLICIES = {
    "strong": ["augment.policy=strong"],
    "trivialaugment": ["augment.policy=trivialaugment"],
    "photometric": ["augment.policy=photometric"],
    "manual": ["augment.policy=manual", "augment.crop=padded", "augment.erase=0.5"],
    "pipelines": [
        "augment.policy=none",
        "augment.backend=albumentations",
        "augment.pipeline=[{op: HueSaturationValue, when: before}, {op: OneOf, transforms: [{op: Blur}, {op: D4}]}]",
    ],
}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("policy", POLICIES)
def test_batches_are_the_same_for_every_number_of_workers(dataset_path: Path, workers: int, policy: str) -> None:
    """With operations of our own, torchvision's and albumentations', by name and written out, and before geometry."""
    epochs = []
    for number in (0, workers):
        stream = open_stream(make_recipe(dataset_path, f"workers={number}", *POLICIES[policy]))
        epochs.append(hash_batches(stream.iterate(1, 0)))
        stream.close()
    assert epochs[0] == epochs[1]


def test_an_epoch_holds_every_sample_once_and_another_epoch_other_pixels(
    inline: list[tuple[list[int], list[int]]], dataset_path: Path
) -> None:
    stream = open_stream(make_recipe(dataset_path))
    other = hash_batches(stream.iterate(2, 0))
    stream.close()
    for epoch in (inline, other):
        assert sorted(number for ids, _ in epoch for number in ids) == list(range(NUM_SAMPLES))
    assert not {pixels for _, hashes in inline for pixels in hashes} & {p for _, hashes in other for p in hashes}


def test_epoch_that_starts_in_its_middle_goes_on_as_the_whole_one(
    inline: list[tuple[list[int], list[int]]], dataset_path: Path
) -> None:
    stream = open_stream(make_recipe(dataset_path))
    try:
        for first in (1, 4, len(inline)):
            assert hash_batches(stream.iterate(1, first)) == inline[first:]
    finally:
        stream.close()


def test_start_in_the_middle_reads_nothing_of_what_comes_before(dataset_path: Path) -> None:
    """A resume costs the same wherever the run stands: only the shards of the coming steps are opened."""
    stream = open_stream(make_recipe(dataset_path, "workers=0"))
    last = stream.plan(0).num_steps - 1
    batches = list(stream.iterate(0, last))
    assert stream.read_meter().images == sum(map(len, batches)) == NUM_SAMPLES - last * 10
    stream.close()


def test_balanced_order_shows_classes_equally_often_and_copies_with_other_pixels(tmp_path: Path) -> None:
    from conftest import make_pictures

    from shards.packing.options import PackOptions
    from shards.packing.pack import pack
    from shards.sources.find import find_sources

    pictures = make_pictures(tmp_path / "in", {"train": 12, "val": 2, "test": 2})
    for path in sorted((pictures / "train/red").iterdir())[2:]:
        path.unlink()
    pack(find_sources(pictures), tmp_path / "out", PackOptions(shard_bytes=20_000))
    stream = open_stream(make_recipe(tmp_path / "out", "stream.order=balanced"))
    rows = [
        (label, number, hash_image(image))
        for batch in stream.iterate(0, 0)
        for label, number, image in zip(batch.labels.tolist(), batch.ids.tolist(), batch.images, strict=True)
    ]
    stream.close()
    assert len(rows) == stream.samples_per_epoch == 26
    shown = [sum(label == row[0] for row in rows) for label in range(3)]
    assert max(shown) - min(shown) <= 1
    reds = [(number, pixels) for label, number, pixels in rows if label == 2]
    assert len({number for number, _ in reds}) == 2
    assert len({pixels for _, pixels in reds}) == len(reds)


def test_fraction_trains_on_a_part_of_each_class(dataset_path: Path) -> None:
    stream = open_stream(make_recipe(dataset_path, "stream.fraction=0.25"))
    epochs = [np.concatenate([batch.ids for batch in stream.iterate(epoch, 0)]) for epoch in (0, 1)]
    labels = [label for batch in stream.iterate(0, 0) for label in batch.labels.tolist()]
    stream.close()
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert [labels.count(label) for label in range(3)] == [6, 6, 6]


# memory of batches


def test_held_batches_keep_their_pictures(dataset_path: Path) -> None:
    split = open_dataset(dataset_path).split("train")
    feed = Feed(split, 2, held=3)
    held: list[tuple[Batch, Tensor]] = []
    for batch in feed.iterate(in_order(split, 5), load, SHAPE):
        held = [*held[-2:], (batch, batch.images.clone())]
        assert all(torch.equal(kept.images, copy) for kept, copy in held)
    feed.close()


def test_memory_of_batches_is_used_in_turn(dataset_path: Path) -> None:
    split = open_dataset(dataset_path).split("train")
    feed = Feed(split, 2)
    places = [batch.images.data_ptr() for batch in feed.iterate(in_order(split, 4), load, SHAPE)]
    feed.close()
    assert len(places) == 18
    assert len(set(places)) <= BATCHES_AHEAD + 2


def test_batches_grow_and_shrink_and_may_be_empty(dataset_path: Path) -> None:
    split = open_dataset(dataset_path).split("train")
    sizes = [2, 0, 7, 1, 0, 30, 3]
    starts = np.cumsum([0, *sizes])
    batches = [sequential_refs(split.counts, int(a), int(b)) for a, b in itertools.pairwise(starts)]
    feed = Feed(split, 2, held=len(sizes))
    found = list(feed.iterate(batches, load, SHAPE))
    feed.close()
    assert [tuple(batch.images.shape) for batch in found] == [(size, *SHAPE) for size in sizes]
    assert [number for batch in found for number in batch.ids.tolist()] == list(range(sum(sizes)))


# whose CPUs


@pytest.mark.parametrize(("device", "ahead"), [("cpu", 0), ("cuda", BATCHES_AHEAD)])
def test_on_a_cpu_no_thread_makes_a_batch_while_the_step_computes(device: str, ahead: int, dataset_path: Path) -> None:
    split = open_dataset(dataset_path).split("train")
    loaded: list[int] = []

    def count(sample: Sample, copy: int, meter: Meter) -> Tensor:
        loaded.append(sample.sample_id)
        return load(sample, copy, meter)

    feed = Feed(split, 2, ahead=count_ahead(torch.device(device)))
    batches = feed.iterate(in_order(split, 4), count, SHAPE)
    next(batches)
    if ahead == 0:
        assert len(loaded) == 4  # nothing more was handed to the threads, however long the step takes
    else:
        deadline = time.monotonic() + 60
        while len(loaded) < 4 * (1 + ahead) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(loaded) == 4 * (1 + ahead)
    batches.close()
    feed.close()


@pytest.mark.parametrize(("device", "beside"), [("cpu", 0), ("cuda", 1)])
def test_threads_of_loader_and_torch_are_at_most_the_cpus(device: str, beside: int) -> None:
    ranks = Ranks(0, 2, torch.device(device), on_node=2)
    assert ranks.count_workers("auto") == max(1, count_cpus() // 2 - beside)
    assert ranks.count_workers(7) == 7  # what the user has set stays


# what goes wrong


def corrupt(folder: Path, row: int, indexed: bool = False) -> tuple[str, str, int]:
    """Overwrite a picture of train/000001.tar; return the tar, the key and the offset.

    indexed: its index knows of it, as that of shards whose maker never looked.
    """
    tar, path = folder / "train/000001.tar", folder / "train/000001.index.parquet"
    rows = pq.read_table(path).to_pylist()
    spoilt = b"no picture at all" + bytes(rows[row]["length"] - 17)
    with open(tar, "r+b") as file:
        file.seek(rows[row]["offset"])
        file.write(spoilt)
    if indexed:
        rows[row]["bytes_xxh3"] = hash_bytes(spoilt)
        path.write_bytes(encode_table(build_table(rows, INDEX_SCHEMA)))
    return str(tar), rows[row]["key"], rows[row]["offset"]


@pytest.mark.parametrize("workers", [0, 2])
def test_picture_that_changed_ends_the_epoch_with_shard_key_and_offset(
    dataset_path: Path, tmp_path: Path, workers: int
) -> None:
    shutil.copytree(dataset_path, tmp_path / "copy")
    tar, key, offset = corrupt(tmp_path / "copy", 2)
    stream = open_stream(make_recipe(tmp_path / "copy", f"workers={workers}"))
    with pytest.raises(ShardError) as caught:
        list(stream.iterate(0, 0))
    stream.close()
    assert str(caught.value).startswith(f"{tar} key {key} at offset {offset:,}: its ")
    assert str(caught.value).endswith(
        " bytes are not those that were packed; restore the shard from a backup or pack again"
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_picture_ends_the_epoch_with_shard_key_and_offset(
    dataset_path: Path, tmp_path: Path, workers: int
) -> None:
    shutil.copytree(dataset_path, tmp_path / "copy")
    tar, key, offset = corrupt(tmp_path / "copy", 2, indexed=True)
    stream = open_stream(make_recipe(tmp_path / "copy", f"workers={workers}"))
    with pytest.raises(ShardError) as caught:
        list(stream.iterate(0, 0))
    stream.close()
    assert str(caught.value).startswith(f"{tar} key {key} at offset {offset:,}: the picture cannot be decoded (")
    assert str(caught.value).endswith("Restore the shard from a backup or pack again")


def test_missing_shard_ends_the_epoch_with_its_name(dataset_path: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset_path, tmp_path / "copy")
    (tmp_path / "copy/train/000001.tar").unlink()
    stream = open_stream(make_recipe(tmp_path / "copy"))
    with pytest.raises(ShardError, match=r"train/000001\.tar cannot be opened \(No such file or directory\)"):
        list(stream.iterate(0, 0))
    stream.close()


def test_feed_that_is_left_in_the_middle_ends_its_threads(dataset_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    stream = open_stream(make_recipe(dataset_path, "workers=3"))
    next(stream.iterate(0, 0))
    stream.close()
    assert {thread.name for thread in threading.enumerate()} <= before


# no leak


def measure() -> tuple[int, int, int]:
    """Open files, threads, and resident memory in KiB."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return len(os.listdir("/proc/self/fd")), threading.active_count(), resident


@pytest.mark.slow
def test_50_epochs_hold_files_threads_and_memory_constant(dataset_path: Path) -> None:
    """3,600 pictures of 3 KiB: a picture kept of each would be 11 MiB, a batch of each epoch 1.5 MiB."""
    stream = open_stream(make_recipe(dataset_path, "workers=2"))
    for epoch in range(10):
        for _ in stream.iterate(epoch, 0):
            pass
    files, threads, resident = measure()
    for epoch in range(10, 60):
        for _ in stream.iterate(epoch, 0):
            pass
    assert measure()[:2] == (files, threads)
    assert measure()[2] - resident < 4 << 10
    stream.close()


def test_readings_count_every_picture_and_byte(dataset_path: Path) -> None:
    split = open_dataset(dataset_path).split("train")
    stream = open_stream(make_recipe(dataset_path))
    list(stream.iterate(0, 0))
    readings = stream.read_meter()
    stream.close()
    from shards.dataset.read import SampleReader

    with SampleReader(split) as reader:
        places = concat_refs(in_order(split, 100))
        rows = zip(places.shards.tolist(), places.rows.tolist(), strict=True)
        stored = [len(reader.read_one(*place).data) for place in rows]
    assert (readings.images, readings.bytes_read) == (NUM_SAMPLES, sum(stored))
    assert readings.seconds["decode"] > 0
    assert readings.bytes_downloaded == readings.cache_misses == readings.seconds["fetch"] == 0
