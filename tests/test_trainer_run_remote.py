"""Training from a real object store: the batches of a local dataset, whatever breaks on the way, or one sentence."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import xxhash
from fault_proxy import PASS, Fault, FaultProxy
from in_process import command
from object_stores import SeaweedFS

from shards.dataset.dataset import open_dataset
from shards.errors import ShardError, UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from shards.storage.storage import open_storage
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed.feed import Batch
from trainer.feed.stream import TrainStream
from trainer.ranks.ranks import Ranks, single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.weights.resolve import resolve_recipe

ROOT = Path(__file__).parent.parent
SPEC = PreprocessSpec(size=32)
OPTIONS = PackOptions(shard_bytes=20_000)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def local(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset on this machine: some 17 shards in train."""
    pack(find_sources(pictures), tmp_path_factory.mktemp("local") / "set", OPTIONS)
    return tmp_path_factory.getbasetemp() / "local0" / "set"


@pytest.fixture(scope="module")
def store(seaweedfs: SeaweedFS, pictures: Path) -> SeaweedFS:
    """The same dataset below `set` in a real store."""
    pack(find_sources(pictures), seaweedfs.s3.format(path="set"), OPTIONS)
    return seaweedfs


def make_recipe(data: Path | str, cache: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", "name=remote", f"storage.cache={cache}", "augment.crop=random", "augment.policy=flip"]
    return resolve_recipe(load_recipe("smoke", [*fixed, "batch_size_global=9", "storage.deadline_s=60", *options]))


def open_stream(recipe: Recipe, ranks: Ranks | None = None) -> TrainStream:
    ranks = ranks or single_rank()
    dataset = open_dataset(recipe.data, recipe.cache_options(ranks.on_node))
    return TrainStream(dataset.split("train"), recipe, SPEC, ranks)


def hash_batches(batches: Iterator[Batch]) -> list[tuple[list[int], list[int]]]:
    return [
        (batch.ids.tolist(), [xxhash.xxh3_64_intdigest(image.numpy().tobytes()) for image in batch.images])
        for batch in batches
    ]


def read_epoch(recipe: Recipe, epoch: int = 0) -> list[tuple[list[int], list[int]]]:
    stream = open_stream(recipe)
    try:
        return hash_batches(stream.iterate(epoch, 0))
    finally:
        stream.close()


@pytest.fixture(scope="module")
def expected(local: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[int], list[int]]]:
    """The first epoch of the local dataset."""
    return read_epoch(make_recipe(local, tmp_path_factory.mktemp("unused")))


def total_bytes(local: Path) -> int:
    return sum(path.stat().st_size for path in (local / "train").iterdir())


def measure(folder: Path) -> int:
    """Bytes of what is in a cache now; files come and go meanwhile."""
    sizes = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_epoch_from_a_store_is_that_of_the_local_dataset(
    store: SeaweedFS, expected: list[tuple[list[int], list[int]]], tmp_path: Path, scheme: str
) -> None:
    assert read_epoch(make_recipe(getattr(store, scheme).format(path="set"), tmp_path)) == expected


def test_epoch_from_google_storage_is_that_of_the_local_dataset(
    gcs: str, pictures: Path, expected: list[tuple[list[int], list[int]]], tmp_path: Path
) -> None:
    pack(find_sources(pictures), gcs.format(path="set"), OPTIONS)
    assert read_epoch(make_recipe(gcs.format(path="set"), tmp_path)) == expected


def test_remote_dataset_is_the_same_dataset(store: SeaweedFS, local: Path) -> None:
    assert open_dataset(store.http.format(path="set")).fingerprint() == open_dataset(local).fingerprint()


def test_every_file_is_fetched_once_and_later_epochs_fetch_none(store: SeaweedFS, local: Path, tmp_path: Path) -> None:
    stream = open_stream(make_recipe(store.http.format(path="set"), tmp_path))
    for epoch in (0, 1, 2):
        list(stream.iterate(epoch, 0))
    readings = stream.read_meter()
    stream.close()
    files = len(list((local / "train").iterdir()))
    assert readings.bytes_downloaded == total_bytes(local)
    assert readings.cache_hits + readings.cache_misses >= files
    assert readings.seconds["fetch"] > 0


def test_cache_smaller_than_the_dataset_gives_the_same_epoch_and_stays_within_its_limit(
    store: SeaweedFS, local: Path, expected: list[tuple[list[int], list[int]]], tmp_path: Path
) -> None:
    limit = total_bytes(local) // 2
    small = ["stream.lanes=2", "stream.window_bytes=1", "batch_size_global=2", f"storage.cache_bytes={limit}"]
    stream = open_stream(make_recipe(store.http.format(path="set"), tmp_path / "cache", *small))
    ids = []
    for batch in stream.iterate(0, 0):
        ids += batch.ids.tolist()
        assert measure(tmp_path / "cache") <= limit
    readings = stream.read_meter()
    stream.close()
    assert sorted(ids) == sorted(number for batch, _ in expected for number in batch)
    assert readings.bytes_downloaded < 1.3 * total_bytes(local)  # what is let go of is seldom asked for again


def test_cache_that_cannot_hold_what_a_batch_needs_is_refused_in_words(store: SeaweedFS, tmp_path: Path) -> None:
    stream = open_stream(make_recipe(store.http.format(path="set"), tmp_path, "storage.cache_bytes=50000"))
    with pytest.raises(
        UsageError, match=r"is full of files in use: .* of its 50,000 bytes.*; raise storage\.cache_bytes"
    ):
        list(stream.iterate(0, 0))
    stream.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [Fault("reset", 15_000), Fault("close", 9_000), Fault("refuse"), Fault("throttle", 1_000, 400_000)],
    ids=lambda fault: fault.kind,
)
def test_epoch_over_a_bad_line_is_exact(
    store: SeaweedFS, expected: list[tuple[list[int], list[int]]], tmp_path: Path, fault: Fault
) -> None:
    """Every other connection is cut, refused or slow."""
    with FaultProxy(store.http_port, lambda number: fault if number % 2 else PASS) as proxy:
        assert read_epoch(make_recipe(store.http_at(proxy.port).format(path="set"), tmp_path)) == expected
        assert proxy.struck.is_set()


@pytest.mark.slow
def test_store_that_is_killed_and_comes_back_in_an_epoch_costs_time_alone(
    store: SeaweedFS, local: Path, tmp_path: Path
) -> None:
    # So that not all is fetched before the store goes.
    small = ["stream.lanes=2", "stream.window_bytes=1", "batch_size_global=2", "storage.cache_bytes=400000"]
    stream = open_stream(make_recipe(store.s3.format(path="set"), tmp_path, *small))
    batches = stream.iterate(0, 0)
    found = hash_batches(iter([next(batches)]))
    store.kill()
    back = threading.Timer(1.5, store.start)
    back.start()
    try:
        found += hash_batches(batches)
    finally:
        back.join()
        stream.close()
    assert found == read_epoch(make_recipe(local, tmp_path, *small))


def test_store_that_stays_away_ends_the_epoch_after_the_deadline_in_a_sentence(
    store: SeaweedFS, tmp_path: Path
) -> None:
    recipe = make_recipe(store.http.format(path="set"), tmp_path)
    dataset = open_dataset(recipe.data, recipe.cache_options())
    with FaultProxy(store.http_port, lambda _: Fault("refuse")) as proxy:
        recipe = make_recipe(store.http_at(proxy.port).format(path="set"), tmp_path, "storage.deadline_s=2")
        lost = type(dataset)(recipe.data, dataset.manifest, dataset.table, recipe.cache_options())
        stream = TrainStream(lost.split("train"), recipe, SPEC, single_rank())
        started = time.monotonic()
        with pytest.raises(
            TimeoutError, match=r"train/0000\d\d\.\S+ did not come within 2 s .*check that the store is up"
        ):
            list(stream.iterate(0, 0))
        stream.close()
    assert time.monotonic() - started < 20  # a hang, not a speed: the deadline is 2 s


def test_changed_shard_in_the_store_is_refused_with_its_name(
    seaweedfs: SeaweedFS, pictures: Path, tmp_path: Path
) -> None:
    location = seaweedfs.s3.format(path="changed")
    pack(find_sources(pictures), location, OPTIONS)
    storage = open_storage(location)
    content = bytearray(storage.read("train/000001.tar"))
    content[700] ^= 1
    storage.write("train/000001.tar", bytes(content))
    with pytest.raises(ShardError, match=r"train/000001\.tar: sha256 is [0-9a-f]{64}, but the dataset's tables have"):
        read_epoch(make_recipe(location, tmp_path))
    assert not list(tmp_path.glob("*.partial"))


def test_missing_dataset_in_a_store_is_answered_in_words(store: SeaweedFS) -> None:
    with pytest.raises(UsageError, match=r"nothing is not a dataset \(it has no dataset\.json\)"):
        open_dataset(store.s3.format(path="nothing"))


def test_messages_leave_out_the_query_of_a_uri(store: SeaweedFS) -> None:
    """It may hold keys."""
    with pytest.raises(UsageError) as caught:
        open_dataset(store.s3.format(path="set")).split("dev")
    assert "?" not in str(caught.value)


# commands


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_stat_and_verify_take_a_uri(
    store: SeaweedFS, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDLINE_CACHE", str(tmp_path))
    location = getattr(store, scheme).format(path="set")
    assert command("stat", location).returncode == 0
    verified = command("verify", location)
    assert (verified.returncode, "120 pictures decoded, all as packed" in verified.stdout) == (0, True)


def train_command(data: str, root: Path, *options: str) -> list[str]:
    fixed = [f"data={data}", f"storage.root={root}/runs", f"storage.cache={root}/cache", "track.wandb=disabled"]
    small = ["model=timm/test_efficientnet", "launch=local", "epochs=2", "evaluate_on=[]", *options]
    return [sys.executable, "-m", "trainer.run", "smoke", "name=run", *fixed, *small]


@pytest.mark.slow
def test_run_on_two_ranks_trains_from_a_store_through_one_cache(store: SeaweedFS, local: Path, tmp_path: Path) -> None:
    with FaultProxy(store.http_port) as proxy:
        arguments = train_command(store.http_at(proxy.port).format(path="set"), tmp_path, "num_ranks=2")
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=200)
        assert (done.returncode, done.stderr[-2000:]) == (0, done.stderr[-2000:])
        both = total_bytes(local) + sum(path.stat().st_size for path in (local / "val").iterdir())
        assert proxy.sent < 1.5 * both  # headers and tables; two downloads of each file would be 2


@pytest.mark.slow
def test_lost_store_ends_all_ranks_with_one_sentence(store: SeaweedFS, tmp_path: Path) -> None:
    """Tables come through; of the shards' connections none does."""
    with FaultProxy(store.http_port, lambda number: PASS if number < 12 else Fault("stall")) as proxy:
        arguments = train_command(
            store.http_at(proxy.port).format(path="set"), tmp_path, "num_ranks=2", "storage.deadline_s=4"
        )
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"error: .*train/0000.* did not come within [\d.]+ s", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def wait_for_end(group: int) -> bool:
    """Say whether a process group is empty within 10 s: helpers of Python's own end when they notice their parent's."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_no_partial_file_and_a_run_that_goes_on(store: SeaweedFS, tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    arguments = train_command(store.http.format(path="set"), tmp_path, "num_ranks=2", "epochs=40")
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = tmp_path / "runs/run/metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    shared = set(os.listdir("/dev/shm")) - before
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the command
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert "resumes from it" in errors
    assert wait_for_end(process.pid)
    assert not list(tmp_path.rglob("*.partial*"))
    assert not shared & set(os.listdir("/dev/shm"))
