"""Geometry of training: bytes of a sample -> uint8[C, S, S], with faster decoding where training permits it.

Evaluation and serving use `trainer.contract.preprocess` and `shards.pictures.decode`. Here, a JPEG that was audited
when it was packed is decoded by simplejpeg: the same libjpeg-turbo, so the same pixels, for less CPU. Rows below a
random crop are skipped, and the resolution is reduced if `fast` is set. Everything else, and whatever simplejpeg
rejects, is decoded by `shards.pictures.decode` here too.
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

from shards.dataset.read import Sample
from shards.order.purposes import Purpose
from shards.pictures.decode import decode
from trainer.contract.preprocess import PreprocessSpec, fit, keep_centre, take_luminance
from trainer.feed.augment.library import Change
from trainer.feed.augment.seeding import SampleKey, make_numpy_rng
from trainer.feed.meter import Meter
from trainer.feed.resize import resize, resize_fraction
from trainer.recipes.options.augment import AugmentOptions

_JPEG = b"\xff\xd8\xff"
_TRIES = 10
_SCALES = (8, 4, 2)
"""Reduced resolutions at which libjpeg-turbo decodes faster than at full resolution."""
_ROWS_BELOW = 2
"""Rows below a crop that affect its last rows, because chroma of half height is interpolated."""
_SOF, _OTHER_SOF = (0xC0, 0xC1), (0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_SOS, _DRI = 0xDA, 0xDD
_SKIPPED = "extraneous bytes before marker 0xd9"
"""The end of libjpeg's first warning if all rows were decoded, and more data lies before the end marker."""


@dataclass(frozen=True)
class Box:
    """A box in a picture, pixels."""

    top: int
    left: int
    height: int
    width: int

    def snap(self, scale: int) -> Box:
        """Return the smallest box of whole pixels that covers this one in a picture `scale` times smaller."""
        top, left = self.top // scale, self.left // scale
        bottom, right = -(-(self.top + self.height) // scale), -(-(self.left + self.width) // scale)
        return Box(top, left, bottom - top, right - left)


@dataclass(frozen=True)
class TrainGeometry:
    """Geometry of a training picture before augmentation: evaluation's geometry, or a random crop.

    fast: Decode large JPEGs at half, a quarter or an eighth of their resolution if the crop is that much larger than
    the
        input. Difference from full decoding: at half, 0.3 to 0.6 of 255 on average and 2 to 4 at the 99th percentile;
        at a quarter, 0.9 to 1.2 and 7 to 9 (tests/bench/README.md). Not used if `before` changes the decoded picture.
    before: Changes the decoded picture.
    """

    spec: PreprocessSpec
    options: AugmentOptions
    fast: bool = False
    before: Change | None = None

    def load(self, sample: Sample, key: SampleKey, meter: Meter) -> Tensor:
        """Return uint8[C, S, S] of a sample, with any strides.

        Raises:
            DecodeError: The bytes are not one complete picture.
        """
        with meter.timing("decode"):
            sides = measure_plain(sample) if self._crop == "random" and self.before is None else None
            if sides is not None:
                meter.count_side(max(sides))
                return self._load_part(sample, sides, key)
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
        """Return uint8[C, S, S] of a decoded picture uint8[1 or 3, H, W], on its device, without `before`."""
        if self._crop == "random":  # crop first: less to convert, and gray is cheaper to resize
            return self._as_input(self._cut(image, key))
        return self._cut(self._as_input(image), key)

    def _cut(self, image: Tensor, key: SampleKey) -> Tensor:
        if self._crop == "none":
            return fit(image, self.spec)
        rng = make_numpy_rng(key, Purpose.CROP)
        if self._crop == "padded":
            return self._crop_padded(image, rng)
        height, width = image.shape[1:]
        return self._resize_part(image, draw_box(height, width, self.options, rng))

    @cached_property
    def _crop(self) -> str:
        return self.options.chosen_crop

    def _as_input(self, image: Tensor) -> Tensor:
        """Return a decoded picture with the channels of the model's input."""
        if image.shape[0] == 1:
            image = image.expand(3, -1, -1)
        return take_luminance(image, self.spec.luminance) if self.spec.channels == 1 else image

    def _load_part(self, sample: Sample, sides: tuple[int, int], key: SampleKey) -> Tensor:
        """Return the result of `load` for a plain JPEG of these sides, decoding only what a random crop needs."""
        box = draw_box(*sides, self.options, make_numpy_rng(key, Purpose.CROP))
        scale = self._find_scale(box)
        rows = box.top + box.height + _ROWS_BELOW
        upper = decode_upper(sample.data, rows) if scale == 1 and rows < sides[0] else None
        image = decode_sample(sample, self.spec, scale) if upper is None else upper
        scale = round(sides[1] / image.shape[2])  # a decoder may lack that scale
        return self._as_input(self._resize_part(image, box) if scale == 1 else self._resize_small(image, box, scale))

    def _resize_small(self, image: Tensor, box: Box, scale: int) -> Tensor:
        """Return the result of `_resize_part` for a picture decoded `scale` times smaller; `box` is at full size."""
        covered = box.snap(scale)
        left, top = box.left / scale - covered.left, box.top / scale - covered.top
        place = (left, top, left + box.width / scale, top + box.height / scale)
        return resize_fraction(cut_box(image, covered), place, self.spec.size, self.spec.interpolation)

    def _find_scale(self, box: Box) -> int:
        """Return how many times smaller the picture may be decoded for a crop: 1, 2, 4 or 8."""
        scales = _SCALES if self.fast else ()
        return next((scale for scale in scales if min(box.height, box.width) >= scale * self.spec.size), 1)

    def _resize_part(self, image: Tensor, box: Box) -> Tensor:
        return resize(cut_box(image, box), self.spec.size, self.spec.interpolation)

    @cached_property
    def _padded(self) -> PreprocessSpec:
        """Evaluation's preprocessing with the size of a padded crop's picture."""
        side = self.options.crop_side(self.spec.size)
        return self.spec.model_copy(update={"size": side, "resize": None})

    def _crop_padded(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        spec, size, padding = self._padded, self.spec.size, self.options.crop_padding
        if spec.policy == "crop":  # resize the shorter side, keep the whole longer one
            image = keep_centre(image)
            scale = spec.size / min(image.shape[1:])
            sides = [max(spec.size, round(side * scale)) for side in image.shape[1:]]
            image = transforms.resize(image, sides, InterpolationMode(spec.interpolation), antialias=True)
        else:
            image = fit(image, spec)
        image = transforms.pad(image, [padding], fill=spec.fill)
        top, left = (int(rng.integers(side - size, endpoint=True)) for side in image.shape[1:])
        return image[:, top : top + size, left : left + size]


def _is_plain(sample: Sample) -> bool:
    """Return whether simplejpeg may decode a sample: a JPEG that was audited when it was packed."""
    return sample.audited and sample.data.startswith(_JPEG)


def measure_plain(sample: Sample) -> tuple[int, int] | None:
    """Return height and width of a JPEG that every decoder supports: audited, gray or YCbCr; else None."""
    if not _is_plain(sample):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(sample.data)
    except ValueError:
        return None
    return (height, width) if colorspace in ("Gray", "YCbCr") else None


def decode_sample(sample: Sample, spec: PreprocessSpec, scale: int = 1) -> Tensor:
    """Return uint8[1 or 3, H, W], strided as [H, W, C]: the pixels of `shards.pictures.decode`, one channel for gray.

    scale: 2, 4 or 8 decodes an audited JPEG at that fraction of its resolution, sides rounded up, if possible.

    Raises:
        DecodeError: The bytes are not one complete picture.
    """
    if _is_plain(sample):
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(sample.data)
            kind = "GRAY" if colorspace == "Gray" else "RGB"
            least = {"min_height": -(-height // scale), "min_width": -(-width // scale)} if scale > 1 else {}
            return torch.from_numpy(simplejpeg.decode_jpeg(sample.data, kind, **least)).permute(2, 0, 1)
        except ValueError:  # any warning of libjpeg: our decoder decides
            pass
    return torch.from_numpy(decode(sample.data, spec.decode)).permute(2, 0, 1)


def decode_upper(data: bytes, rows: int) -> Tensor | None:
    """Return uint8[1 or 3, rows, W], strided as [rows, W, C]: the upper rows of a gray or YCbCr JPEG, one channel for
    gray.

    libjpeg-turbo gets a header with a reduced height, and decodes nothing below. All but the last `_ROWS_BELOW` rows
    equal those of the whole picture. None if that is impossible, or anything is odd about the data.

    rows: Number of rows, fewer than the picture has.
    """
    place = _find_height(data)
    if place is None:
        return None
    _, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    kind, channels = ("GRAY", 1) if colorspace == "Gray" else ("RGB", 3)
    upper = np.empty((rows, width, channels), dtype=np.uint8)
    shortened = bytearray(data)
    shortened[place : place + 2] = rows.to_bytes(2, "big")
    try:
        simplejpeg.decode_jpeg(shortened, kind, buffer=upper)
    except ValueError as err:  # also raised if all rows are decoded, for the data after them
        if not str(err).endswith(_SKIPPED):
            return None
    return torch.from_numpy(upper).permute(2, 0, 1)


def _find_height(data: bytes) -> int | None:
    """Return the offset of the height in a JPEG; None if its data does not run from top to bottom in one scan."""
    place, found = 2, None
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _SOS:
            return found
        if marker == _DRI or marker in _OTHER_SOF:
            return None
        if marker in _SOF:
            found = place + 5
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def cut_box(image: Tensor, box: Box) -> Tensor:
    """Return the view uint8[C, h, w] of a box in uint8[C, H, W]; one operation instead of three slices."""
    channel, row, column = image.stride()
    first = image.storage_offset() + box.top * row + box.left * column
    return image.as_strided((image.shape[0], box.height, box.width), (channel, row, column), first)


def draw_box(height: int, width: int, options: AugmentOptions, rng: np.random.Generator) -> Box:
    """Return a random box whose share of the area and aspect ratio are within the options.

    If ten draws do not fit, return the largest central box with an allowed aspect ratio.

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
