"""Which pictures may be stored unchanged, decided from their headers in about 10 us each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from struct import Struct

from shards.pictures.decode import DecodeOptions

_JPEG_SEGMENT = Struct(">BBH").unpack_from
_JPEG_FRAME = Struct(">BHHB").unpack_from
_PNG_CHUNK = Struct(">I4s").unpack_from
_PNG_HEADER = Struct(">IIBBBBB").unpack_from
_WEBP_CHUNK = Struct("<4sI").unpack_from

_FRAMES = frozenset((0xC0, 0xC1, 0xC2))  # arithmetic and lossless JPEG are legal, but few readers support them
_OTHER_FRAMES = frozenset((0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_COLOUR_IDS = (b"\x01\x02\x03", b"\x00\x01\x02", b"RGB")
_PNG_MODES = {(0, 1): "1", (0, 2): "L", (0, 4): "L", (0, 8): "L", (2, 8): "RGB"} | {
    (3, bits): "P" for bits in (1, 2, 4, 8)
}
_XMP_TURN = re.compile(rb'tiff:Orientation(?:="|>)[2-8]')
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"


@dataclass(frozen=True, slots=True)
class Probe:
    """Header facts of a picture that may be stored unchanged.

    format: jpeg, png or webp. ending: jpg, png or webp. width, height: pixels. mode: as in
    `shards.pictures.decode.Picture`, one of L, RGB, P and 1.
    """

    format: str
    ending: str
    width: int
    height: int
    mode: str


def probe(data: bytes, max_pixels: int = DecodeOptions().max_pixels) -> Probe | None:
    """Return the header facts if every reader sees the same pixels in `data`; None if that is unknown without decoding.

    A plain picture is an upright 8-bit JPEG, PNG or WebP of one frame, gray or RGB (also palette and 1-bit PNG),
    without transparency, of at most `max_pixels`, with its end present. None does not mean a bad picture: it includes
    those that decoding rotates, composites, scales or refuses, and those with merely unusual headers. Pixels are not
    read, so a damaged picture with an intact header passes.

    >>> probe(b"no picture") is None
    True
    """
    if data.startswith(b"\xff\xd8\xff"):
        facts = _probe_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"):
        facts = _probe_png(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        facts = _probe_webp(data)
    else:
        return None
    return facts if facts is not None and 0 < facts.width * facts.height <= max_pixels else None


def _probe_jpeg(data: bytes) -> Probe | None:
    at, frame, familiar, exifs = 2, None, False, 0
    last = len(data) - 4
    while at <= last:
        start, marker, length = _JPEG_SEGMENT(data, at)
        if start != 0xFF or not 0xC0 <= marker <= 0xFE or length < 2:
            return None
        if marker == 0xDA:
            # Entropy-coded bytes contain no end marker, so if none follows, the file was truncated.
            return frame if data.rfind(b"\xff\xd9", at + 2 + length) >= 0 else None
        if marker == 0xE1:
            segment = data[at + 4 : at + 2 + length]
            if segment.startswith(b"Exif\x00\x00"):
                exifs += 1
                if exifs > 1 or not _exif_is_upright(segment[6:]):
                    return None
            elif segment.startswith(_XMP) and _XMP_TURN.search(segment):
                return None
        elif marker == 0xE0:
            familiar = familiar or data[at + 4 : at + 9] == b"JFIF\x00"
        elif marker == 0xEE and length >= 14 and data[at + 4 : at + 9] == b"Adobe":
            if data[at + 15] > 1:  # 0 is RGB, 1 is YCbCr; 2 is YCCK
                return None
            familiar = True
        elif marker in _FRAMES:
            if frame is not None:
                return None
            frame = _read_jpeg_frame(data, at, familiar)
            if frame is None:
                return None
        elif marker in _OTHER_FRAMES or 0xD0 <= marker <= 0xD9:
            return None
        at += 2 + length
    return None


def _read_jpeg_frame(data: bytes, at: int, familiar: bool) -> Probe | None:
    """Return the facts of the frame header at `at`; `familiar`: JFIF or Adobe markers declare the colour space."""
    if at + 19 > len(data):
        return None
    bits, height, width, components = _JPEG_FRAME(data, at + 4)
    if bits != 8:
        return None
    if components == 1:
        return Probe("jpeg", "jpg", width, height, "L")
    if components == 3 and (familiar or data[at + 10 : at + 19 : 3] in _COLOUR_IDS):
        return Probe("jpeg", "jpg", width, height, "RGB")
    return None


def _probe_png(data: bytes) -> Probe | None:
    if len(data) < 45:
        return None
    width, height, bits, colour, packing, filtering, interlace = _PNG_HEADER(data, 16)
    mode = _PNG_MODES.get((colour, bits))
    if mode is None or packing or filtering or interlace > 1:
        return None
    at, last, palette = 33, len(data) - 12, False
    while at <= last:  # to the end: transparency and EXIF may follow the pixels
        length, kind = _PNG_CHUNK(data, at)
        if kind == b"IEND":
            return Probe("png", "png", width, height, mode) if palette or mode != "P" else None
        if kind == b"PLTE":
            palette = True
        elif kind != b"IDAT" and not _chunk_is_harmless(kind, data, at + 8, length):
            return None
        at += 12 + length
    return None


def _chunk_is_harmless(kind: bytes, data: bytes, at: int, length: int) -> bool:
    """Return whether a chunk of a PNG does not rotate, animate or make the picture transparent."""
    if kind in (b"tRNS", b"acTL", b"IHDR"):
        return False
    if kind == b"eXIf":
        return _exif_is_upright(data[at : at + length])
    if kind in (b"tEXt", b"zTXt", b"iTXt"):
        text = data[at : at + length]
        if text.startswith(b"Raw profile type exif"):
            return False
        if text.startswith(b"XML:com.adobe.xmp"):
            return kind == b"iTXt" and text[18:19] == b"\x00" and _XMP_TURN.search(text) is None
    return True


def _probe_webp(data: bytes) -> Probe | None:
    end = int.from_bytes(data[4:8], "little") + 8
    at, canvas, frame = 12, None, None
    if end > len(data):
        return None
    while at + 8 <= end:
        kind, length = _WEBP_CHUNK(data, at)
        body = data[at + 8 : at + 18] if kind in (b"VP8 ", b"VP8L", b"VP8X") else b""
        if kind in (b"VP8 ", b"VP8L"):
            if frame is not None:
                return None
            frame = _read_vp8(body) if kind == b"VP8 " else _read_vp8l(body)
            if frame is None:
                return None
        elif kind == b"VP8X":
            if len(body) < 10 or body[0] & 0x12:  # animation, alpha
                return None
            canvas = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        elif kind in (b"ALPH", b"ANIM", b"ANMF"):
            return None
        elif kind == b"EXIF":
            if not _exif_is_upright(data[at + 8 : at + 8 + length].removeprefix(b"Exif\x00\x00")):
                return None
        elif kind == b"XMP " and _XMP_TURN.search(data, at + 8, at + 8 + length):
            return None
        at += 8 + length + (length & 1)
    if frame is None or at != end or (canvas is not None and canvas != frame):
        return None
    return Probe("webp", "webp", *frame, "RGB")


def _read_vp8(body: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a lossy frame."""
    if len(body) < 10 or body[0] & 1 or body[3:6] != b"\x9d\x01\x2a":
        return None
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _read_vp8l(body: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a lossless frame without alpha."""
    if len(body) < 5 or body[0] != 0x2F:
        return None
    bits = int.from_bytes(body[1:5], "little")
    if bits >> 28:  # alpha, or a later version of the format
        return None
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


def _exif_is_upright(block: bytes) -> bool:
    """Return whether EXIF was understood and does not rotate; orientations outside 1..8 do not."""
    if block.startswith(b"II*\x00"):
        order, wanted, short = "little", b"\x12\x01", b"\x03\x00\x01\x00\x00\x00"
    elif block.startswith(b"MM\x00*"):
        order, wanted, short = "big", b"\x01\x12", b"\x00\x03\x00\x00\x00\x01"
    else:
        return False
    at = int.from_bytes(block[4:8], order)  # type: ignore[arg-type]
    count = int.from_bytes(block[at : at + 2], order)  # type: ignore[arg-type]
    end = at + 2 + 12 * count
    if at < 8 or end > len(block):
        return False
    for entry in range(at + 2, end, 12):
        if block[entry : entry + 2] == wanted:
            turn = int.from_bytes(block[entry + 8 : entry + 10], order)  # type: ignore[arg-type]
            if block[entry + 2 : entry + 8] != short or 2 <= turn <= 8:
                return False
    return True
