"""Write the solar cells of the ELPV data set as an image folder.

`python -m trainer.recipes.data.elpv OUT` writes `OUT/{train,val,test}/{NORMAL,DEFECTIVE}/*.png` and
`OUT/samples.csv` (path, weight). The pictures come from the package `elpv-dataset`; nothing is downloaded.

Protocol: a cell is DEFECTIVE if its defect probability p is above 0; p is its sample weight if 0 < p < 1. The split is
75 % train and 25 % test, stratified by p and by cell type (mono, poly); `val` is taken from the 75 %, stratified in the
same way. The data set has no module ids, so cells of one module may be in several splits.

Source: Deitsch et al. 2019, "Automatic classification of defective photovoltaic module cells in
electroluminescence images", Solar Energy 185, arXiv 1807.02894.
"""

from __future__ import annotations

import csv
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.cli.arguments import read_at_least
from shards.cli.calling import CommandParser
from shards.cli.ending import run_command
from shards.errors import UsageError
from shards.files.atomic import replace_folder

TEST_SHARE = 0.25
VAL_SHARE_OF_REST = 0.15
SEED = 0


@dataclass(frozen=True)
class Cell:
    """One photographed cell: file, defect probability in {0, 1/3, 2/3, 1}, and `mono` or `poly`."""

    path: Path
    probability: float
    kind: str

    @property
    def label(self) -> str:
        return "DEFECTIVE" if self.probability > 0 else "NORMAL"

    @property
    def weight(self) -> float:
        return self.probability if 0 < self.probability < 1 else 1.0


def read_cells() -> list[Cell]:
    """Return the 2,624 cells of the installed package, in the order of its `labels.csv`.

    Raises:
        UsageError: The optional package is not installed.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise UsageError(
            "the package elpv-dataset is not installed, so there are no demo pictures; "
            "run `make install`, or `uv pip install -c constraints.txt elpv-dataset`"
        )
    folder = Path(spec.origin).parent / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line.strip()]
    return [Cell(folder / path, float(probability), kind) for path, probability, kind in rows]


def choose_stratified(strata: list[str], share: float, rng: np.random.Generator) -> set[int]:
    """Return round(share * n) positions, from each stratum in proportion, as nearly as whole numbers allow.

    >>> sorted(choose_stratified(["a"] * 4 + ["b"] * 8, 0.25, np.random.default_rng(0))).__len__()
    3
    """
    names = sorted(set(strata))
    members = [np.flatnonzero(np.array(strata) == name) for name in names]
    exact = np.array([share * len(m) for m in members])
    counts = np.floor(exact).astype(int)
    missing = round(share * len(strata)) - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1  # largest remainders first
    return {int(i) for m, n in zip(members, counts, strict=True) for i in rng.permutation(m)[:n]}


def split_cells(cells: list[Cell], seed: int = SEED) -> list[str]:
    """Return `train`, `val` or `test` for each cell; the test split does not depend on the validation share."""
    rng = np.random.default_rng(seed)
    strata = [f"{cell.probability:.3f} {cell.kind}" for cell in cells]
    test = choose_stratified(strata, TEST_SHARE, rng)
    rest = [i for i in range(len(cells)) if i not in test]
    val = {rest[i] for i in choose_stratified([strata[i] for i in rest], VAL_SHARE_OF_REST, rng)}
    return ["test" if i in test else "val" if i in val else "train" for i in range(len(cells))]


def choose_cells(seed: int | None) -> tuple[list[Cell], list[str]]:
    """Return cells and their splits: with a seed another split of what is not in the demo's test split."""
    cells = read_cells()
    splits = split_cells(cells)
    if seed is None:
        return cells, splits
    rest = [cell for cell, split in zip(cells, splits, strict=True) if split != "test"]
    return rest, split_cells(rest, seed)


def lay_out(out: Path, seed: int | None = None) -> dict[str, int]:
    """Write the image folder, published by one rename; return the number of cells of each split."""
    cells, splits = choose_cells(seed)
    with replace_folder(out, replaces=False) as temporary:
        rows = []
        for cell, split in zip(cells, splits, strict=True):
            name = f"{split}/{cell.label}/{cell.path.name}"
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cell.path, temporary / name)
            rows.append((name, cell.weight))
        with open(temporary / "samples.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "weight"), *rows])
    return {name: splits.count(name) for name in ("train", "val", "test")}


def main(argv: list[str]) -> int:
    parser = CommandParser(prog="python -m trainer.recipes.data.elpv", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="output folder, for example data/elpv")
    parser.add_argument(
        "--seed",
        type=read_at_least(0),
        metavar="N",
        help="leave the demo's test split out, and split the other cells anew with this seed",
    )
    arguments = parser.parse_args(argv)
    out: Path = arguments.out
    if (out / "samples.csv").exists():
        print(f"{out} already exists")
        return 0
    if out.exists():
        raise UsageError(f"{out} exists but is not this data set (it has no samples.csv); choose another folder")
    print(f"{out}: " + ", ".join(f"{n:,} {name}" for name, n in lay_out(out, arguments.seed).items()))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
