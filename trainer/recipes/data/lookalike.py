"""Make a set that looks like a recipe's real data: same folders, names, sizes and modes; nothing is downloaded.

`python -m trainer.recipes.data.lookalike NAME OUT` writes a folder, or a zip if OUT ends in .zip. The classes differ
in what the real task is about, never in plain brightness or colour. The same arguments give the same pixels.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from pydantic import PositiveInt, model_validator

from shards.cli.arguments import read_count
from shards.cli.calling import CommandParser
from shards.cli.ending import run_command
from shards.cli.options import Options
from shards.errors import UsageError
from shards.files.atomic import replace_folder, write_atomically
from trainer.recipes.data.digits import DIGITS, write_real_digits
from trainer.recipes.data.layout import LookAlike, Planned, plan_pictures
from trainer.recipes.data.photographs import ANTS_BEES, IMAGENET, POSTERS
from trainer.recipes.data.scans import CHEST_XRAY, COVID_CT, ELPV

LOOK_ALIKES: dict[str, LookAlike] = {
    "ants_bees": ANTS_BEES,
    "chest_xray": CHEST_XRAY,
    "covid_ct": COVID_CT,
    "digits": DIGITS,
    "elpv": ELPV,
    "imagenet": IMAGENET,
    "posters": POSTERS,
}
REAL_DIGITS = "digits_sklearn"
NAMES = sorted([*LOOK_ALIKES, REAL_DIGITS])
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_STAMP = (1980, 1, 1, 0, 0, 0)
"""Fixed time stamp of files in a zip, so that the same pictures give the same bytes."""


def make_pictures(
    look: LookAlike, samples: int, seed: int, side: int, shuffle_labels: bool
) -> Iterator[tuple[str, bytes]]:
    """Yield the path and encoded bytes of every picture, in the planned order."""
    for planned in plan_pictures(look, samples, seed, shuffle_labels):
        yield planned.path, _encode(_draw(look, planned, seed, side), Path(planned.path).suffix.lower())


def write_folder(pictures: Iterator[tuple[str, bytes]], out: Path) -> int:
    """Write the pictures below `out`, published by one rename; return their number."""
    count = 0
    with replace_folder(out, replaces=False) as folder:
        for path, data in pictures:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
            count += 1
    return count


def write_zip(pictures: Iterator[tuple[str, bytes]], out: Path) -> int:
    """Write the pictures into one zip, below a folder with the zip's name, like downloads; return their number."""
    count = 0
    with write_atomically(out) as file, zipfile.ZipFile(file, "w") as archive:
        for path, data in pictures:
            archive.writestr(zipfile.ZipInfo(f"{out.stem}/{path}", _STAMP), data)
            count += 1
    return count


def _draw(look: LookAlike, planned: Planned, seed: int, side: int) -> Image.Image:
    return look.draw(planned.drawn, side, np.random.default_rng((seed, planned.number)))


def _encode(image: Image.Image, ending: str) -> bytes:
    file = io.BytesIO()
    image.save(file, _FORMATS[ending], **({"quality": 90} if _FORMATS[ending] == "JPEG" else {}))
    return file.getvalue()


class LookAlikeOptions(Options):
    """The set to imitate, and the number and size of its pictures.

    Raises:
        UsageError: An unknown name, or an option that real digits do not support.
    """

    name: str
    """The recipe whose data is imitated, one of NAMES."""
    out: Path
    """Output folder, or a file that ends in .zip."""
    samples: PositiveInt | None = None
    """Total number of pictures; None: about as many as a run needs."""
    seed: int = 0
    """Seed of the random pictures."""
    size: PositiveInt | None = None
    """Longer side, pixels; None: as in the real set."""
    shuffle_labels: bool = False
    """Shuffle the labels, so that a correct model stays at chance."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name not in NAMES:
            raise UsageError(f"no look-alike '{self.name}'; there are {', '.join(NAMES)}")
        return self


def make_look_alike(options: LookAlikeOptions) -> int:
    """Write the pictures, and return how many there are.

    Raises:
        UsageError: The output exists, or the set does not support an option.
    """
    out, seed = options.out, options.seed
    if out.exists():
        raise UsageError(f"{out} exists and nothing was written; choose another path, or delete it")
    if options.name == REAL_DIGITS:
        return _make_real_digits(options)
    look = LOOK_ALIKES[options.name]
    samples, side = options.samples or look.samples, options.size or look.side
    pictures = make_pictures(look, samples, seed, side, options.shuffle_labels)
    return write_zip(pictures, out) if out.suffix == ".zip" else write_folder(pictures, out)


def _make_real_digits(options: LookAlikeOptions) -> int:
    if options.size is not None or options.out.suffix == ".zip":
        raise UsageError(f"{REAL_DIGITS} are 8x8 pixels and written as a folder; omit --size and name a folder")
    labels = np.random.default_rng(options.seed) if options.shuffle_labels else None
    with replace_folder(options.out, replaces=False) as folder:
        return write_real_digits(folder, options.samples, labels)


def main(argv: list[str]) -> int:
    options = LookAlikeOptions(**vars(_parser().parse_args(argv)))
    print(f"{options.out}: {make_look_alike(options):,} pictures")
    return 0


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = __doc__.partition("\n")
    parser = CommandParser(
        prog="python -m trainer.recipes.data.lookalike",
        description=summary,
        epilog=rest.strip(),
        argument_default=argparse.SUPPRESS,
    )
    seed = LookAlikeOptions.default("seed")
    parser.add_argument("name", choices=NAMES, help="the recipe whose data is imitated")
    parser.add_argument("out", help="output folder, or a file that ends in .zip")
    parser.add_argument(
        "--samples", type=read_count, help="total number of pictures (default: about as many as a run needs)"
    )
    parser.add_argument("--seed", type=int, help=f"seed of the random pictures (default: {seed})")
    parser.add_argument("--size", type=read_count, metavar="PIXELS", help="longer side (default: as in the real set)")
    parser.add_argument(
        "--shuffle-labels", action="store_true", help="shuffle the labels, so that a correct model stays at chance"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
