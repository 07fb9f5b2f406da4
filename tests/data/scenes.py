"""Pictures that are told apart as photographs are: by coarse and by fine structure."""

from __future__ import annotations

import numpy as np
from PIL import Image


def draw(seed: int, side: int = 64) -> Image.Image:
    """Return a picture of coarse and fine structure; two seeds give two scenes."""
    rng = np.random.default_rng((seed, 1))
    pixels = np.zeros((side, side, 3))
    for cells, strength in ((3, 60), (8, 40), (24, 20)):
        layer = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += (np.asarray(layer.resize((side, side), Image.Resampling.BICUBIC)) / 127.5 - 1) * strength
    return Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
