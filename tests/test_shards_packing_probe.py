from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from data.make_hostile import (
    DAMAGED_BEHIND_HEADER,
    HOSTILE,
    Hostile,
    animated,
    chunk,
    encode,
    oriented,
    rgb,
    sideways_xmp,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.errors import DecodeError
from shards.packing.probe import Probe, probe
from shards.pictures.decode import decode, inspect

KINDS = ["JPEG", "PNG", "WEBP"]


def read_by_pillow(data: bytes) -> np.ndarray:
    """Return the pixels as webdataset's "rgb" gives them: Pillow alone, no EXIF, no background."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def assert_plain_is_true(data: bytes) -> Probe | None:
    """Check all that a probe promises against Pillow and decode."""
    facts = probe(data)
    if facts is not None:
        picture = inspect(data)
        kind = "jpeg" if picture.format == "mpo" else picture.format
        assert (facts.format, facts.width, facts.height, facts.mode) == (
            kind,
            picture.width,
            picture.height,
            picture.mode,
        )
        np.testing.assert_array_equal(read_by_pillow(data), decode(data))
    return facts


def with_exif(image: Image.Image, kind: str, orientation: int | None, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "maker", "model"
    if orientation is not None:
        exif[0x0112] = orientation
    return encode(image, kind, exif=exif, **options)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Return a JPEG, PNG or WebP of any make, and whether it is plain."""
    kind = draw(st.sampled_from(KINDS))
    modes = {
        "JPEG": ["L", "RGB", "CMYK"],
        "PNG": ["1", "L", "P", "RGB", "LA", "RGBA", "I;16"],
        "WEBP": ["RGB", "RGBA"],
    }
    mode = draw(st.sampled_from(modes[kind]))
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    pixels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    elif mode == "P":
        image = image.quantize(draw(st.integers(2, 200)))
    elif mode == "RGBA":
        image.putalpha(draw(st.integers(0, 254)))
    else:
        image = image.convert(mode)
    options: dict[str, Any] = {}
    orientation = draw(st.sampled_from([None, 0, 1, 1, 1, 3, 6, 8, 9]))
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if draw(st.booleans()):
        options["icc_profile"] = bytes(draw(st.sampled_from([10, 5000])))
    if kind == "JPEG":
        options |= {"progressive": draw(st.booleans()), "subsampling": draw(st.sampled_from([0, 1, 2]))}
        if mode != "CMYK" and draw(st.booleans()):
            options["restart_marker_blocks"] = 2
    if kind == "WEBP":
        options["lossless"] = draw(st.booleans())
    transparency = kind == "PNG" and mode in ("L", "P") and draw(st.booleans())
    if transparency:
        options["transparency"] = 0
    turned = orientation is not None and 2 <= orientation <= 8
    plain = not turned and not transparency and mode in ("1", "L", "P", "RGB")
    return encode(image, kind, **options), plain


@settings(max_examples=10 * settings.default.max_examples)
@given(pictures())
def test_probe_says_plain_of_just_the_plain_pictures_and_agrees_with_pillow(made: tuple[bytes, bool]) -> None:
    data, plain = made
    assert (assert_plain_is_true(data) is not None) == plain


@pytest.mark.parametrize("item", HOSTILE, ids=lambda item: item.name)
def test_plain_hostile_pictures_are_seen_alike_by_every_reader(item: Hostile) -> None:
    data = item.make()
    try:
        decode(data)
    except DecodeError:
        # Damage behind a whole header costs a decode to find, and that is what the audit does.
        assert probe(data) is None or item.name in DAMAGED_BEHIND_HEADER
    else:
        assert_plain_is_true(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_picture_is_told_with_its_facts(kind: str, mode: str) -> None:
    ending = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[kind]
    seen = "RGB" if kind == "WEBP" else mode
    assert probe(encode(rgb().convert(mode), kind)) == Probe(kind.lower(), ending, 48, 32, seen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", [None, 0, 1, *range(2, 10)])
def test_only_turning_orientations_are_not_plain(kind: str, orientation: int | None) -> None:
    facts = assert_plain_is_true(with_exif(rgb(), kind, orientation))
    assert (facts is None) == (orientation is not None and 2 <= orientation <= 8)


@pytest.mark.parametrize("order", ["II", "MM"])
def test_orientation_is_read_in_both_byte_orders(order: str) -> None:
    mark = "<" if order == "II" else ">"
    for turn in (1, 6):
        entry = struct.pack(mark + "HHIHH", 0x0112, 3, 1, turn, 0)
        block = order.encode() + struct.pack(mark + "HIH", 42, 8, 1) + entry + bytes(4)
        assert (assert_plain_is_true(encode(rgb(), "JPEG", exif=b"Exif\x00\x00" + block)) is None) == (turn == 6)


def test_orientation_of_an_unusual_type_is_not_plain() -> None:
    block = b"MM\x00*" + struct.pack(">IH", 8, 1) + struct.pack(">HHII", 0x0112, 4, 1, 6) + bytes(4)
    data = encode(rgb(), "JPEG", exif=b"Exif\x00\x00" + block)
    assert decode(data).shape == (48, 32, 3)
    assert probe(data) is None


def test_orientation_behind_the_pixels_of_a_png_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(rgb(), "PNG")
    late = data[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:]
    assert decode(late).shape == (48, 32, 3)
    assert probe(late) is None


@pytest.mark.parametrize("turn", [1, 6])
def test_orientation_told_by_xmp_counts(turn: int) -> None:
    data = sideways_xmp().replace(b'Orientation="6"', b'Orientation="%d"' % turn)
    assert (assert_plain_is_true(data) is None) == (turn == 6)


@pytest.mark.parametrize("turn", [1, 6])
def test_orientation_told_by_the_xmp_of_a_png_or_webp_counts(turn: int) -> None:
    packet = b'<rdf:Description tiff:Orientation="%d"/>' % turn
    png = encode(rgb(), "PNG")
    png = png[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + packet) + png[33:]
    for data in (png, encode(rgb(), "WEBP", xmp=packet)):
        assert (assert_plain_is_true(data) is None) == (turn == 6)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_is_not_plain(kind: str) -> None:
    assert probe(animated(kind)) is None


def test_cameras_jpeg_with_previews_is_plain() -> None:
    assert assert_plain_is_true(animated("MPO")) is not None


@pytest.mark.parametrize("transparency", [(9, 8, 7), (1, 1, 1)])
def test_transparent_colour_of_a_png_is_not_plain(transparency: tuple[int, int, int]) -> None:
    assert probe(encode(rgb(), "PNG", transparency=transparency)) is None


def test_alpha_chunk_of_a_webp_is_not_plain_even_when_its_flag_is_missing() -> None:
    image = rgb()
    image.putalpha(100)
    data = bytearray(encode(image, "WEBP"))
    assert data[12:16] == b"VP8X"
    data[20] &= ~0x10
    assert probe(bytes(data)) is None


def test_still_webp_that_calls_itself_animated_or_of_another_size_is_not_plain() -> None:
    data = encode(rgb(), "WEBP", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00")
    assert data[12:16] == b"VP8X"
    assert probe(data) is not None
    assert probe(data[:20] + bytes([data[20] | 2]) + data[21:]) is None
    assert probe(data[:24] + b"\x63" + data[25:]) is None


def test_exif_in_two_parts_is_not_plain() -> None:
    """Pillow joins the parts, and others read the first alone."""
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif
    data = encode(rgb(), "JPEG")
    assert probe(data[:2] + segment + data[2:]) is not None
    assert probe(data[:2] + segment * 2 + data[2:]) is None


@pytest.mark.parametrize(("transform", "plain"), [(0, True), (1, True), (2, False), (9, False)])
def test_colour_transform_that_no_rgb_has_is_not_plain(transform: int, plain: bool) -> None:
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    data = encode(rgb(), "JPEG")
    assert (assert_plain_is_true(data[:2] + adobe + data[2:]) is not None) == plain


def test_palette_png_without_a_palette_is_not_plain() -> None:
    data = encode(rgb().quantize(16), "PNG")
    start = data.index(b"PLTE") - 4
    assert probe(data) is not None
    assert probe(data[:start] + data[start + 12 + int.from_bytes(data[start : start + 4]) :]) is None


@pytest.mark.parametrize("kind", KINDS)
def test_cut_picture_is_never_plain(kind: str) -> None:
    data = encode(rgb(), kind)
    assert [size for size in range(len(data) - 1) if probe(data[:size]) is not None] == []


@pytest.mark.parametrize("kind", KINDS)
def test_cut_picture_is_not_plain_for_the_end_of_its_thumbnail(kind: str) -> None:
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00" + b"\xff\xd9 IEND" * 3
    data = encode(rgb(), kind, exif=exif)
    assert probe(data) is not None
    assert probe(data[: len(data) * 3 // 4]) is None


@pytest.mark.parametrize("marker", [0xC3, 0xC9, 0xCA, 0xCB])
def test_lossless_and_arithmetic_jpeg_is_not_plain_as_few_readers_know_it(marker: int) -> None:
    data = bytearray(encode(rgb(), "JPEG"))
    data[data.index(b"\xff\xc0") + 1] = marker
    assert probe(bytes(data)) is None


def test_12_bit_jpeg_is_not_plain() -> None:
    data = bytearray(encode(rgb(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    assert probe(bytes(data)) is None


def test_pixel_limit_counts() -> None:
    data = encode(rgb(), "PNG")
    assert probe(data, 48 * 32) is not None
    assert probe(data, 48 * 32 - 1) is None


def with_true_sums(data: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums of what they hold, so that damage is not found by these."""
    at, out = 8, data[:8]
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        out += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_header_is_never_plain_and_turned_in_truth(kind: str) -> None:
    """Whatever a broken byte makes of a header: where probe says plain and Pillow reads it, both see the same."""
    rng = np.random.default_rng(0)
    clean = oriented(kind, 1)
    header, plain = clean.index(b"IDAT") if kind == "PNG" else 250, 0
    for _ in range(600):
        data = bytearray(clean)
        for place in rng.integers(0, header, 2):
            data[place] = rng.integers(0, 256)
        data = bytearray(with_true_sums(bytes(data))) if kind == "PNG" else data
        facts = probe(bytes(data), 1_000_000)
        if facts is None:
            continue
        try:
            pixels = decode(bytes(data))
        except DecodeError:
            continue
        plain += 1
        assert pixels.shape == (facts.height, facts.width, 3)
        np.testing.assert_array_equal(read_by_pillow(bytes(data)), pixels)
    assert plain > 20
