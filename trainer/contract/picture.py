"""Convert a picture from Python (path, bytes, PIL, array) to the model's input."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from trainer.contract.encoded import Picture as Picture
from trainer.contract.encoded import encode_picture
from trainer.contract.preprocess import PreprocessSpec, prepare, prepare_pixels


def prepare_picture(picture: Picture, spec: PreprocessSpec) -> Tensor:
    """Return uint8[C, S, S] of a picture.

    Raises:
        UsageError: The argument is not one of the kinds in `Picture`.
        DecodeError: The bytes are not one complete picture.
        OSError: The file cannot be read.
    """
    encoded = encode_picture(picture)
    if isinstance(encoded, bytes):
        return prepare(encoded, spec)
    pixels = np.broadcast_to(encoded, (*encoded.shape[:2], 3))
    return prepare_pixels(np.array(pixels), spec)  # a copy: torch warns about read-only arrays
