"""What 1e9 pictures, 1,024 GPUs and 10,000 requests/s ask of this project's own code: simulated, on one machine.

    PYTHONPATH=. python tests/bench/scale.py --out tests/bench/results/DATE-scale.md

Shard tables of up to 1e6 rows are made by the schema of the packer and opened by `open_dataset`; plans are asked as
ranks ask them; indexes and ledgers are written by the code that writes them in a run; the key-value store and the
actor calls are those of a real Ray. Each line says what was measured and what was multiplied. Two minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pack import describe_run
from PIL import Image
from plan import format_table

from shards.dataset.dataset import open_dataset  # isort: skip, before torch

import torch

from shards.dataset.index import INDEX_SCHEMA, SHARD_SCHEMA, encode_table, index_name, read_table
from shards.dataset.manifest import MANIFEST_NAME, Audited, Manifest, Packing, SplitSummary
from shards.order.mixing import bound_clustering
from shards.order.plan import EpochPlan, OrderOptions, ShardSizes
from shards.packing.encode import StoreOptions
from shards.packing.write import Setting, ShardJob, write_shard
from shards.sources.model import FolderStore, Source
from shards.splits.splits import SplitOptions
from shards.storage.download import _CHUNK_BYTES
from shards.storage.storage import open_storage
from trainer.feed.feed import Batch
from trainer.record.ledger import Ledger

RESULTS = Path(__file__).parent / "results"
SAMPLES, PICTURE_BYTES, RANKS, NODES = 10**9, 110_000, 1_024, 128
ACTORS, CALLS = 2, 4_000


# the shard table: its bytes, and what a rank pays at its start


def write_dataset(folder: Path, shards: int, classes: int) -> int:
    """Write dataset.json and a table of `shards` rows with 1e9 samples; return the table's bytes."""
    rng = np.random.default_rng(0)
    counts = rng.normal(SAMPLES / shards, 0.03 * SAMPLES / shards, shards).astype(np.int64)
    by_class = rng.integers(0, 2 * SAMPLES // shards // classes + 1, (shards, classes))
    offsets = np.arange(0, shards * classes + 1, classes, dtype=np.int32)
    columns = [
        pa.array(["train"] * shards),
        pa.array([f"train/{number:06d}.tar" for number in range(shards)]),
        pa.array(counts * PICTURE_BYTES),
        pa.array(counts),
        pa.array(np.cumsum(counts) - counts),
        pa.ListArray.from_arrays(offsets, by_class.ravel()),
        *(pa.array(make_digests(rng, shards)) for _ in range(2)),
    ]
    table = encode_table(pa.table(columns, schema=SHARD_SCHEMA))
    names = [f"class-{number}" for number in range(classes)]
    manifest = Manifest(
        classes=names,
        display_names=names,
        splits={
            "train": SplitSummary(
                samples=int(counts.sum()), shards=shards, bytes=int(counts.sum()) * PICTURE_BYTES,
                class_counts=by_class.sum(axis=0).tolist(),
            )
        },
        packing=Packing(
            shard_bytes=PICTURE_BYTES * SAMPLES // shards, split=SplitOptions(), decode=StoreOptions().decode,
            max_side=None, quality=None, plan="0" * 64,
        ),
        audited=Audited(level="none"),
        table_sha256=hashlib.sha256(table).hexdigest(),
        quarantined=0,
    )  # fmt: skip
    (folder / manifest.table).write_bytes(table)
    (folder / MANIFEST_NAME).write_bytes(manifest.encode())
    return len(table)


def make_digests(rng: np.random.Generator, number: int) -> list[str]:
    text = rng.bytes(32 * number).hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def read_memory() -> tuple[float, float]:
    """Return this process's resident MiB, and the most so far."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if "kB" in line)
    now, most = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def measure_start(folder: Path, lanes: int) -> None:
    """Print what a rank's start costs: opening, class counts and a shard's files, a plan, the figure of its mixing."""
    before, clock, laps = read_memory()[0], time.process_time, []

    def lap(started: float) -> float:
        laps.append(clock() - started)
        return clock()

    at = clock()
    split = open_dataset(folder).split("train")
    at = lap(at)
    assert split.class_counts.shape[0] == len(split.counts)
    split.wanted_shard(5), split.wanted_index(5)
    at = lap(at)
    plan = EpochPlan(ShardSizes(split.counts, split.shard_bytes), _order(lanes), 0)
    plan.slice(plan.num_steps // 2, RANKS // 2, RANKS)
    at = lap(at)
    bound_clustering(plan)
    lap(at)
    now, most = read_memory()
    print(*[f"{value:.2f}" for value in laps], f"{now - before:.0f}", f"{most - before:.0f}", sep="|")


def _order(lanes: int, batch: int = 32 * RANKS, redeal: bool = False) -> OrderOptions:
    return OrderOptions(0, batch, lanes, 256 << 20, redeal)


def measure_tables() -> list[list[str]]:
    rows = []
    for shards, classes, lanes in ((100_000, 10, RANKS), (1_000_000, 10, RANKS), (100_000, 1_000, RANKS)):  # fmt: skip
        with tempfile.TemporaryDirectory() as name:
            size = write_dataset(Path(name), shards, classes)
            words = [sys.executable, __file__, "--start", name, "--lanes", str(lanes)]
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        table = f"{size / 1e6:.1f}"
        rows.append([f"{shards:,}", f"{classes:,}", f"{lanes:,}", table, *said.strip().split("|")])
    return rows


# the index of a shard


def measure_index(samples: int) -> list[str]:
    """Row of an index of audited pictures that `write_shard` wrote: bytes a sample in the file and in memory."""
    rng, data = np.random.default_rng(0), []
    for _ in range(samples):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "JPEG")
        data.append(file.getvalue())
    first = SAMPLES // 2
    sources = [
        Source(f"train/class-{number % 10}/ISIC_{first + number:010d}.jpg", (f"class-{number % 10}",), None, len(each))
        for number, each in enumerate(data)
    ]
    hashes = [text[:16] for text in make_digests(rng, samples)]
    labels = {f"class-{number}": number for number in range(10)}
    with tempfile.TemporaryDirectory() as name:
        setting = Setting(open_storage(name), FolderStore(Path(name)), StoreOptions(), labels, "0" * 64)
        write_shard(setting, ShardJob("train", "train/000000.tar", first, sources, None, hashes, data))
        path = Path(name, index_name("train/000000.tar"))
        started = time.process_time()
        table = read_table(path, INDEX_SCHEMA)
        opened = time.process_time() - started
        size = path.stat().st_size
    total = size / samples * SAMPLES / 1e9
    return [f"{samples:,}", f"{size / samples:.1f}", f"{table.nbytes / samples:.0f}", f"{opened * 1e3:.1f}", f"{total:.0f}"]  # fmt: skip  # noqa: E501


# what a node reads in an epoch


def count_node(shards: int, lanes: int, batch: int, redeal: bool) -> list[str]:
    """Row of two nodes of 128: their shards in two epochs, and the requests that these are.

    Shards have 100 samples here: which shards a node touches does not depend on how many samples they have, as long
    as a batch takes as much from each lane.
    """
    counts = np.full(shards, 100, dtype=np.int64)
    sizes = ShardSizes(counts, np.full(shards, PICTURE_BYTES * SAMPLES // shards, dtype=np.int64))
    plans = [EpochPlan(sizes, _order(lanes, batch, redeal), epoch) for epoch in range(2)]
    seen = [[_list_shards(plan, node) for plan in plans] for node in (0, NODES - 1)]
    most = max(len(epochs[0]) for epochs in seen)
    again = min(len(np.intersect1d(*epochs)) / len(epochs[1]) for epochs in seen)
    tar = PICTURE_BYTES * SAMPLES // shards
    index = 41 * SAMPLES // shards
    requests = most * (3 + -(-tar // _CHUNK_BYTES) + -(-index // _CHUNK_BYTES))
    return [
        f"{shards:,}", f"{lanes:,}", f"{batch:,}", str(redeal).lower(), f"{most:,}", f"{most * NODES / shards:.2f}",
        f"{most * tar / 1e12:.2f}", f"{requests:,}", f"{again:.0%}",
    ]  # fmt: skip


def _list_shards(plan: EpochPlan, node: int) -> np.ndarray:
    return np.unique(np.concatenate([np.unique(part.shards) for part in plan.slices(0, node, NODES)]))


# what a run writes


def measure_ledger(batch: int, steps: int) -> tuple[float, float]:
    """Return the bytes of a row in a rank's file and in its memory before it is written."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        ledger = Ledger(Path(name), 1, 0, 0)
        batches = [
            Batch(
                torch.from_numpy(rng.integers(0, 256, (batch, 3, 8, 8), dtype=np.uint8)),
                torch.zeros(batch, dtype=torch.int64), torch.ones(batch), rng.integers(0, SAMPLES, batch), [""] * batch,
            )
            for _ in range(steps)
        ]  # fmt: skip
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        for step, each in enumerate(batches):
            ledger.add(each, 0, step, step * batch * RANKS)
        held = pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        ledger.flush(steps * batch * RANKS)
        size = sum(path.stat().st_size for path in Path(name).glob("*.parquet"))
    return size / (batch * steps), held / (batch * steps)


def measure_sources(number: int) -> float:
    """Return the bytes of memory of a listed picture, as the packer keeps it."""
    tracemalloc.start()
    label = ("class-1",)
    kept = [Source(f"train/class-1/ISIC_{row:010d}.jpg", label, None, PICTURE_BYTES + row % 999, 10**18 + row) for row in range(number)]  # fmt: skip  # noqa: E501
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return size


# Ray


def measure_ray() -> list[list[str]]:
    """Rows (what, a second, CPU ms of the caller): the board's calls, and a controller's polls of its workers."""
    from shards.workers.ray_cluster import join_or_start  # isort: skip, it quiets Ray

    import ray

    from shards.workers import ray_private

    join_or_start(num_cpus=2, log_to_driver=False)

    @ray.remote(num_cpus=0)
    class Worker:
        def poll(self) -> dict[str, float]:
            return {"alive": 1.0}

    workers = [Worker.remote() for _ in range(ACTORS)]
    ray.get([each.poll.remote() for each in workers])

    def poll() -> None:
        for start in range(0, CALLS, RANKS):
            ray.get([workers[number % ACTORS].poll.remote() for number in range(start, min(start + RANKS, CALLS))])

    def post() -> None:
        for _ in range(CALLS // 4):
            ray_private.put_text("scale/progress", "x" * 200)

    def read() -> None:
        for _ in range(CALLS // 4):
            ray_private.read_text("scale/stop")

    rows = [_time(name, call, calls) for name, call, calls in (
        ("actor calls, 1,024 at a time", poll, CALLS), ("posts to the key-value store", post, CALLS // 4),
        ("reads of it", read, CALLS // 4),
    )]  # fmt: skip
    ray.shutdown()
    return rows


def _time(name: str, call: object, calls: int) -> list[str]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()  # type: ignore[operator]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return [name, f"{calls / wall:,.0f}", f"{cpu / calls * 1e3:.2f}"]


# the endpoint


def count_replicas(rate: float) -> list[list[str]]:
    """Rows of the cores that `rate` pictures a second take, by the CPU ms a picture of the newest dated result."""
    path = max(RESULTS.glob("*-serve.md"))
    rows = []
    for model, table in re.findall(r"### (\w+), bare.*?\n\n(.*?)\n\n", path.read_text() + "\n\n", re.DOTALL):
        _, per_s, cpu_ms, *_ = (cell.strip() for cell in re.search(r"\| (ours .*?) \|\n", table)[1].split("|"))
        cores = rate * float(cpu_ms) / 1e3
        rows.append(
            [model, per_s, cpu_ms, f"{cores:,.0f}", f"{cores / 0.6:,.0f}", f"{cores / 0.6 / 2:,.0f}", path.name]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the result here as well")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lanes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        measure_start(arguments.start, arguments.lanes)
        return
    began = time.perf_counter()
    facts = describe_run()
    text = ""
    for part in itertools.chain(["# At scale", "\n".join(facts)], describe()):
        print(part, end="\n\n", flush=True)
        text += f"{part}\n\n"
    wall, cpu = time.perf_counter() - began, measure_cpu()
    text += f"All of it took {wall:.0f} s and {cpu:.0f} CPU-seconds.\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


def measure_cpu() -> float:
    """Return the CPU-seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def describe() -> Iterator[str]:
    """Yield the parts of the result as they are measured."""
    yield "## A packer, and a ledger"
    measure_ledger(32, 1)  # what is imported late would count as rows
    row, held = measure_ledger(32, 400)
    source = measure_sources(200_000)
    yield (
        f"- a listed picture: {source:.0f} bytes of the packer's memory; x 1e9 = {source:.0f} GB\n"
        f"- ledger: {row:.1f} bytes a row in its file, {held:.0f} in a rank's memory until the next snapshot (steps "
        f"of 32); x 1e9 = {row:.0f} GB an epoch"
    )
    yield "## The index of a shard"
    yield "Audited JPEGs with names of 33 characters; the last column is the second times 1e9."
    header = ["samples a shard", "bytes a sample", "in memory", "open ms", "GB of 1e9"]
    yield format_table(header, [measure_index(number) for number in (1_000, 10_000)])
    yield "## 10,000 requests/s of one picture"
    yield "Cores: 10,000 x CPU ms a picture; at 60 % load divided by 0.6; replicas of 2 cores."
    header = ["model", "pictures/s of 2 cores", "CPU ms", "cores busy", "cores at 60 %", "replicas", "from"]
    yield format_table(header, count_replicas(10_000))
    yield "## A rank's start"
    yield (
        "Shard tables of 1e9 samples, opened in a process of their own: CPU-seconds, MiB beside the imports. Measured "
        "whole; nothing is extrapolated."
    )
    header = ["shards", "classes", "lanes", "table MB", "open s", "classes s", "plan and step s", "clustering s"]
    yield format_table([*header, "MiB held", "MiB at most"], measure_tables())
    yield "## What a node reads in an epoch"
    yield (
        f"{NODES} nodes of {RANKS // NODES} ranks, two of them counted through two epochs; shards stand for 1e9 "
        f"pictures of {PICTURE_BYTES / 1e3:g} KB. Requests: for each shard a GET a {_CHUNK_BYTES >> 20} MiB of tar and "
        "index, and 3 HEADs. Copies: all nodes together, 1 if no shard is read twice. Again: the least share of the "
        "second epoch's shards that the node has from the first."
    )
    header = ["shards", "lanes", "batch", "redeal", "shards of a node", "copies", "TB", "requests", "again"]
    plans = [(RANKS, 4 * RANKS, False), (RANKS, 4 * RANKS, True), (8, 4 * RANKS, False), (RANKS, 4_000, False)]
    yield format_table(header, [count_node(100_000, *each) for each in plans])
    yield "## Ray"
    yield f"One caller, {ACTORS} actors on the same 2 CPUs."
    yield format_table(["calls", "a second", "CPU ms of the caller"], measure_ray())


if __name__ == "__main__":
    main()
