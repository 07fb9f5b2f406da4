"""Geometry of training: bytes of a sample -> uint8[C, S, S], by a decoder that knows what training may assume.

Evaluation and serving have `trainer.contract.preprocess` and `shards.decode`. Here a JPEG that was audited when it was
packed goes through simplejpeg: the same libjpeg-turbo, so the same pixels, for less CPU, and at a part of its
resolution where that is asked for. All else, and what simplejpeg finds odd, goes through `shards.decode` here too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from shards.decode import decode
from shards.read import Sample
from trainer.augment.seeding import CROP, SampleKey, make_numpy_rng
from trainer.contract.preprocess import PreprocessSpec, fit
from trainer.feed.meter import Meter
from trainer.feed.resize import resize
from trainer.options.augment import AugmentOptions

_JPEG = b"\xff\xd8\xff"
_TRIES = 10
_SCALES = (8, 4, 2)
"""Parts of the resolution at which libjpeg-turbo decodes for less than the whole."""


@dataclass(frozen=True)
class Box:
    """A part of a picture, pixels."""

    top: int
    left: int
    height: int
    width: int

    def snap(self, scale: int) -> Box:
        """Return the box of whole pixels in a picture `scale` times smaller; it covers what this one covers."""
        top, left = self.top // scale, self.left // scale
        bottom, right = -(-(self.top + self.height) // scale), -(-(self.left + self.width) // scale)
        return Box(top, left, bottom - top, right - left)


@dataclass(frozen=True)
class TrainGeometry:
    """What a training picture is before random operations: evaluation's geometry, or a random part of the picture.

    fast: decode large JPEGs at half, a quarter or an eighth of their resolution where the part is that much larger than
        the input. Against the whole: 0.5 of 255 on average, 3 at the 99th percentile (tests/bench/README.md).
    """

    spec: PreprocessSpec
    options: AugmentOptions
    fast: bool = False

    def load(self, sample: Sample, key: SampleKey, meter: Meter) -> Tensor:
        """Return uint8[C, S, S] of a sample.

        Raises:
            DecodeError: The bytes are not one complete picture.
        """
        if self.options.crop == "none":
            image = decode_sample(sample, self.spec)
            meter.count_side(max(image.shape[1:]))
            return fit(image.expand(3, -1, -1), self.spec)
        return self._load_part(sample, make_numpy_rng(key, CROP), meter)

    def _load_part(self, sample: Sample, rng: np.random.Generator, meter: Meter) -> Tensor:
        size = self.spec.size
        plain = sample.audited and sample.data.startswith(_JPEG)
        if self.fast and plain:
            height, width = simplejpeg.decode_jpeg_header(sample.data)[:2]
            box = draw_box(height, width, self.options, rng)
            scale = next((scale for scale in _SCALES if min(box.height, box.width) >= scale * size), 1)
            image = decode_sample(sample, self.spec, scale)
            box = box.snap(round(height / image.shape[1]))
        else:
            image = decode_sample(sample, self.spec)
            height, width = image.shape[1:]
            box = draw_box(height, width, self.options, rng)
        meter.count_side(max(height, width))
        part = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
        resized = resize(part, size, self.spec.interpolation)
        if self.spec.channels == 1:
            return transforms.rgb_to_grayscale(resized.expand(3, -1, -1))
        return resized.expand(3, -1, -1)


def decode_sample(sample: Sample, spec: PreprocessSpec, scale: int = 1) -> Tensor:
    """Return uint8[1 or 3, H, W], strided as [H, W, C]: the pixels of `shards.decode`, luminance once.

    scale: 2, 4 or 8 decodes an audited JPEG at that part of its resolution, sides rounded up, where that can be done.

    Raises:
        DecodeError: The bytes are not one complete picture.
    """
    if sample.audited and sample.data.startswith(_JPEG):
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(sample.data)
            kind = "GRAY" if colorspace == "Gray" else "RGB"
            least = {"min_height": -(-height // scale), "min_width": -(-width // scale)} if scale > 1 else {}
            return torch.from_numpy(simplejpeg.decode_jpeg(sample.data, kind, **least)).permute(2, 0, 1)
        except ValueError:  # anything that libjpeg warns of: our decoder decides
            pass
    return torch.from_numpy(decode(sample.data, spec.decode)).permute(2, 0, 1)


def draw_box(height: int, width: int, options: AugmentOptions, rng: np.random.Generator) -> Box:
    """Return a random part whose share of the area and whose shape lie within the options.

    Where ten draws do not fit, the largest part in the middle whose shape is allowed.

    Source: Szegedy et al. 2014, Going deeper with convolutions; torchvision's RandomResizedCrop.
    """
    (least, most), (narrowest, widest) = options.crop_scale, options.crop_ratio
    # Plain floats: a numpy operation on ten numbers costs more than ten of Python's.
    draws = iter(rng.random(4 * _TRIES).tolist())
    for share, shape, down, along in zip(draws, draws, draws, draws, strict=True):
        area = height * width * (least + (most - least) * share)
        ratio = narrowest * (widest / narrowest) ** shape
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = int(down * (height - box_height + 1)), int(along * (width - box_width + 1))
            return Box(top, left, box_height, box_width)
    shape = min(max(width / height, narrowest), widest)
    box_height = max(1, min(height, round(width / shape)))
    box_width = max(1, min(width, round(height * shape)))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
