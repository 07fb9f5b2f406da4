"""Pictures for the benches, made on the spot from photographs that installed packages bring along."""

from __future__ import annotations

import argparse
import io
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter

CLASSES = 10
_PHOTOGRAPHS = {
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
    "skimage": [
        *(f"data/{name}.png" for name in ("astronaut", "chelsea", "coffee", "ihc", "motorcycle_left")),
        *(f"data/{name}.jpg" for name in ("hubble_deep_field", "retina", "rocket")),
    ],
}


def make_photographs(folder: Path, count: int, seed: int = 0) -> Path:
    """Write `count` JPEGs of 500x375 and about 60 KB into class folders `folder/c0` to `c9`; return the folder.

    Random crops of ten photographs, mirrored, with other colours and some noise. The same arguments give the same
    bytes with the same Pillow. A folder that is complete is left as it is.
    """
    return _make(folder, count, partial(_photograph, seed))


def make_xrays(folder: Path, count: int, seed: int = 0) -> Path:
    """Write `count` gray JPEGs of about 1000x850 and 150 KB that look like chest X-rays to a decoder; as above."""
    return _make(folder, count, partial(_xray, seed))


def _make(folder: Path, count: int, draw: partial[bytes]) -> Path:
    if len(list(folder.glob("c*/*.jpg"))) == count:
        return folder
    for number in range(CLASSES):
        (folder / f"c{number}").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(_write, folder, draw), range(count), chunksize=50))
    return folder


def _write(folder: Path, draw: partial[bytes], number: int) -> None:
    (folder / f"c{number % CLASSES}" / f"picture_{number:06d}.jpg").write_bytes(draw(number))


@cache
def _photographs() -> list[Image.Image]:
    images = []
    for package, names in _PHOTOGRAPHS.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        images += [Image.open(Path(spec.origin).parent / name).convert("RGB") for name in names]
    return images


def _photograph(seed: int, number: int) -> bytes:
    rng = np.random.default_rng((seed, number))
    photograph = _photographs()[rng.integers(len(_photographs()))]
    width = min(photograph.width, photograph.height * 4 / 3) * rng.uniform(0.5, 1)
    height = width * 3 / 4
    left, top = rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - height)
    image = photograph.resize((500, 375), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    for kind in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = kind(image).enhance(rng.uniform(0.7, 1.3))
    noisy = np.asarray(image, dtype=np.float32) + rng.normal(0, rng.uniform(2, 9), (375, 500, 3))
    return _encode(noisy, int(rng.integers(86, 96)))


def _xray(seed: int, number: int) -> bytes:
    rng = np.random.default_rng((seed, number, 1))
    height, width = int(rng.integers(700, 1000)), int(rng.integers(850, 1150))
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    lungs = np.exp(-(((np.abs(columns) - 0.4) / 0.28) ** 2) - (rows / 0.7) ** 2)
    ribs = 0.12 * np.sin(rows * rng.uniform(20, 30) + 4 * columns**2) * lungs
    tissue = gaussian_filter(rng.normal(0, 1, (height, width)).astype(np.float32), rng.uniform(6, 20))
    picture = 170 - 120 * lungs + 255 * ribs + tissue / tissue.std() * 12
    return _encode(picture + rng.normal(0, rng.uniform(2, 5), (height, width)), int(rng.integers(85, 93)))


def _encode(values: npt.NDArray[np.floating], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photographs", type=int, default=4000)
    parser.add_argument("--xrays", type=int, default=500)
    arguments = parser.parse_args()
    for make, count in ((make_photographs, arguments.photographs), (make_xrays, arguments.xrays)):
        folder = make(arguments.folder / make.__name__.removeprefix("make_"), count)
        sizes = [path.stat().st_size for path in folder.glob("c*/*.jpg")] or [0]
        print(f"{folder}: {count:,} pictures, mean {np.mean(sizes) / 1e3:.1f} KB, sd {np.std(sizes) / 1e3:.1f} KB")


if __name__ == "__main__":
    main()
