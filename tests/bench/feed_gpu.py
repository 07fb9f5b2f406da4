"""Does a GPU wait for the feed? ResNet-50 in bf16, streamed from shards against one batch that stays on the device.

Every way of decoding that is named is streamed in turn, in each round.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from shards.dataset.dataset import open_dataset
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed.feed import Batch
from trainer.feed.meter import judge
from trainer.feed.stream import TrainStream
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import Recipe

SIZE, WARM_UP, TARGET = 224, 20, 0.02
WAYS = ["faithful", "device"]


class Trainer:
    """ResNet-50, channels last, bf16, SGD: what the feed has to keep up with."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.model = Classifier(ModelSpec(name="resnet50", num_classes=num_classes)).to(device).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, fused=True)

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = cross_entropy(self.model(batch.images), batch.labels)
        loss.backward()
        self.optimizer.step()


def clock(trainer: Trainer, batches: Iterator[Batch], steps: int) -> dict[str, float]:
    """Return images a second and the share of the time in which a step waited for its batch.

    The device is waited for before a batch is asked for, as a loop does that reads its loss: a wait is then idle time.
    """
    for batch in islice(batches, WARM_UP):
        trainer.step(batch)
    torch.cuda.synchronize()
    started, waited, images = time.perf_counter(), 0.0, 0
    for _ in range(steps):
        torch.cuda.synchronize()
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        trainer.step(batch)
        images += len(batch)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {"images_s": images / seconds, "wait_frac": waited / seconds}


class Streamed:
    """Full batches of the training part, decoded one way."""

    def __init__(self, arguments: argparse.Namespace, decode: str, ranks: Ranks) -> None:
        self.stream = open_stream(arguments.data, arguments.batch_size, arguments.workers, ranks, decode)
        self.batches = (batch for batch in _epochs(self.stream) if len(batch) == arguments.batch_size)

    def clock(self, trainer: Trainer, steps: int, workers: int, ranks: Ranks) -> dict[str, Any]:
        before = self.stream.read_meter()
        clocked = clock(trainer, self.batches, steps)
        readings = self.stream.read_meter().since(before)
        return {**clocked, "verdict": judge(readings, clocked["wait_frac"], workers, ranks.cpus, SIZE)}


def open_stream(data: Path, batch_size: int, workers: int, ranks: Ranks, decode: str) -> TrainStream:
    recipe = Recipe.model_validate(
        {
            "data": str(data), "name": "bench", "model": "resnet50", "batch_size_global": batch_size,
            "workers": workers, "augment": {"crop": "random", "policy": "flip"}, "stream": {"decode": decode},
        }
    )  # fmt: skip
    dataset = open_dataset(data)
    return TrainStream(dataset.split("train"), recipe, PreprocessSpec(size=SIZE), ranks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a packed dataset of JPEGs of about 500x375, audited")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--decode", nargs="+", choices=WAYS, default=WAYS, help="stream.decode (default: all)")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: this bench needs a CUDA device, and torch sees none here")
        return 0
    device = torch.device("cuda", 0)
    ranks = Ranks(0, 1, device)
    streams = {decode: Streamed(arguments, decode, ranks) for decode in arguments.decode}
    trainer = Trainer(len(open_dataset(arguments.data).classes), device)
    still = next(next(iter(streams.values())).batches)
    rows = []
    for number in range(arguments.rounds):
        row: dict[str, Any] = {"round": number, "synthetic": clock(trainer, (still for _ in count()), arguments.steps)}
        for decode, streamed in streams.items():
            row[decode] = streamed.clock(trainer, arguments.steps, arguments.workers, ranks)
        rows.append(row)
        print(json.dumps(row))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {ranks.cpus} CPUs")
    for decode, streamed in streams.items():
        streamed.stream.close()
        wait, images_s = (
            sorted(row[decode][name] for row in rows)[len(rows) // 2] for name in ("wait_frac", "images_s")
        )
        verdict = "met" if wait < TARGET else "missed"
        print(f"{decode}: {images_s:,.0f} images/s, wait share {wait:.2%}, target under {TARGET:.0%}: {verdict}")
    return 0


def _epochs(stream: TrainStream) -> Iterator[Batch]:
    return chain.from_iterable(stream.iterate(epoch, 0) for epoch in count())


if __name__ == "__main__":
    sys.exit(main())
