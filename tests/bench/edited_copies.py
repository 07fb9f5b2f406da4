"""Edited copies that the audit finds, and its false alarms: `python tests/bench/edited_copies.py --out FILE.md`.

The pictures are the solar cells of ELPV, which all look alike, and natural photographs. A copy is added to its set for
each kind; without copies, every pair that is found is a false alarm.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from duplicates import PLANTED_SIDE, compress, cut, describe_machine, load_photographs
from near_duplicates import search, shrink
from PIL import Image, ImageEnhance, ImageOps

from shards.audit.blocks import find_blocks
from shards.audit.duplicates import drop_flat
from shards.audit.edited import find_edited, find_turned
from trainer.recipes.data.elpv import read_cells


def light(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def bend(gamma: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.point([round(255 * (value / 255) ** gamma) for value in range(256)] * 3)


def crop(left: float, top: float, right: float, bottom: float) -> Callable[[Image.Image], Image.Image]:
    """Return what takes these shares of the sides away."""

    def cut_off(image: Image.Image) -> Image.Image:
        width, height = image.size
        box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
        return image.crop(tuple(map(round, box)))

    return cut_off


def border(share: float, value: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: ImageOps.expand(image, round(image.width * share), (value,) * 3)


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 75": lambda image: compress(image, 75),
    "half size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "brightness x1.1": light(1.1),
    "brightness x1.3": light(1.3),
    "brightness x0.7": light(0.7),
    "gamma 0.4": bend(0.4),
    "gamma 2.2": bend(2.2),
    "mirrored": ImageOps.mirror,
    "upside down": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 270 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "mirrored and turned": lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    "1 % cropped off each side": crop(0.01, 0.01, 0.01, 0.01),
    "5 % cropped off each side": crop(0.05, 0.05, 0.05, 0.05),
    "10 % cropped off each side": crop(0.1, 0.1, 0.1, 0.1),
    "10 % cropped off the left": crop(0.1, 0, 0, 0),
    "border of 5 %, black": border(0.05, 0),
    "border of 5 %, white": border(0.05, 255),
    "mirrored, 5 % cropped, JPEG quality 75": lambda image: compress(
        crop(0.05, 0.05, 0.05, 0.05)(ImageOps.mirror(image)), 75
    ),
}


def with_contrast(thumbnails: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the thumbnails and the rows of those that are compared."""
    return thumbnails, drop_flat(thumbnails, np.arange(len(thumbnails)))


def describe(name: str, images: Sequence[Image.Image], count: int, rng: np.random.Generator) -> list[str]:
    """Return the lines of one set of pictures."""
    start = time.process_time()
    thumbnails = np.stack([shrink(image) for image in images])
    thumbing = time.process_time() - start
    start = time.process_time()
    blocks = [find_blocks(np.asarray(image)) for image in images]
    blocking = time.process_time() - start
    start = time.process_time()
    alarms = {*find_edited(blocks), *find_turned(*with_contrast(thumbnails))}
    searching = time.process_time() - start
    print(name, alarms, flush=True)
    rows = rng.choice(len(images), count, replace=False).tolist()
    lines = [
        f"## {name}: {len(images):,} different pictures, copies of {count}",
        "",
        f"- false alarms, pairs found among the different pictures alone: {len(alarms)}",
        f"- CPU-seconds: blocks {blocking:.1f}, search {searching:.1f} (thumbnails of the first pass {thumbing:.1f})",
        f"- blocks of a picture, median: {np.median([len(each.places) for each in blocks]):.0f}",
        "",
        "| copy | without the option | with it |",
        "|-|-|-|",
    ]
    for kind, make in KINDS.items():
        copies = [make(images[row]) for row in rows]
        copied = np.stack([shrink(copy) for copy in copies])
        pairs = {*find_edited([*blocks, *(find_blocks(np.asarray(copy)) for copy in copies)])}
        pairs |= find_turned(*with_contrast(np.concatenate([thumbnails, copied])))
        numbers = {(row, len(images) + place) for place, row in enumerate(rows)}
        clusters = search(np.concatenate([thumbnails, copied]))
        first = [clusters[left] == clusters[right] != -1 for left, right in sorted(numbers)]
        second = [each in pairs for each in sorted(numbers)]
        either = np.logical_or(first, second)
        lines.append(f"| {kind} | {np.mean(first):.1%} | {either.mean():.1%} |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--copies", type=int, default=100, help="pictures of each set that are copied")
    parser.add_argument("--photographs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    cells = [Image.open(cell.path).convert("RGB") for cell in read_cells()]
    photographs = load_photographs()
    natural = [cut(photographs, rng, PLANTED_SIDE) for _ in range(arguments.photographs)]
    lines = [
        "# Edited copies that the audit finds, with and without --edited-copies",
        "",
        f"Date: {datetime.now(UTC):%Y-%m-%d}. Machine: {describe_machine()}; the cores are shared with other work.",
        f"Command: `python {' '.join(sys.argv)}`.",
        "",
        *describe("ELPV", cells, arguments.copies, rng),
        *describe("photographs", natural, arguments.copies, rng),
        "The thresholds of shards/audit/edited.py were chosen on ELPV, so its false alarms are not those of a new set.",
        "A photograph is two random parts of the photographs in scikit-image's wheel, blended; two may share a part.",
    ]
    text = "\n".join(lines) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
