"""A fixed set of foreign pictures by kind, to count how many of them an out-of-distribution score flags.

Noise and flat pictures are generated; photographs are windows of the two in scikit-learn (a temple, a flower);
inverted, rotated and dark ones are the model's own pictures, changed. Nothing is downloaded, and the set is the same on
every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from shards.order.plan import sequential_refs
from shards.pictures.decode import decode
from shards.pictures.shrink import shrink_pixels
from trainer.contract.bundle import Bundle
from trainer.contract.preprocess import apply_geometry

Pixels = npt.NDArray[np.uint8]
"""uint8[H, W, 3], as returned by the decoder."""

EACH: Final = 30
"""Number of pictures per kind."""
_SIDE: Final = 300
_SEED: Final = 0
_DARK: Final = 0.3
"""Brightness factor of dark pictures."""


def make_foreign(own: Sequence[Pixels]) -> dict[str, list[Pixels]]:
    """Return the pictures by kind: EACH per kind, or for kinds made from `own`, as many as there are."""
    changes: dict[str, Callable[[Pixels], Pixels]] = {
        "inverted": lambda pixels: 255 - pixels,
        "turned": lambda pixels: np.ascontiguousarray(np.rot90(pixels)),
        "dark": lambda pixels: (pixels * _DARK).astype(np.uint8),
    }
    made = {"noise": list(_make_noise()), "flat": list(_make_flat()), "photographs": list(_cut_photographs())}
    return made | {kind: [change(pixels) for pixels in own[:EACH]] for kind, change in changes.items()}


def _make_noise() -> Iterable[Pixels]:
    """Yield noise: independent colours, independent grays, and grays around the middle."""
    rng = np.random.default_rng(_SEED)
    for number in range(EACH):
        if number % 3 == 0:
            yield rng.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
            continue
        gray = rng.uniform(0, 255, (_SIDE, _SIDE)) if number % 3 == 1 else rng.normal(128, 40, (_SIDE, _SIDE))
        yield np.repeat(gray.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _make_flat() -> Iterable[Pixels]:
    """Yield pictures of one value each: grays from black to white, then colours."""
    rng = np.random.default_rng(_SEED)
    grays = [(value, value, value) for value in np.linspace(0, 255, EACH // 2).round().astype(int).tolist()]
    colours = rng.integers(0, 256, (EACH - len(grays), 3)).tolist()
    for colour in [*grays, *colours]:
        yield np.full((_SIDE, _SIDE, 3), colour, dtype=np.uint8)


def _cut_photographs() -> Iterable[Pixels]:
    """Yield windows of scikit-learn's two photographs at three scales, half of each in gray."""
    from sklearn.datasets import load_sample_images  # late: it takes a second

    rng = np.random.default_rng(_SEED)
    photographs = [np.asarray(image, dtype=np.uint8) for image in load_sample_images().images]
    for number in range(EACH):
        photograph = photographs[number % len(photographs)]
        side = (128, 256, 400)[number // 2 % 3]
        top, left = (int(rng.integers(0, length - side + 1)) for length in photograph.shape[:2])
        window = np.ascontiguousarray(photograph[top : top + side, left : left + side])
        yield window if number < EACH // 2 else np.repeat(window.mean(axis=2).astype(np.uint8)[:, :, None], 3, axis=2)


def count_flagged(bundle: Bundle, split: Split) -> dict[str, tuple[int, int]]:
    """Return the number of flagged and of all foreign pictures, by kind.

    split: Its first pictures are used for the inverted, rotated and dark ones.
    """
    spec, rule = bundle.page.preprocess, bundle.page.decision.ood
    assert rule is not None
    refs = sequential_refs(split.counts, 0, min(EACH, split.num_samples))
    with SampleReader(split) as reader:
        own = [
            shrink_pixels(decode(reader.read_one(*place).data, spec.decode), spec.max_side)
            for place in zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)
        ]
    counts = {}
    for kind, pictures in make_foreign(own).items():
        scores = bundle.compute_batch(torch.stack([apply_geometry(pixels, spec) for pixels in pictures]))[1]
        assert scores is not None  # set because there is a rule
        counts[kind] = int((scores > rule.threshold).sum()), len(pictures)
    return counts
