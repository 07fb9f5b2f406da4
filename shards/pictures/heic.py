"""HEIC files to 8-bit pictures: the one door to pillow-heif, which is the extra `heic`."""

from __future__ import annotations

import io

from PIL import Image

from shards.errors import DecodeError

INSTALL = "pip install 'shardline[heic]'"


def open_heic(data: bytes) -> Image.Image:
    """Return the primary picture of a HEIC file, opened and upright, 8 bits a channel, but not loaded.

    Raises:
        DecodeError: No pillow-heif.
        OSError: It finds no picture.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError as err:
        raise DecodeError(f"the picture is HEIC, and pillow-heif is not installed: {INSTALL}") from err
    # Thumbnails are no pictures; libheif turns what the file says is turned, and the EXIF then says upright.
    register_heif_opener(thumbnails=False)
    return Image.open(io.BytesIO(data), formats=("HEIF",))
