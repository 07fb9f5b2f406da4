"""How alike different pictures are, and how alike copies: `python tests/bench/near_duplicates.py --out FILE.md`.

The pictures are the solar cells of ELPV, which all look alike, and natural photographs. `MIN_CORRELATION` and the
smallest side of `shards/audit/duplicates.py` come from here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from duplicates import COPIES, PLANTED_SIDE, cut, describe_machine, load_photographs
from PIL import Image

from shards.audit.duplicates import MIN_CORRELATION, correlate, find_duplicates
from shards.audit.facts import compute_phash, make_thumbnail
from shards.audit.findings import number_clusters
from trainer.recipes.data.elpv import read_cells

TURNS = {
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "upside down": Image.Transpose.ROTATE_180,
    "turned": Image.Transpose.ROTATE_90,
}


class Copy(NamedTuple):
    """A copy of the picture `original`."""

    original: int
    kind: str
    thumbnail: npt.NDArray[np.uint8]


def shrink(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return uint8[1024]."""
    return make_thumbnail(np.asarray(image)).reshape(-1)


def copy_some(images: Sequence[Image.Image], rng: np.random.Generator, count: int) -> list[Copy]:
    """Return copies of `count` pictures, of every kind; mirrored and turned ones are of kinds that are no copies."""
    kinds = COPIES | {name: lambda image, turn=turn: image.transpose(turn) for name, turn in TURNS.items()}
    rows = rng.choice(len(images), count, replace=False).tolist()
    return [Copy(row, name, shrink(make(images[row]))) for row in rows for name, make in kinds.items()]


def find_most_alike(thumbnails: npt.NDArray[np.uint8], most: int = 5) -> list[float]:
    """Return the largest correlations among all pairs of different pictures, every pair compared."""
    top = np.empty(0, np.float32)
    for row in range(1, len(thumbnails)):
        alike = correlate(np.repeat(thumbnails[row : row + 1], row, axis=0), thumbnails[:row])
        top = np.sort(np.concatenate([top, alike]))[-most:]
    return top[::-1].tolist()


def search(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Return the cluster of each picture as the audit finds it, by thumbnails alone."""
    phashes = np.array([compute_phash(row.reshape(32, 32)) for row in thumbnails], dtype=np.uint64)
    sides = np.full(len(thumbnails), 300)
    pairs = find_duplicates([str(row) for row in range(len(thumbnails))], phashes, thumbnails, sides, sides)
    return number_clusters(pairs, len(thumbnails))


def describe(name: str, images: Sequence[Image.Image], count: int, rng: np.random.Generator) -> list[str]:
    """Return the lines of one set of pictures."""
    originals = np.stack([shrink(image) for image in images])
    copies = copy_some(images, rng, count)
    clusters = search(np.concatenate([originals, [copy.thumbnail for copy in copies]]))
    numbers = np.arange(len(copies)) + len(images)
    lines = [
        f"## {name}: {len(images):,} different pictures, copies of {count}",
        "",
        f"- pairs found among the different pictures alone: {int((search(originals) >= 0).sum())}",
        f"- most alike of those: {', '.join(f'{value:.5f}' for value in find_most_alike(originals))}",
        "",
        "| copy | smallest correlation | 1 % quantile | median | found |",
        "|-|-|-|-|-|",
    ]
    for kind in [*COPIES, *TURNS]:
        mine = [place for place, copy in enumerate(copies) if copy.kind == kind]
        rows = [copies[place].original for place in mine]
        alike = correlate(originals[rows], np.stack([copies[place].thumbnail for place in mine]))
        found = (clusters[rows] == clusters[numbers[mine]]) & (clusters[rows] >= 0)
        low, first, middle = np.quantile(alike, [0, 0.01, 0.5])
        lines.append(f"| {kind} | {low:.5f} | {first:.5f} | {middle:.5f} | {found.mean():.1%} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--copies", type=int, default=300, help="pictures of each set that are copied")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    cells = [Image.open(cell.path).convert("RGB") for cell in read_cells()]
    photographs = load_photographs()
    natural = [cut(photographs, rng, PLANTED_SIDE) for _ in range(2000)]
    lines = [
        "# How alike different pictures are, and how alike copies",
        "",
        f"Date: {datetime.now(UTC):%Y-%m-%d}. Machine: {describe_machine()}.",
        f"Command: `python {' '.join(sys.argv)}`.",
        f"Threshold in use: correlation of at least {MIN_CORRELATION}.",
        "",
        *describe("ELPV", cells, arguments.copies, rng),
        *describe("photographs", natural, arguments.copies, rng),
        "Mirrored and turned pictures are not meant to be found. A photograph is two random parts of the photographs",
        f"in scikit-image's wheel, blended, {PLANTED_SIDE} pixels on a side.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
