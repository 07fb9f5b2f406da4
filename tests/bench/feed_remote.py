"""Our feed from an object store into an empty cache, against the same dataset on this machine."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from feed_clock import BATCH, SIZE, WORKERS
from feed_contenders import pack_shards
from pack import describe_run, judge
from pictures import make_photographs

from shards.dataset.dataset import open_dataset
from shards.storage.storage import open_storage
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed.feed import Batch
from trainer.feed.stream import TrainStream
from trainer.ranks.ranks import single_rank
from trainer.recipes.recipe import Recipe

KEYS = "bench-key", "bench-secret"
TARGET = 1.3
LANES, WINDOW_BYTES = 2, 16 << 20  # so that most shards are first needed in the middle of an epoch


def open_stream(data: str, cache: Path) -> TrainStream:
    recipe = Recipe.model_validate(
        {
            "data": data, "name": "bench", "model": "resnet18", "batch_size_global": BATCH, "workers": WORKERS,
            "augment": {"crop": "random", "policy": "flip"}, "storage": {"cache": str(cache)},
            "stream": {"lanes": LANES, "window_bytes": WINDOW_BYTES},
        }
    )  # fmt: skip
    dataset = open_dataset(data, recipe.cache_options())
    return TrainStream(dataset.split("train"), recipe, PreprocessSpec(size=SIZE), single_rank())


def clock(data: str, cache: Path, epoch: int) -> dict[str, float]:
    """One epoch with an empty cache: seconds to the first batch; from there on wall and CPU of this process."""
    shutil.rmtree(cache, ignore_errors=True)
    began = time.perf_counter()
    stream = open_stream(data, cache)
    batches: Iterator[Batch] = stream.iterate(epoch, 0)
    next(batches)
    first, cpu = time.perf_counter(), _cpu()
    images = sum(len(batch) for batch in batches)
    ended = time.perf_counter()
    row = {"first_s": first - began, "wall_s": ended - first, "whole_s": ended - began, "cpu_s": _cpu() - cpu}
    readings = stream.read_meter()
    stream.close()
    return row | {"images": images, "mib": readings.bytes_downloaded / 2**20}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/bench"))
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the result here as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.update(AWS_ACCESS_KEY_ID=KEYS[0], AWS_SECRET_ACCESS_KEY=KEYS[1], AWS_EC2_METADATA_DISABLED="true")
    sys.path.append(str(Path(__file__).parent.parent))
    from object_stores import run_seaweedfs  # the real store that the tests start

    head = describe_run()
    src = make_photographs(arguments.data / f"photographs-{arguments.pictures}", arguments.pictures)
    local = arguments.data / f"photographs-{arguments.pictures}-shards"
    if not (local / "dataset.json").is_file():
        pack_shards(src, local)
    rows: dict[str, list[dict[str, float]]] = {"local": [], "s3": [], "http": []}
    with TemporaryDirectory() as folder, run_seaweedfs(Path(folder) / "store", *KEYS) as store:
        storage = open_storage(store.s3.format(path="set"))
        for path in sorted(path for path in local.rglob("*") if path.is_file()):
            storage.write(path.relative_to(local).as_posix(), path.read_bytes())
        places = {"local": str(local), "s3": store.s3.format(path="set"), "http": store.http.format(path="set")}
        for number in range(arguments.rounds + 1):
            for name, data in places.items():
                row = clock(data, Path(folder) / "cache", number)
                if number:  # the first round warms up
                    rows[name].append(row)
    page = "\n".join([*head, "", *describe(rows)])
    print(page)
    if arguments.out:
        arguments.out.write_text(f"# Our feed from an object store\n\n{page}\n", encoding="utf-8")


def describe(rows: dict[str, list[dict[str, float]]]) -> list[str]:
    lines = [
        "SeaweedFS runs on the same CPUs as the feed, so wall clock holds the store's work too. Medians; the cache is "
        "empty at the beginning of each epoch; wall and CPU count from the first batch on.",
        "",
        "| from | first batch s | images/s from there | x local | whole epoch, x local | CPU-s/1,000 | x local | MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ratios = {name: _ratio(rows, name, "wall_s") for name in rows}
    for name, found in rows.items():
        speed = median(row["images"] / row["wall_s"] for row in found)
        cpu = median(row["cpu_s"] / row["images"] * 1000 for row in found)
        first, mib = median(row["first_s"] for row in found), median(row["mib"] for row in found)
        lines.append(
            f"| {name} | {first:.2f} | {speed:.0f} | {ratios[name]:.2f} | "
            f"{_ratio(rows, name, 'whole_s'):.2f} | {cpu:.2f} | "
            f"{_ratio(rows, name, 'cpu_s'):.2f} | {mib:.0f} |"
        )
    return [
        *lines,
        "",
        *(judge(f"{name}, time of an epoch against local", ratios[name], TARGET) for name in ("s3", "http")),
    ]


def _ratio(rows: dict[str, list[dict[str, float]]], name: str, key: str) -> float:
    """Return the median over the rounds of a row's number against local's in the same round."""
    return median(row[key] / base[key] for row, base in zip(rows[name], rows["local"], strict=True))


if __name__ == "__main__":
    main()
