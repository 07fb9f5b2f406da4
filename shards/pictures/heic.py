"""HEIC files to 8-bit pictures; the only module that uses pillow-heif (the extra `heic`)."""

from __future__ import annotations

import io

from PIL import Image

from shards.errors import DecodeError

INSTALL = "pip install 'shardline[heic]'"


def open_heic(data: bytes) -> Image.Image:
    """Return the primary picture of a HEIC file, opened and upright, 8 bits a channel, but not loaded.

    Raises:
        DecodeError: pillow-heif is not installed.
        OSError: The file holds no picture.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError as err:
        raise DecodeError(f"the picture is HEIC, but pillow-heif is not installed: {INSTALL}") from err
    # Thumbnails are not pictures of their own. libheif applies the file's rotation and resets EXIF to upright.
    register_heif_opener(thumbnails=False)
    return Image.open(io.BytesIO(data), formats=("HEIF",))
