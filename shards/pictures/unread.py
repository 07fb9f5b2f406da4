"""Error messages for bytes that cannot be decoded."""

from __future__ import annotations

from PIL import UnidentifiedImageError

from shards.errors import DecodeError
from shards.pictures.signature import find_heif, is_tiff

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NUMBERS = {1: "unsigned", 2: "signed", 3: "float"}
_SENSOR = "(photometric 32803)"


def explain_unread(data: bytes, err: Exception) -> DecodeError:
    """Return the error that explains why bytes cannot be decoded, from what a library raised."""
    reason = name_unread(data) if isinstance(err, UnidentifiedImageError) else " ".join(str(err).split())
    size = f"{len(data):,} bytes"
    if "runcated" in reason or _lacks_end(data):
        reason = reason if "truncated" in reason else f"truncated; {reason}"
        return DecodeError(f"the picture cannot be decoded ({size}: {reason})", kind="truncated")
    return DecodeError(f"the picture cannot be decoded ({size}: {reason})")


def _lacks_end(data: bytes) -> bool:
    """Return whether the end of an undecodable picture is missing, as far as its format shows."""
    if data.startswith((b"\xff\xd8\xff", b"\xff\x4f\xff\x51")) or data[4:8] == b"jP  ":  # JPEG, JPEG 2000
        return b"\xff\xd9" not in data
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\x00").endswith(b";")
    if data.startswith((b"RIFF", b"BM")):
        declared = int.from_bytes(data[4:8], "little") + 8 if data[:1] == b"R" else int.from_bytes(data[2:6], "little")
        return declared > len(data)
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") + 2 > len(data)
    return False


def name_unread(data: bytes) -> str:
    """Return a phrase that names the picture and what to do, or `no known picture format`.

    >>> name_unread(b"no picture")
    'no known picture format'
    >>> name_unread(b"\\x00\\x00\\x00\\x1cftypavif")
    'AVIF that Pillow cannot read here (its build may lack libavif, or the file is damaged); convert it to PNG or JPEG'
    """
    if data.startswith(b"\xff\xd8\xff"):
        bits = _find_jpeg_bits(data)
        if bits not in (None, 8):
            return f"a JPEG of {bits} bits a channel, but only 8 are supported; convert it to a 16-bit PNG"
    if is_tiff(data):
        layout = _describe_tiff(data)
        if layout.endswith(_SENSOR):
            return f"a TIFF of {layout}, which is a camera's raw sensor data; develop it to PNG or JPEG"
        if data[:4] == b"MM\x00+":
            return f"a BigTIFF of {layout} in big-endian order, which is not supported; store it as a plain TIFF"
        if layout:
            return f"a TIFF of {layout}, which is not supported; convert it to gray or RGB of 8 or 16 bits"
    kind = find_heif(data)
    if kind == "avif":
        return (
            "AVIF that Pillow cannot read here (its build may lack libavif, or the file is damaged); convert it to PNG "
            "or JPEG"
        )
    if kind == "heic":
        return "HEIC in which no picture is found; it is damaged"
    return "no known picture format"


def _find_jpeg_bits(data: bytes) -> int | None:
    place = 2
    while place + 4 < len(data) and data[place] == 0xFF:
        if data[place + 1] in _FRAMES:
            return data[place + 4]
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _describe_tiff(data: bytes) -> str:
    from shards.pictures.tiff_pages import pick_page, read_pages  # late import, as in decode

    pages = read_pages(pick_page(data)[0])
    if not pages:
        return ""
    tags = pages[0].tags
    bits, kind = tags.get(258, (1,)), _NUMBERS.get(tags.get(339, (1,))[0], "other")
    channels = tags.get(277, (1,))[0]
    layout = f"{channels} channel{'s' * (channels > 1)} of {bits[0]} {kind} bits"
    return f"{layout} (photometric {tags.get(262, (1,))[0]})"
