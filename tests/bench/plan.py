"""The order of an epoch: how well it mixes, what each node downloads, and what planning costs at 1e9 samples."""

from __future__ import annotations

import argparse
import io
import tarfile
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pack import describe_run

from shards.order.mixing import bound_clustering, measure_clustering
from shards.order.plan import EpochPlan, Ints, OrderOptions, ShardSizes

PICTURE_BYTES = 110_000


def make_sizes(shards: int, samples: int) -> ShardSizes:
    """Shards of nearly equal counts: some 3 % apart, as pictures of different sizes make them."""
    counts = np.random.default_rng(0).normal(samples / shards, 0.03 * samples / shards, shards).astype(np.int64)
    return ShardSizes(counts, counts * PICTURE_BYTES)


# how well it mixes


def compare_mixing() -> list[list[str]]:
    """Rows (order, figure, bound): 400 shards of 100 samples, batches of 64, mean of 5 seeds."""
    shards, per_shard, batch = 400, 100, 64
    sizes = ShardSizes(np.full(shards, per_shard), np.full(shards, per_shard))
    full = np.mean([_measure(_shuffle(sizes, seed, batch), sizes) for seed in range(5)])
    rows = [["full shuffle", f"{full:.2f}", "1"]]
    for lanes, window in ((1, 1), (1, 16), (8, 1), (8, 4), (8, 16), (32, 4), (64, 4)):
        plans = [EpochPlan(sizes, OrderOptions(seed, batch, lanes, window * per_shard), 0) for seed in range(5)]
        figure = np.mean([_measure((p.step(s).shards for s in range(p.num_steps)), sizes) for p in plans])
        bound = np.mean([bound_clustering(plan) for plan in plans])
        rows.append([f"ours, {lanes} lanes, windows of {window} shards", f"{figure:.2f}", f"{bound:.2f}"])
    with TemporaryDirectory() as folder:
        tars = _write_tars(Path(folder), shards, per_shard)
        for buffer in (1_000, 5_000, 10_000):
            figure = np.mean([_measure(_read_webdataset(tars, buffer, seed, batch), sizes) for seed in range(3)])
            rows.append([f"webdataset 1.0.2, shardshuffle=100, shuffle({buffer})", f"{figure:.2f}", "none"])
    return rows


def _measure(batches: Iterator[Ints], sizes: ShardSizes) -> float:
    return measure_clustering(batches, sizes.counts)


def _shuffle(sizes: ShardSizes, seed: int, batch: int) -> Iterator[Ints]:
    order = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes.counts)), sizes.counts))
    return (order[start : start + batch] for start in range(0, len(order), batch))


def _write_tars(folder: Path, shards: int, per_shard: int) -> list[str]:
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:06d}.tar", "w") as tar:
            for row in range(per_shard):
                info = tarfile.TarInfo(f"{shard:06d}{row:06d}.txt")
                info.size = 6
                tar.addfile(info, io.BytesIO(f"{shard:06d}".encode()))
    return [str(path) for path in sorted(folder.iterdir())]


def _read_webdataset(tars: list[str], buffer: int, seed: int, batch: int) -> Iterator[Ints]:
    """Batches of one worker that reads everything, as webdataset's documentation writes a training pipeline."""
    import webdataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = webdataset.WebDataset(tars, shardshuffle=100, seed=seed).shuffle(buffer, seed=seed)
        shards = np.array([int(sample["txt"]) for sample in samples])
    return (shards[start : start + batch] for start in range(0, len(shards), batch))


# what each node downloads


def count_downloads() -> list[list[str]]:
    """Rows (nodes, lanes, batch, least and most of a node, of all nodes): shares of the data, one epoch."""
    sizes = make_sizes(1_300, 1_300_000)
    rows = []
    for nodes in (1, 8, 128):
        for lanes, batch in ((1, 4096), (8, 4096), (128, 4096), (1024, 4096), (128, 4000)):
            plan = EpochPlan(sizes, OrderOptions(0, batch, lanes, 256 << 20), 0)
            shares = []
            for node in range(nodes):
                read = np.unique(np.concatenate([np.unique(part.shards) for part in plan.slices(0, node, nodes)]))
                shares.append(float(sizes.bytes[read].sum() / sizes.bytes.sum()))
            rows.append(
                [str(nodes), str(lanes), str(batch), f"{min(shares):.2%}", f"{max(shares):.2%}", f"{sum(shares):.2f}"]
            )
    return rows


# what planning costs


def measure_rank(samples: int, shards: int, lanes: int, num_ranks: int, rank: int) -> dict[str, float]:
    """Seconds and MiB of one rank: opening an epoch, its first step, and each step of a hundredth of the epoch."""
    tracemalloc.start()
    sizes = make_sizes(shards, samples)
    table = tracemalloc.get_traced_memory()[0]
    started = time.process_time()
    plan = EpochPlan(sizes, OrderOptions(0, 8 * num_ranks, lanes, 256 << 20), 1)
    opened = time.process_time()
    plan.slice(plan.num_steps // 2, rank, num_ranks)
    first = time.process_time()
    steps = plan.num_steps // 100
    for step in range(plan.num_steps // 2, plan.num_steps // 2 + steps):
        plan.slice(step, rank, num_ranks)
    ended = time.process_time()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "open_s": opened - started,
        "first_s": first - opened,
        "step_ms": (ended - first) / steps * 1000,
        "table_mib": table / 2**20,
        "held_mib": (now - table) / 2**20,
        "peak_mib": peak / 2**20,
    }


def measure_planning() -> list[list[str]]:
    """Rows of the costs of the worst of 8 ranks out of `num_ranks`."""
    rows = []
    for samples, shards, lanes, num_ranks in (
        (10**6, 1_000, 8, 8),
        (10**8, 100_000, 128, 128),
        (10**9, 100_000, 1_024, 1_024),
        (10**9, 1_000_000, 1_024, 1_024),
        (10**9, 1_000_000, 8, 1_024),
    ):
        costs = [measure_rank(samples, shards, lanes, num_ranks, rank * num_ranks // 8) for rank in range(8)]
        worst = {name: max(cost[name] for cost in costs) for name in costs[0]}
        costs_told = [f"{value:.3g}" for value in worst.values()]
        rows.append([f"{samples:.0e}", f"{shards:,}", str(lanes), str(num_ranks), *costs_told])
    return rows


def format_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the result here as well")
    arguments = parser.parse_args()
    text = "\n\n".join(
        [
            "# The order of an epoch",
            "\n".join(describe_run()),
            "## How well batches are mixed",
            "How often two samples of one shard meet in a batch, against a full shuffle: 400 shards of 100, batches "
            "of 64. Mean of 5 seeds, webdataset 3; `shards.order.mixing` says what the bound is.",
            format_table(["order", "figure", "bound"], compare_mixing()),
            "## What nodes download in an epoch",
            "1.3e6 pictures of 110 KB in 1,300 shards, windows of 256 MiB, shares of the whole data; a cache that "
            "holds a node's current windows.",
            format_table(["nodes", "lanes", "global batch", "least", "most", "all nodes"], count_downloads()),
            "## What planning costs each rank",
            "CPU seconds and MiB of the worst of 8 ranks; batches of 8 a rank, windows of 256 MiB. Workers are threads "
            "of the rank and hold no plan, so their number does not count. Steps: a hundredth of an epoch, from its "
            "middle.",
            format_table(
                ["samples", "shards", "lanes", "ranks", "open s", "first step s", "step ms", "shard table MiB",
                 "plan MiB", "peak MiB"],
                measure_planning(),
            ),
        ]
    )  # fmt: skip
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
