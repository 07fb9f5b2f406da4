"""Geometry of training: bytes of a sample -> uint8[C, S, S], by a decoder that knows what training may assume.

Evaluation and serving have `trainer.contract.preprocess` and `shards.decode`. Here a JPEG that was audited when it was
packed goes through simplejpeg: the same libjpeg-turbo, so the same pixels, for less CPU, and at a part of its
resolution where that is asked for. All else, and what simplejpeg finds odd, goes through `shards.decode` here too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import simplejpeg
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from shards.decode import decode
from shards.read import Sample
from trainer.augment.library import Change
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
    """What a training picture is before the changes that follow: evaluation's geometry, or a random part of it.

    fast: decode large JPEGs at half, a quarter or an eighth of their resolution where the part is that much larger than
        the input. Against the whole: 0.5 of 255 on average, 3 at the 99th percentile (tests/bench/README.md). Not where
        `before` changes the decoded picture.
    before: what changes the decoded picture.
    """

    spec: PreprocessSpec
    options: AugmentOptions
    fast: bool = False
    before: Change | None = None

    def load(self, sample: Sample, key: SampleKey, meter: Meter) -> Tensor:
        """Return uint8[C, S, S] of a sample, of any strides.

        Raises:
            DecodeError: The bytes are not one complete picture.
        """
        with meter.timing("decode"):
            if self.fast and self._crop == "random" and self.before is None and _is_plain(sample):
                return self._load_scaled(sample, key, meter)
            image = decode_sample(sample, self.spec)
            meter.count_side(max(image.shape[1:]))
            if self.before is None:
                return self.shape(image, key)
            image = self._as_input(image)
        with meter.timing("augment"):
            image = self.before(image, key)
        with meter.timing("decode"):
            return self._cut(image, key)

    def shape(self, image: Tensor, key: SampleKey) -> Tensor:
        """Return uint8[C, S, S] of a decoded picture uint8[1 or 3, H, W] that nothing changes before, on its device."""
        if self._crop == "random":  # a part is less to convert, and gray to resize
            return self._as_input(self._cut(image, key))
        return self._cut(self._as_input(image), key)

    def _cut(self, image: Tensor, key: SampleKey) -> Tensor:
        if self._crop == "none":
            return fit(image, self.spec)
        rng = make_numpy_rng(key, CROP)
        if self._crop == "padded":
            return self._crop_padded(image, rng)
        height, width = image.shape[1:]
        return self._resize_part(image, draw_box(height, width, self.options, rng))

    @cached_property
    def _crop(self) -> str:
        return self.options.chosen_crop

    def _as_input(self, image: Tensor) -> Tensor:
        """Return a decoded picture with the channels of the model's input."""
        image = image.expand(3, -1, -1)
        return transforms.rgb_to_grayscale(image) if self.spec.channels == 1 else image

    def _load_scaled(self, sample: Sample, key: SampleKey, meter: Meter) -> Tensor:
        height, width = simplejpeg.decode_jpeg_header(sample.data)[:2]
        meter.count_side(max(height, width))
        box, size = draw_box(height, width, self.options, make_numpy_rng(key, CROP)), self.spec.size
        scale = next((scale for scale in _SCALES if min(box.height, box.width) >= scale * size), 1)
        image = decode_sample(sample, self.spec, scale)
        return self._as_input(self._resize_part(image, box.snap(round(height / image.shape[1]))))

    def _resize_part(self, image: Tensor, box: Box) -> Tensor:
        return resize(cut_box(image, box), self.spec.size, self.spec.interpolation)

    @cached_property
    def _padded(self) -> PreprocessSpec:
        """Evaluation's preprocessing with the side of a padded crop's picture for its size."""
        side = self.options.crop_side(self.spec.size)
        return self.spec.model_copy(update={"size": side, "resize": None})

    def _crop_padded(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        spec, size, padding = self._padded, self.spec.size, self.options.crop_padding
        if spec.policy == "crop":  # the shorter side, and the longer one whole
            scale = spec.size / min(image.shape[1:])
            sides = [max(spec.size, round(side * scale)) for side in image.shape[1:]]
            image = transforms.resize(image, sides, InterpolationMode(spec.interpolation), antialias=True)
        else:
            image = fit(image, spec)
        image = transforms.pad(image, [padding], fill=spec.fill)
        top, left = (int(rng.integers(side - size, endpoint=True)) for side in image.shape[1:])
        return image[:, top : top + size, left : left + size]


def _is_plain(sample: Sample) -> bool:
    """Say whether simplejpeg may decode it: a JPEG that was decoded when it was packed."""
    return sample.audited and sample.data.startswith(_JPEG)


def measure_plain(sample: Sample) -> tuple[int, int] | None:
    """Return height and width of a JPEG that every decoder of them knows: audited, gray or YCbCr; else None."""
    if not _is_plain(sample):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(sample.data)
    except ValueError:
        return None
    return (height, width) if colorspace in ("Gray", "YCbCr") else None


def decode_sample(sample: Sample, spec: PreprocessSpec, scale: int = 1) -> Tensor:
    """Return uint8[1 or 3, H, W], strided as [H, W, C]: the pixels of `shards.decode`, luminance once.

    scale: 2, 4 or 8 decodes an audited JPEG at that part of its resolution, sides rounded up, where that can be done.

    Raises:
        DecodeError: The bytes are not one complete picture.
    """
    if _is_plain(sample):
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(sample.data)
            kind = "GRAY" if colorspace == "Gray" else "RGB"
            least = {"min_height": -(-height // scale), "min_width": -(-width // scale)} if scale > 1 else {}
            return torch.from_numpy(simplejpeg.decode_jpeg(sample.data, kind, **least)).permute(2, 0, 1)
        except ValueError:  # anything that libjpeg warns of: our decoder decides
            pass
    return torch.from_numpy(decode(sample.data, spec.decode)).permute(2, 0, 1)


def cut_box(image: Tensor, box: Box) -> Tensor:
    """Return the view uint8[C, h, w] of a part of uint8[C, H, W]; in one operation, where slices are three."""
    channel, row, column = image.stride()
    first = image.storage_offset() + box.top * row + box.left * column
    return image.as_strided((image.shape[0], box.height, box.width), (channel, row, column), first)


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
