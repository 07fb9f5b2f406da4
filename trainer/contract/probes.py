"""Probes: pictures that travel with a bundle, and the results they must give when it is loaded."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from shards.errors import DecodeError, ShardError
from shards.pictures.decoding import is_changed
from trainer.contract.preprocess import PreprocessSpec, prepare

logger = logging.getLogger(__name__)

TENSORS = "probes.safetensors"
NUM_PROBES = 8
SAME_BACK_END, OTHER_BACK_END = 1e-4, 2e-2  # largest logit difference, relative to the largest logit


def synthesise_pictures(seed: int = 0) -> list[bytes]:
    """Return 8 encoded synthetic pictures: coloured waves with noise, odd sizes, JPEG and PNG, gray and RGB."""
    rng = np.random.default_rng(seed)
    pictures: list[bytes] = []
    for number in range(NUM_PROBES):
        height, width = (int(side) for side in rng.integers(150, 400, 2))
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin(x / rng.uniform(5, 60) + y / rng.uniform(5, 60)) for _ in range(3)]
        pixels = 128 + 90 * np.stack(waves, axis=2) + rng.normal(0, 12, (height, width, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        file = io.BytesIO()
        (image.convert("L") if number % 4 >= 2 else image).save(file, "PNG" if number % 2 else "JPEG")
        pictures.append(file.getvalue())
    return pictures


def write_probes(folder: Path, pictures: list[bytes], images: Tensor, logits: Tensor) -> None:
    """Write encoded pictures, images uint8[N, C, S, S] after geometry, and logits float32[N, K]."""
    folder.mkdir(parents=True)
    for number, data in enumerate(pictures):
        (folder / f"{number:03d}.bin").write_bytes(data)
    save_file({"images": images.contiguous(), "logits": logits.contiguous()}, folder / TENSORS)


def read_probes(folder: Path) -> tuple[list[bytes], Tensor, Tensor]:
    """Return the pictures, images and logits that `write_probes` wrote."""
    tensors = load_file(folder / TENSORS)
    return [path.read_bytes() for path in sorted(folder.glob("*.bin"))], tensors["images"], tensors["logits"]


def check_images(pictures: list[bytes], expected: Tensor, spec: PreprocessSpec, decoding: int) -> None:
    """Raise if decoding or geometry no longer give the recorded pixels.

    A picture whose decoding has changed since the bundle's version `decoding` is skipped with a warning.

    Raises:
        ShardError: A pixel differs by more than 1 of 255, or the mean by more than 0.01.
    """
    shape = list(spec.shape)
    if not pictures or len(pictures) != len(expected) or list(expected.shape[1:]) != shape:
        raise ShardError(
            f"the bundle has {len(pictures)} probes that become {shape}, but {len(expected)} are recorded with shape "
            f"{list(expected.shape[1:])}; restore the bundle from a backup"
        )
    kept = [number for number, data in enumerate(pictures) if not is_changed(data, decoding)]
    if len(kept) < len(pictures):
        left = len(pictures) - len(kept)
        are = "is such a picture and was" if left == 1 else "are such pictures and were"
        logger.warning("%d of the bundle's %d probes %s not compared", left, len(pictures), are)
    if not kept:
        return
    try:
        images = [prepare(pictures[number], spec) for number in kept]
    except DecodeError as err:
        raise ShardError(f"a probe of the bundle is damaged ({err}); restore the bundle from a backup") from err
    difference = (torch.stack(images).int() - expected[kept].int()).abs()
    if difference.max() > 1 or difference.float().mean() > 0.01:
        raise ShardError(
            f"preprocessing differs from training's: up to {int(difference.max())} of 255, "
            f"{difference.float().mean():.3f} on average; install the library versions that bundle.json names"
        )


def check_logits(actual: Tensor, expected: Tensor, tolerance: float = SAME_BACK_END) -> None:
    """Raise if the model no longer gives the recorded logits.

    Raises:
    ShardError: A logit differs by more than `tolerance` of the largest, or a label changes although the two best
        logits differ by more than that.
    """
    if actual.shape != expected.shape:
        raise ShardError(
            f"the model gives logits of {list(actual.shape)} for the probes, but {list(expected.shape)} are recorded; "
            "restore the bundle from a backup"
        )
    scale = max(float(expected.abs().max()), 1e-6)
    worst = float((actual - expected).abs().max()) / scale
    best_two = expected.topk(2, dim=1).values
    clear = (best_two[:, 0] - best_two[:, 1]) > tolerance * scale
    flipped = bool((clear & (actual.argmax(1) != expected.argmax(1))).any())
    if not worst <= tolerance or flipped:
        raise ShardError(
            f"the model's logits differ from training's by {worst:.1e} of the largest (limit {tolerance:g}); "
            "weights or libraries are not those of the bundle"
        )
