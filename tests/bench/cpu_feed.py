"""Whole epochs on CPUs by how loader threads and torch's share them, interleaved. See README.md beside it."""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from pack import describe_run
from pictures import make_photographs
from runs import run_dir

from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.feed.feed import BATCHES_AHEAD
from trainer.loop.session import Run, open_run
from trainer.loop.steps import Coming, take_step
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.record.run_folder import RunFolder
from trainer.weights.resolve import resolve_recipe


@dataclass(frozen=True)
class Share:
    """Threads of torch, threads of the loader, and batches that these make while a step computes."""

    torch: int
    loader: int
    ahead: int


SHARES = {
    "between the steps, 2 + 2 threads": Share(2, 2, 0),
    "three batches ahead, 2 + 2 threads": Share(2, 2, BATCHES_AHEAD),
    "three batches ahead, 2 + 1 threads": Share(2, 1, BATCHES_AHEAD),
    "three batches ahead, 1 + 1 threads": Share(1, 1, BATCHES_AHEAD),
}
WORKS = (("mobilenet_v3_small", 64, 64, 512), ("resnet18", 224, 16, 96))
"""Model, pixels, batch, pictures."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("# Loader and torch on the same CPUs: seconds of an epoch\n")
    print("\n".join(describe_run()))
    for model, size, batch, pictures in WORKS:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            pack(find_sources(make_photographs(root / "photographs", pictures)), root / "set", PackOptions())
            runs = {share: _open(root, number, share, model, size, batch) for number, share in enumerate(SHARES)}
            seconds = _clock(runs, rounds)
            for run in runs.values():
                run.close()
        _report(f"{model}, {size} pixels, batches of {batch}, {pictures} pictures an epoch", seconds)


def _open(root: Path, number: int, share: str, model: str, size: int, batch: int) -> Run:
    """Return a run with random crops; its feed is told how far ahead to work."""
    torch.set_num_threads(SHARES[share].torch)
    fixed = [f"data={root / 'set'}", f"storage.root={root}", f"name=run-{number}", "track.wandb=disabled"]
    optim = ["optim.name=sgd", "optim.peak_lr=0.01", "schedule.name=constant", "schedule.warmup_frac=0"]
    work = [f"model={model}", f"image_size={size}", f"batch_size_global={batch}", "augment.crop=random"]
    recipe = resolve_recipe(load_recipe("smoke", [*fixed, *optim, *work, f"workers={SHARES[share].loader}"]))
    run_dir(recipe).mkdir()
    run = open_run(recipe, RunFolder.of(recipe), single_rank())
    run.stream._feed._ahead = SHARES[share].ahead
    return run


def _clock(runs: dict[str, Run], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return wall and CPU seconds of each epoch, after one that warms up; the order turns every other round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name in sorted(runs, reverse=bool(number % 2)):
            torch.set_num_threads(SHARES[name].torch)
            wall, cpu = time.perf_counter(), time.process_time()
            for step, batch in enumerate(runs[name].stream.iterate(number, 0)):
                take_step(runs[name], batch, Coming(step, len(batch), 1.0, time.monotonic(), 0.0))
            if number:
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return seconds


def _report(work: str, seconds: dict[str, list[tuple[float, float]]]) -> None:
    first = next(iter(SHARES))
    print(f"\n## {work}\n\n| loader threads work | wall s | to the first | CPU s |\n| --- | --- | --- | --- |")
    for name, rounds in seconds.items():
        ratio = median(mine[0] / base[0] for mine, base in zip(rounds, seconds[first], strict=True))
        print(f"| {name} | {median(r[0] for r in rounds):.2f} | {ratio:.2f} | {median(r[1] for r in rounds):.2f} |")


if __name__ == "__main__":
    main()
