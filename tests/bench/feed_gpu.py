"""Does a GPU wait for the feed? ResNet-50 in bf16, streamed from shards against one batch that stays on the device."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import chain, count, islice
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from shards.dataset import open_dataset
from trainer.contract.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed.feed import Batch
from trainer.feed.meter import judge
from trainer.feed.stream import TrainStream
from trainer.ranks import Ranks
from trainer.recipe import Recipe

SIZE, WARM_UP, TARGET = 224, 20, 0.02


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


def open_stream(data: Path, batch_size: int, workers: int, ranks: Ranks) -> TrainStream:
    recipe = Recipe.model_validate(
        {
            "data": str(data), "name": "bench", "model": "resnet50", "batch_size_global": batch_size,
            "workers": workers, "augment": {"crop": "random", "policy": "flip"},
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
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: this bench needs a CUDA device, and torch sees none here")
        return 0
    device = torch.device("cuda", 0)
    ranks = Ranks(0, 1, device)
    stream = open_stream(arguments.data, arguments.batch_size, arguments.workers, ranks)
    trainer = Trainer(len(open_dataset(arguments.data).classes), device)
    full = (batch for batch in _epochs(stream) if len(batch) == arguments.batch_size)
    still = next(full)
    rows = []
    for number in range(arguments.rounds):
        synthetic = clock(trainer, (still for _ in count()), arguments.steps)
        before = stream.read_meter()
        streamed = clock(trainer, full, arguments.steps)
        readings = stream.read_meter().since(before)
        verdict = judge(readings, streamed["wait_frac"], arguments.workers, ranks.cpus, SIZE)
        rows.append({"round": number, "synthetic": synthetic, "streamed": streamed, "verdict": verdict})
        print(json.dumps(rows[-1]))
    stream.close()
    wait = sorted(row["streamed"]["wait_frac"] for row in rows)[len(rows) // 2]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {ranks.cpus} CPUs")
    print(f"wait share {wait:.2%}, target under {TARGET:.0%}: {'met' if wait < TARGET else 'missed'}")
    return 0


def _epochs(stream: TrainStream) -> Iterator[Batch]:
    return chain.from_iterable(stream.iterate(epoch, 0) for epoch in count())


if __name__ == "__main__":
    sys.exit(main())
