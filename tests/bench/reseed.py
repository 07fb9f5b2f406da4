"""What seeding per sample costs, as a share of one sample's work: `python tests/bench/reseed.py --out FILE.md`.

A sample is a JPEG of 500x375, decoded and cropped by torchvision to 224x224, then changed by a policy. The target
is a share of at most 5 % for each back end. One thread, CPU seconds, medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from duplicates import describe_machine
from pictures import make_photographs
from torch import Tensor
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

from shards.order.purposes import Purpose
from trainer.feed.augment import albumentations_policies
from trainer.feed.augment.policies import build_policy
from trainer.feed.augment.seeding import SampleKey, make_numpy_rng, make_python_rng, make_torch_rng
from trainer.feed.augment.torch_random import DrawFrom
from trainer.recipes.options.augment import AugmentOptions

TARGET = 0.05
PICTURES = 40
POLICIES = ("strong", "autoaugment", "randaugment", "trivialaugment", "augmix", "photometric")
# The same transforms as in trainer.feed.augment.torchvision_policies, without a policy's seeding.
BARE = {
    "autoaugment": v2.AutoAugment,
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
    "augmix": v2.AugMix,
}
Timed = Callable[[int], object]


def name_parts(jpegs: list[Tensor], crops: list[Tensor]) -> dict[str, Timed]:
    """Return what is timed: part -> function of the sample's number."""
    crop = v2.RandomResizedCrop(224, antialias=True)
    compose = albumentations_policies.A.Compose(albumentations_policies.compose_photometric())

    def keep(number: int) -> SampleKey:
        return SampleKey(0, 1, number)

    def seed_torch(number: int) -> None:
        with DrawFrom(make_torch_rng(keep(number), Purpose.OPERATIONS)):
            pass

    def seed_albumentations(number: int) -> None:
        key = keep(number)
        compose.set_random_state(make_numpy_rng(key, Purpose.OPERATIONS), make_python_rng(key, Purpose.OPERATIONS))

    def run_bare(name: str) -> Timed:
        transform = BARE[name](interpolation=v2.InterpolationMode.BILINEAR)

        def run(number: int) -> Tensor:
            torch.manual_seed(SEEDS[number])  # the draws of the seeded policy, out of the global generator
            return transform(crops[number % PICTURES])

        return run

    def run_policy(name: str) -> Timed:
        change = build_policy(AugmentOptions(policy=name)).after
        assert change is not None
        return lambda number: change(crops[number % PICTURES], keep(number))

    return {
        "decode and crop": lambda number: crop(decode_jpeg(jpegs[number % PICTURES])),
        "seed own": lambda number: make_numpy_rng(keep(number), Purpose.OPERATIONS),
        "seed torchvision": seed_torch,
        "seed albumentations": seed_albumentations,
        "manual_seed": lambda number: torch.manual_seed(SEEDS[number]),
        **{f"policy {name}": run_policy(name) for name in POLICIES},
        **{f"bare {name}": run_bare(name) for name in BARE},
    }


SEEDS = [make_torch_rng(SampleKey(0, 1, number), Purpose.OPERATIONS).initial_seed() for number in range(200)]


def time_rounds(parts: dict[str, Timed], rounds: int) -> dict[str, float]:
    """Return the median CPU microseconds of a part per sample."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            started = time.process_time()
            for number in range(len(SEEDS)):
                part(number)
            seconds[name].append((time.process_time() - started) / len(SEEDS))
    return {name: statistics.median(values) * 1e6 for name, values in seconds.items()}


def write_report(cpu_us: dict[str, float]) -> str:
    """Return the result as a page: seeding of each policy against its sample's work."""
    lines = [
        "# Seeding per sample",
        "",
        f"Date: {datetime.now(UTC):%Y-%m-%d}. Machine: {describe_machine()}, torch {torch.__version__}; one thread,",
        f"load {os.getloadavg()[0]:.1f}. CPU microseconds per sample. Decoding a JPEG of 500x375 and cropping it to",
        f"224x224 by torchvision: {cpu_us['decode and crop']:.0f}. Seeding: own operations {cpu_us['seed own']:.1f}, "
        f"torchvision {cpu_us['seed torchvision']:.1f},",
        f"albumentations {cpu_us['seed albumentations']:.1f}. For torchvision the mode that hands the generator over "
        "is added: the policy's time",
        f"less that of the bare transform. Target: at most {TARGET:.0%} of the sample.",
        "",
        "| policy | policy, with seeding | of that seeding | share of the sample | target |",
        "|---|---|---|---|---|",
    ]
    for name in POLICIES:
        policy = cpu_us[f"policy {name}"]
        if name in BARE:
            seeding = policy - (cpu_us[f"bare {name}"] - cpu_us["manual_seed"])
        else:
            seeding = cpu_us["seed albumentations" if name == "photometric" else "seed own"]
        share = seeding / (cpu_us["decode and crop"] + policy)
        verdict = "met" if share <= TARGET else "missed"
        lines.append(f"| {name} | {policy:.0f} | {seeding:.0f} | {share:.1%} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="file for the result; it is printed as well")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(make_photographs(Path(folder), PICTURES).glob("c*/*.jpg"))
        jpegs = [torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8) for file in files]
    crops = [v2.functional.resize(decode_jpeg(jpeg), [224, 224], antialias=True) for jpeg in jpegs]
    page = write_report(time_rounds(name_parts(jpegs, crops), arguments.rounds))
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
