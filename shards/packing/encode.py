"""What is stored of a picture: its own bytes, or its re-encoded pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from shards.errors import DecodeError, ShardError
from shards.packing.probe import Probe, probe
from shards.pictures.decode import DecodeOptions, decode
from shards.pictures.shrink import fits, shrink_image
from shards.sources.model import Source

# 2 % larger than Pillow's own level 6, at half the CPU time; level 1 is 6 to 14 % larger again. Measured 2026-11-24 on
# 40 pictures of ELPV and three photographs.
_PNG_LEVEL = 4
# Shrinking has put detail into every pixel: 4:2:0 has a third more error (RMSE 3.7, not 2.7, at quality 90) to save a
# fifth of the bytes, and colour distinguishes stains.
_SUBSAMPLING = "4:4:4"


class StoreOptions(BaseModel):
    """What the stored bytes depend on besides the picture; recorded in the dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_side: int | None = Field(default=None, gt=0)
    """Longer side in pixels above which a picture is shrunk; None keeps every size."""
    quality: int = Field(default=90, ge=1, le=100)
    """JPEG quality of shrunk pictures, 1..100."""
    decode: DecodeOptions = DecodeOptions()


@dataclass(frozen=True, slots=True)
class Stored:
    """What goes into the tar. ending: jpg, png or webp, without a dot. width, height: pixels of `data`, upright. mode:
    Pillow's mode of `data`."""

    data: bytes
    ending: str
    width: int
    height: int
    mode: str


def store_picture(
    data: bytes, options: StoreOptions, pixels: npt.NDArray[np.uint8] | None = None, facts: Probe | None = None
) -> Stored:
    """Return what is stored of an encoded picture; always the same bytes.

    A plain picture (see `probe`) no larger than `max_side` is stored unchanged, without decoding. Others are decoded: a
    picture no larger than `max_side` becomes a lossless PNG of its pixels; a larger one is shrunk and becomes a JPEG.

    Args:
        data: The picture's bytes.
        options: Of the dataset.
        pixels: uint8[H, W, 3], the result of `decode(data, options.decode)`, if already known.
        facts: The result of `probe(data, options.decode.max_pixels)`, if already known.

    Raises:
        DecodeError: The picture must be decoded but cannot be.
    """
    facts = facts or probe(data, options.decode.max_pixels)
    if facts is not None and fits(facts.width, facts.height, options.max_side):
        return Stored(data, facts.ending, facts.width, facts.height, facts.mode)
    return store_pixels(decode(data, options.decode) if pixels is None else pixels, options)


def store_pixels(pixels: npt.NDArray[np.uint8], options: StoreOptions) -> Stored:
    """Return decoded pixels uint8[H, W, 3] as a lossless PNG, or shrunk as a JPEG; gray if all channels are equal."""
    image = Image.fromarray(pixels[:, :, 0] if _is_gray(pixels) else pixels)
    file = io.BytesIO()
    if options.max_side is None or fits(image.width, image.height, options.max_side):
        image.save(file, "PNG", compress_level=_PNG_LEVEL)
        return Stored(file.getvalue(), "png", image.width, image.height, image.mode)
    image = shrink_image(image, options.max_side)
    image.save(file, "JPEG", quality=options.quality, subsampling=_SUBSAMPLING)
    return Stored(file.getvalue(), "jpg", image.width, image.height, image.mode)


def refuse_undecodable(source: Source, err: DecodeError) -> ShardError:
    """Return the error for an undecodable picture that was not audited."""
    return ShardError(f"{source.name}: {err}; the audit would have put it into quarantine: pack without --audit none")


def _is_gray(pixels: npt.NDArray[np.uint8]) -> bool:
    red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
    return bool((red[0] == green[0]).all() and (red == green).all() and (red == blue).all())
