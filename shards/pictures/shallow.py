"""Pictures of fewer than 8 bits a channel: what Pillow leaves at the top of 8 bits, or does not stretch at all."""

from __future__ import annotations

from PIL import Image


def fill_range(image: Image.Image, data: bytes) -> Image.Image:
    """Return a loaded 8-bit picture with what has fewer bits stretched over 0..255; the same one where all have 8.

    JPEG 2000: Pillow lays the bits at the top, so that the white of one bit is 128, and an index of a palette too
    large. PNG: it stretches grays of 2 and 4 bits, and not the one of them that is transparent.
    """
    if image.format == "JPEG2000":
        return _fill_jpeg2000(image, data)
    clear, bits = image.info.get("transparency"), data[24:25]
    if image.format == "PNG" and image.mode == "L" and bits in b"\x02\x04" and isinstance(clear, int):
        stretched = image.copy()
        stretched.info["transparency"] = clear * 255 // (2 ** bits[0] - 1)
        return stretched
    return image


def _fill_jpeg2000(image: Image.Image, data: bytes) -> Image.Image:
    from shards.pictures.jpeg2000 import read_header  # late, as in decode

    header = read_header(data)
    if all(channel.bits == 8 for channel in header.channels):
        return image
    table: list[int] = []
    for number, channel in enumerate(header.channels):
        values = [value >> (8 - channel.bits) for value in range(256)]
        is_index = number == 0 and bool(header.palette)
        table += values if is_index else [round(value * 255 / (2**channel.bits - 1)) for value in values]
    return image.point(table)
