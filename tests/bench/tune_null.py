"""How often an ablation without any true difference claims one, and how often its intervals hold the truth.

    PYTHONPATH=. python tests/bench/tune_null.py --ablations 2000 --out tests/bench/results/DATE-tune-null.md

Each picture has a difficulty; on some pictures a variant is right more or less often than the others, by an effect of
mean 0; each run has an effect of its own, the luck of its seed; and each run flips on single pictures. Half of the
cells have groups. An error is any claim in an ablation, after Holm. `--method seeds` and `--method pictures` count one
of the two alone, as is usual: the bench must fail with them.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from statsmodels.stats.multitest import multipletests

from tune.stats.paired import Estimate, Floats, Ints, estimate_difference

ALPHA = 0.05
GROUP = 4
BASE = 0.85
"""Accuracy of every variant."""
DISCORDANT, SEED_SDS, SEEDS, PICTURES, VARIANTS = (
    (0.02, 0.08, 0.20),
    (0.005, 0.01, 0.02),
    (3, 5),
    (200, 656, 5000),
    (2, 4, 8),
)

Method = Callable[[Floats, Floats, Ints | None], Estimate]


@dataclass(frozen=True)
class Cell:
    """What a simulated ablation is like.

    discordant: share of pictures on which two variants differ whatever their seeds. seed_sd: standard deviation of a
    run's accuracy by its seed.
    """

    discordant: float
    seed_sd: float
    seeds: int
    pictures: int
    variants: int
    grouped: bool

    def simulate(self, rng: np.random.Generator, gain: float = 0.0) -> tuple[Floats, Ints | None]:
        """Return float64[variants, seeds, pictures] of 0 and 1, and the groups; gain: of the last variant."""
        count = -(-self.pictures // GROUP) if self.grouped else self.pictures
        groups = np.arange(self.pictures) // GROUP if self.grouped else None
        of_picture = np.arange(self.pictures) if groups is None else groups
        # A picture is right for all variants alike, but for those to which it is special: they draw anew.
        easy = rng.random(count)[of_picture]
        special = (rng.random((self.variants, 1, count)) < self.discordant / (2 * BASE * (1 - BASE)) / 2)[
            ..., of_picture
        ]
        own = rng.random((self.variants, 1, count))[..., of_picture]
        luck = rng.normal(0, self.seed_sd, (self.variants, self.seeds, 1))
        gains = np.zeros((self.variants, 1, 1))
        gains[-1] = gain
        flips = rng.random((self.variants, self.seeds, self.pictures)) < 0.02
        drawn = np.where(special, own, easy)
        drawn = np.where(flips, rng.random(flips.shape), drawn)
        return (drawn < BASE + luck + gains).astype(np.float64), groups


def count_seeds(variant: Floats, baseline: Floats, _: Ints | None) -> Estimate:
    """Return Welch's comparison of the runs' metrics."""
    parts = [float(scores.mean(axis=1).var(ddof=1)) / len(scores) for scores in (variant, baseline)]
    variance, df = sum(parts), sum(parts) ** 2 / sum(part**2 / (len(variant) - 1) for part in parts)
    return Estimate(float(variant.mean() - baseline.mean()), variance**0.5, df)


def count_pictures(variant: Floats, baseline: Floats, groups: Ints | None) -> Estimate:
    """Return the paired comparison of pictures, averaged over runs."""
    return estimate_difference(variant.mean(axis=0)[None], baseline.mean(axis=0)[None], groups)


METHODS: dict[str, Method] = {"both": estimate_difference, "seeds": count_seeds, "pictures": count_pictures}


@dataclass(frozen=True)
class Outcome:
    """Shares: ablations with a claim, intervals that hold the truth, true differences of 2 points that are found."""

    errors: float
    coverage: float
    power: float


def run_cell(cell: Cell, ablations: int, method: Method, seed: int) -> Outcome:
    rng = np.random.default_rng(seed)
    errors, held, intervals, found = 0, 0, 0, 0
    for _ in range(ablations):
        estimates = _compare(*cell.simulate(rng), method)
        errors += bool(multipletests([each.p for each in estimates], ALPHA, method="holm")[0].any())
        held += sum(each.interval[0] <= 0 <= each.interval[1] for each in estimates)
        intervals += len(estimates)
    for _ in range(ablations // 4):
        estimates = _compare(*cell.simulate(rng, 0.02), method)
        found += bool(multipletests([each.p for each in estimates], ALPHA, method="holm")[0][-1])
    return Outcome(errors / ablations, held / intervals, found / (ablations // 4))


def _compare(scores: Floats, groups: Ints | None, method: Method) -> list[Estimate]:
    return [method(each, scores[0], groups) for each in scores[1:]]


def list_cells(quick: bool) -> Iterator[Cell]:
    grid = itertools.product(DISCORDANT, SEED_SDS, SEEDS, PICTURES, VARIANTS, (False, True))
    for number, cell in enumerate(itertools.starmap(Cell, grid)):
        if not quick or (number % 7 == 0 and cell.pictures < 5000):
            yield cell


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ablations", type=int, default=2000, help="of each cell")
    parser.add_argument("--method", choices=METHODS, default="both")
    parser.add_argument("--quick", action="store_true", help="a seventh of the cells, none of 5,000 pictures")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    arguments = parser.parse_args()
    began, outcomes = time.process_time(), {}
    for number, cell in enumerate(list_cells(arguments.quick)):
        outcomes[cell] = run_cell(cell, arguments.ablations, METHODS[arguments.method], number)
        print(draw_row(cell, outcomes[cell]), flush=True)
    failures = list_failures(outcomes, arguments.ablations)
    lines = draw(outcomes, failures, arguments, time.process_time() - began)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[:12]))
    return 1 if failures else 0


def list_failures(outcomes: dict[Cell, Outcome], ablations: int) -> list[str]:
    """Return what misses the bounds.

    They are: errors of at most 5 % pooled, and of 5 % + 3.5 standard errors in each cell; coverage of at least 93 % -
    3.5 standard errors in each cell.
    """
    failures = []
    pooled = float(np.mean([each.errors for each in outcomes.values()]))
    if pooled > ALPHA:
        failures.append(f"pooled errors {pooled:.4f} above {ALPHA}")
    most = ALPHA + 3.5 * (ALPHA * (1 - ALPHA) / ablations) ** 0.5
    least = 0.93 - 3.5 * (0.93 * 0.07 / ablations) ** 0.5
    failures += [
        f"{cell}: errors {each.errors:.4f} above {most:.4f}" for cell, each in outcomes.items() if each.errors > most
    ]
    failures += [
        f"{cell}: coverage {each.coverage:.4f} below {least:.4f}"
        for cell, each in outcomes.items()
        if each.coverage < least
    ]
    return failures


HEAD = "| discordant | seed sd | seeds | pictures | variants | groups of 4 | errors | coverage | power, 2 points |"


def draw_row(cell: Cell, outcome: Outcome) -> str:
    facts = f"{cell.discordant:.0%} | {cell.seed_sd:.1%} | {cell.seeds} | {cell.pictures:,} | {cell.variants}"
    wide = " (wide)" if outcome.coverage > 0.97 else ""
    return (
        f"| {facts} | {'yes' if cell.grouped else 'no'} | {outcome.errors:.3f} | {outcome.coverage:.3f}{wide} "
        f"| {outcome.power:.2f} |"
    )


def draw(outcomes: dict[Cell, Outcome], failures: list[str], arguments: argparse.Namespace, cpu_s: float) -> list[str]:
    pooled = float(np.mean([each.errors for each in outcomes.values()]))
    coverages = [each.coverage for each in outcomes.values()]
    return [
        f"# Ablations without a true difference, {datetime.date.today()}",
        "",
        f"`{shlex.join(['python', *sys.argv])}`; {platform.machine()}, {cpu_s:,.0f} CPU-seconds, {arguments.method}.",
        "",
        f"{len(outcomes)} cells of {arguments.ablations:,} ablations: a claim after Holm in {pooled:.4f}, pooled "
        f"(at most {ALPHA}); single 95 % intervals held in {min(coverages):.3f} to {max(coverages):.3f}. "
        + ("Met." if not failures else f"Missed: {len(failures)} bounds."),
        "",
        *[f"- {failure}" for failure in failures],
        HEAD,
        "|" + "---|" * 9,
        *[draw_row(cell, outcome) for cell, outcome in outcomes.items()],
    ]


if __name__ == "__main__":
    sys.exit(main())
