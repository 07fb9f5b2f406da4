"""What the loop adds to a bare PyTorch loop on the same batches: CPU-seconds, interleaved. See README.md beside it."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from pack import describe_run
from pictures import make_photographs
from runs import run_dir
from torch import nn

from shards.dataset.dataset import open_dataset
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.feed.feed import Batch
from trainer.loop.build import build_model
from trainer.loop.session import Run, open_run
from trainer.loop.steps import Coming, take_step
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RunFolder
from trainer.weights.resolve import resolve_recipe

TARGET = 1.02
SIZE, BATCH, STEPS = 64, 32, 12


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        data = make_data(Path(name))
        recipe = make_recipe(data, Path(name), arguments.model)
        run_dir(recipe).mkdir()
        run = open_run(recipe, RunFolder.of(recipe), single_rank())
        batches = [copy(batch) for _, batch in zip(range(STEPS), run.stream.iterate(0, 0), strict=False)]
        bare = make_bare(recipe, len(open_dataset(data).classes))
        loops = {"bare": lambda: take_bare(bare, batches), "ours": lambda: take_ours(run, batches)}
        seconds = clock(loops, arguments.rounds)
        run.close()
    report(seconds, arguments.model, arguments.rounds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


def make_data(root: Path) -> Path:
    pack(find_sources(make_photographs(root / "photographs", BATCH * STEPS)), root / "set", PackOptions())
    return root / "set"


def make_recipe(data: Path, root: Path, model: str) -> Recipe:
    fixed = [f"data={data}", f"storage.root={root}", "name=bench", "track.wandb=disabled", f"model={model}"]
    optim = ["optim.name=sgd", "optim.peak_lr=0.01", "schedule.name=constant", "schedule.warmup_frac=0"]
    return resolve_recipe(load_recipe("smoke", [*fixed, *optim, f"image_size={SIZE}", f"batch_size_global={BATCH}"]))


def copy(batch: Batch) -> Batch:
    """The feed uses the memory of pictures again."""
    return Batch(batch.images.clone(), batch.labels, batch.weights, batch.ids, batch.sources)


def make_bare(recipe: Recipe, num_classes: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = build_model(recipe, num_classes)
    decay = recipe.optim.weight_decay
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=decay)
    return model.train(), optimizer


def take_bare(bare: tuple[nn.Module, torch.optim.Optimizer], batches: list[Batch]) -> None:
    model, optimizer = bare
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()


def take_ours(run: Run, batches: list[Batch]) -> None:
    for number, batch in enumerate(batches):
        take_step(run, batch, Coming(number, len(batch), 1.0, time.monotonic(), 0.0))


def clock(loops: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return CPU-seconds of each loop in each round; the order turns around every other round."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop()
    for number in range(rounds):
        for name in sorted(loops, reverse=bool(number % 2)):
            started = time.process_time()
            loops[name]()
            seconds[name].append(time.process_time() - started)
    return seconds


def report(seconds: dict[str, list[float]], model: str, rounds: int) -> None:
    ratio = median(ours / bare for ours, bare in zip(seconds["ours"], seconds["bare"], strict=True))
    print("# The loop against a bare PyTorch loop\n")
    print("\n".join(describe_run()))
    print(f"\n{model} at {SIZE} pixels, batches of {BATCH}, {STEPS} steps a round, {rounds} rounds, one thread.\n")
    print("| loop | ms of CPU per step |\n| --- | --- |")
    for name, values in seconds.items():
        print(f"| {name} | {1000 * median(values) / STEPS:.1f} |")
    met = "met" if ratio <= TARGET else "**missed**"
    print(f"\nours against bare: {ratio:.3f} (median of the rounds' ratios), target at most {TARGET}: {met}")


if __name__ == "__main__":
    main()
