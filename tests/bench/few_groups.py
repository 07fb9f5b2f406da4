"""How often 95 % intervals by whole groups hold the truth, by the number of groups: what the note on few groups says.

`PYTHONPATH=. python tests/bench/few_groups.py --out RESULT.md`. Answers are right with probability 0.8,
pictures of a group are alike by a correlation of 0.5; groups are of one size, or differ as those of patients do.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pack import describe_run

from trainer.evaluate.metrics.resampling import Units, bound_mean

GROUPS = (10, 20, 30, 40, 60, 80, 100, 150, 200, 300)
SIZES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "5 each": lambda _, groups: np.full(groups, 5),
    "1 to 30, most small": lambda rng, groups: np.minimum(rng.geometric(0.2, groups), 30),
}
TRUTH, ALIKE = 0.8, 0.5


def is_held(rng: np.random.Generator, sizes: np.ndarray) -> bool:
    """Draw answers, whether each is right, and return whether the interval of their mean holds the truth."""
    of = np.repeat(np.arange(len(sizes)), sizes)
    own, copies = rng.random(len(sizes)) < TRUTH, rng.random(len(of)) < math.sqrt(ALIKE)
    right = np.where(copies, own[of], rng.random(len(of)) < TRUTH)
    low, high = bound_mean(right, Units("group", of, len(sizes))) or (0.0, 1.0)
    return low <= TRUTH <= high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    error = math.sqrt(0.95 * 0.05 / arguments.simulations)
    lines = ["# Intervals of few groups", "", *describe_run(), ""]
    lines += [
        f"Share of {arguments.simulations:,} simulations whose interval holds the truth; standard error {error:.3f}.",
        "",
    ]
    lines += ["| groups | " + " | ".join(SIZES) + " |", "| --- | --- | --- |"]
    for groups in GROUPS:
        shares = []
        for draw in SIZES.values():
            rng = np.random.default_rng(groups)
            held = [is_held(rng, draw(rng, groups)) for _ in range(arguments.simulations)]
            shares.append(f"{np.mean(held):.3f}")
        lines.append(f"| {groups} | " + " | ".join(shares) + " |")
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
