"""Cost of the search for equal pictures, and what it finds: `python tests/bench/duplicates.py --out FILE.md`.

Each scene runs in a process of its own, its thumbnails on disk as the audit keeps them. Making the pictures is not
counted.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image, ImageEnhance

from shards.audit.duplicates import find_duplicates
from shards.audit.facts import THUMBNAIL_BYTES, compute_phash, make_thumbnail
from shards.audit.findings import number_clusters

SIDE = 96
PLANTED_SIDE = 320
"""Pictures that get a copy are larger: how far JPEG changes a thumbnail depends on the pixels below each of its own."""
PLANTED_SHARE = 0.01
COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 50": lambda image: compress(image, 50),
    "JPEG quality 75": lambda image: compress(image, 75),
    "half size": lambda image: resize(image, 0.5),
    "double size": lambda image: resize(image, 2),
    "10 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "10 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "10 % more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.1),
    "10 % less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.9),
}


class Scene(NamedTuple):
    """Pictures to search. truth: (original, copy, kind) of planted copies; thumbnails: a file of uint8."""

    hashes: list[str]
    phashes: npt.NDArray[np.uint64]
    thumbnails: Path
    truth: list[tuple[int, int, str]]


def compress(image: Image.Image, quality: int) -> Image.Image:
    """Return the picture as JPEG makes it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def resize(image: Image.Image, factor: float) -> Image.Image:
    """Return the picture in another size."""
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def load_photographs() -> list[npt.NDArray[np.uint8]]:
    """Return the photographs of scikit-image's wheel as uint8[H, W, 3]."""
    folder = Path(skimage.data.__file__).parent
    names = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "camera.png", "coins.png"]
    names += ["grass.png", "gravel.png", "brick.png", "hubble_deep_field.jpg", "motorcycle_left.png", "moon.png"]
    return [np.asarray(Image.open(folder / name).convert("RGB")) for name in names]


def cut(photographs: list[npt.NDArray[np.uint8]], rng: np.random.Generator, size: int = SIDE) -> Image.Image:
    """Return a picture of `size` pixels: two random parts, flipped at random and blended, so that no two are alike."""
    parts = []
    for number in rng.integers(0, len(photographs), 2):
        photograph = photographs[number]
        side = int(rng.integers(SIDE, min(photograph.shape[:2])))
        y, x = (int(rng.integers(0, length - side + 1)) for length in photograph.shape[:2])
        part = Image.fromarray(photograph[y : y + side, x : x + side]).resize((size, size), Image.Resampling.BILINEAR)
        parts.append(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part)
    return Image.blend(parts[0], parts[1], float(rng.uniform(0.2, 0.5)))


def make_photographs(count: int, rng: np.random.Generator, file: Path) -> Scene:
    """Return `count` different photographs, some of them followed by a copy."""
    photographs = load_photographs()
    kinds = list(COPIES)
    images: list[npt.NDArray[np.uint8]] = []
    truth = []
    while len(images) < count:
        planted = rng.random() < PLANTED_SHARE and len(images) + 1 < count
        image = cut(photographs, rng, PLANTED_SIDE if planted else SIDE)
        images.append(make_thumbnail(np.asarray(image)))
        if planted:
            kind = kinds[len(truth) % len(kinds)]
            truth.append((len(images) - 1, len(images), kind))
            images.append(make_thumbnail(np.asarray(COPIES[kind](image))))
    return _scene(np.stack(images), file, truth)


def make_alike(count: int, rng: np.random.Generator, file: Path) -> Scene:
    """Return pictures that all look alike, as X-rays do: one common picture and a tenth of a different one each."""
    photographs = load_photographs()
    common = cut(photographs, rng)
    images = [make_thumbnail(np.asarray(Image.blend(common, cut(photographs, rng), 0.15))) for _ in range(count)]
    return _scene(np.stack(images), file, [])


def make_equal(count: int, rng: np.random.Generator, file: Path) -> Scene:
    """Return one picture `count` times."""
    thumbnail = make_thumbnail(np.asarray(cut(load_photographs(), rng)))
    scene = _scene(np.repeat(thumbnail[None], count, axis=0), file, [])
    return scene._replace(hashes=["0"] * count)


def make_noisy(count: int, rng: np.random.Generator, file: Path) -> Scene:
    """Return one picture `count` times with noise, so that no two have equal pixels: one large cluster."""
    thumbnail = make_thumbnail(np.asarray(cut(load_photographs(), rng))).astype(np.int16)
    noise = rng.integers(-1, 2, (count, *thumbnail.shape), dtype=np.int8)
    return _scene((thumbnail + noise).clip(0, 255).astype(np.uint8), file, [])


def make_flat(count: int, rng: np.random.Generator, file: Path) -> Scene:
    """Return blank pictures with a little noise."""
    noise = rng.integers(-2, 3, (count, 32, 32), dtype=np.int8)
    return _scene((np.int16(128) + noise).astype(np.uint8), file, [])


def _scene(thumbnails: npt.NDArray[np.uint8], file: Path, truth: list[tuple[int, int, str]]) -> Scene:
    phashes = np.array([compute_phash(thumbnail) for thumbnail in thumbnails], dtype=np.uint64)
    thumbnails.tofile(file)
    return Scene([f"{row:032x}" for row in range(len(thumbnails))], phashes, file, truth)


SCENES = {
    "photographs": make_photographs,
    "alike": make_alike,
    "equal": make_equal,
    "noisy": make_noisy,
    "flat": make_flat,
}


def measure(scene: Scene) -> dict[str, Any]:
    """Return seconds, CPU seconds, memory and what was found; memory is that of this process alone, in MB."""
    count = len(scene.hashes)
    thumbnails = np.memmap(scene.thumbnails, np.uint8, "r", shape=(count, THUMBNAIL_BYTES))
    sides = np.full(count, SIDE)
    before = _anonymous_mb()
    with _Watch() as watch:
        started, cpu = time.perf_counter(), time.process_time()
        pairs = find_duplicates(scene.hashes, scene.phashes, thumbnails, sides, sides)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    clusters = number_clusters(pairs, count)
    planted = {(original, copy) for original, copy, _ in scene.truth}
    joined = {kind: [0, 0] for _, _, kind in scene.truth}
    for original, copy, kind in scene.truth:
        joined[kind][0] += int(clusters[original] == clusters[copy] >= 0)
        joined[kind][1] += 1
    found = set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    return {
        "pictures": count,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "grown_mb": watch.peak - before,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "pairs": len(pairs),
        "other_pairs": len(found - planted),
        "joined": joined,
    }


class _Watch:
    """Samples this process's private memory; a mapped file's pages are the kernel's to drop, so they do not count."""

    def __enter__(self) -> _Watch:
        self.peak = _anonymous_mb()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, _anonymous_mb())


def _anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024


def _run(name: str, count: int, seed: int, folder: str) -> dict[str, Any]:
    """Make a scene in one process and search it in another, which has not grown by making it."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        scene = pool.apply(SCENES[name], (count, np.random.default_rng(seed), Path(folder, name)))
    with context.Pool(1) as pool:
        result: dict[str, Any] = pool.apply(measure, (scene,))
    return result


def describe_machine() -> str:
    """Return processor, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if "model name" in line), "unknown processor")
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, NumPy {np.__version__}"


def report(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Search for equal pictures",
        "",
        f"Date: {datetime.now(UTC):%Y-%m-%d}. Machine: {describe_machine()}.",
        f"Command: `python {' '.join(sys.argv)}`.",
        "",
        "One process, other work on the machine at the same time, so read the CPU seconds. Memory: growth of private",
        "memory during the search; thumbnails are a mapped file, whose pages count in the peak RSS only.",
        "",
        "| scene | pictures | seconds | CPU seconds | grown MB | bytes a picture | peak RSS MB | pairs | not planted |",
        "|-|-|-|-|-|-|-|-|-|",
    ]
    for name, found in results.items():
        bytes_each = found["grown_mb"] * 2**20 / found["pictures"]
        lines.append(
            f"| {name} | {found['pictures']:,} | {found['seconds']:.1f} | {found['cpu_seconds']:.1f} | "
            f"{found['grown_mb']:.0f} | {bytes_each:.0f} | {found['peak_rss_mb']:.0f} | {found['pairs']:,} | "
            f"{found['other_pairs']:,} |"
        )
    lines += ["", *(f"- {name}: {SCENES[name].__doc__}" for name in results)]
    for found in results.values():
        if found["joined"]:
            lines += ["", "| copy | found | planted |", "|-|-|-|"]
            lines += [f"| {kind} | {hit} | {planted} |" for kind, (hit, planted) in found["joined"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", default=",".join(SCENES), help="some of them, by commas")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {name: _run(name, arguments.pictures, arguments.seed, folder) for name in arguments.scenes.split(",")}
    text = report(results)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
