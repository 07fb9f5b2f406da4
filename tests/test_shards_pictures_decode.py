from __future__ import annotations

import io
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data import jpeg2000
from data.make_hostile import (
    HOSTILE,
    Hostile,
    animated,
    bmp_32,
    bomb_webp,
    chunk,
    deep,
    deep_ramp,
    deep_rgb,
    encode,
    half_gray,
    netpbm,
    oriented,
    png_grays,
    png_of,
    png_rows,
    promise,
    rgb,
    rgb_pixels,
    sideways_xmp,
    tiff,
)
from PIL import Image, ImageCms, features
from pydantic import ValidationError

from shards.errors import DecodeError
from shards.pictures.decode import DecodeOptions, decode, examine, hash_pixels, inspect

# What a viewer does to the stored pixels for each EXIF orientation, in numpy's words.
UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("item", [item for item in HOSTILE if item.size], ids=lambda item: item.name)
def test_odd_picture_decodes_to_the_promised_size(item: Hostile) -> None:
    assert decode(item.make()).shape == (item.size[1], item.size[0], 3)


@pytest.mark.parametrize("item", [item for item in HOSTILE if not item.size], ids=lambda item: item.name)
def test_bad_picture_is_refused_in_words(item: Hostile) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(item.make())
    assert item.says in str(caught.value)
    assert caught.value.kind == item.kind
    assert "\n" not in str(caught.value)


def test_readme_lists_every_hostile_picture_with_its_promise() -> None:
    text = (Path(__file__).parent / "data" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| File", "| ---"))]
    assert rows == [promise(item) for item in HOSTILE]


def test_table_of_hostile_pictures_holds_at_least_twenty() -> None:
    assert len({item.name for item in HOSTILE}) >= 20


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    expected = UPRIGHT[orientation](rgb_pixels())
    np.testing.assert_array_equal(decode(oriented("PNG", orientation)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_orientation_counts_in_every_format_that_tells_one(kind: str) -> None:
    upright, sideways = decode(encode(rgb(), kind)), decode(oriented(kind, 6))
    np.testing.assert_array_equal(sideways, np.rot90(upright, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_gray_is_turned_upright_too(orientation: int) -> None:
    data = oriented("PNG", orientation, Image.fromarray(deep_ramp()))
    expected = UPRIGHT[orientation](decode(deep(deep_ramp(), "PNG")))
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA"])
def test_orientation_counts_in_every_mode(mode: str) -> None:
    image = rgb().convert(mode)
    np.testing.assert_array_equal(
        decode(oriented("PNG", 6, image)), np.rot90(decode(encode(image, "PNG")), -1), err_msg=mode
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_ramp_keeps_all_256_levels_from_black_to_white(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    gray = decode(deep(ramp, kind))[:, :, 0].ravel()
    assert np.unique(gray).tolist() == list(range(256))
    np.testing.assert_array_equal(gray, np.rint(np.arange(65536) / 257))


def test_big_endian_16_bit_equals_little_endian() -> None:
    little, big = deep(deep_ramp()), deep(deep_ramp().astype(">u2"))
    np.testing.assert_array_equal(decode(little), decode(big))


def test_deep_gray_has_three_equal_channels() -> None:
    pixels = decode(deep(deep_ramp(), "PNG"))
    assert (pixels == pixels[:, :, :1]).all()


def test_12_bit_gray_fills_black_to_white_when_its_range_is_given() -> None:
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    gray = decode(deep(ramp, "PNG"), DecodeOptions(gray_range=(0, 4095)))[:, :, 0].ravel()
    np.testing.assert_array_equal(gray, np.rint(np.arange(4096) * 255 / 4095))


def test_values_outside_the_range_are_black_and_white_and_do_not_wrap() -> None:
    values = np.array([[0, 99, 100, 200, 201, 65535]], dtype=np.uint16)
    pixels = decode(deep(values, "PNG"), DecodeOptions(gray_range=(100, 200)))
    assert pixels[0, :, 0].tolist() == [0, 0, 0, 255, 255, 255]


def test_range_may_be_negative_as_in_a_ct_scan() -> None:
    values = np.array([[-2000, -1000, 0, 1000]], dtype=np.int32)
    pixels = decode(deep(values), DecodeOptions(gray_range=(-1000, 1000)))
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255]


def test_float_picture_decodes_once_its_range_is_given() -> None:
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert decode(deep(values), DecodeOptions(gray_range=(0, 1)))[0, :, 0].tolist() == [0, 128, 255]


def test_float_picture_without_range_names_the_option() -> None:
    with pytest.raises(DecodeError, match=r"0\.\.1, whose true range the file does not declare; .* --range LO,HI"):
        decode(deep(np.array([[0.0, 1.0]], dtype=np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_even_with_a_range(value: float) -> None:
    with pytest.raises(DecodeError, match=r"not numbers \(NaN or infinity\)"):
        decode(deep(np.array([[0.0, value]], dtype=np.float32)), DecodeOptions(gray_range=(0, 1)))


@pytest.mark.parametrize("bad", [(1, 0), (5, 5), (float("nan"), 1), (0, float("inf")), (float("-inf"), 0)])
def test_gray_range_must_be_finite_and_ascend(bad: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="must be finite and ascend"):
        DecodeOptions(gray_range=bad)


def test_8_bit_gray_ignores_the_range() -> None:
    data = encode(rgb().convert("L"), "PNG")
    np.testing.assert_array_equal(decode(data), decode(data, DecodeOptions(gray_range=(0, 4095))))


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 20, 30)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_fully_transparent_pixels_show_the_background(mode: str, background: tuple[int, int, int]) -> None:
    data = encode(Image.new(mode, (4, 3)), "PNG")
    assert (decode(data, DecodeOptions(background=background)) == background).all()


def test_half_transparent_pixels_are_mixed_with_the_background() -> None:
    data = encode(Image.new("RGBA", (2, 2), (255, 0, 0, 128)), "PNG")
    assert decode(data)[0, 0].tolist() == [255, 127, 127]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_pixels_hide_the_background(mode: str) -> None:
    opaque = rgb().convert("L") if mode == "LA" else rgb()
    data = encode(opaque.convert(mode), "PNG")
    np.testing.assert_array_equal(decode(data), np.asarray(opaque.convert("RGB")))


def test_transparent_palette_entry_shows_the_background() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    data = encode(image, "PNG", transparency=1)
    assert decode(data, DecodeOptions(background=(1, 2, 3))).tolist() == [[[255, 0, 0], [1, 2, 3]]]


def test_transparent_colour_of_an_rgb_png_shows_the_background() -> None:
    data = encode(Image.new("RGB", (2, 2), (9, 8, 7)), "PNG", transparency=(9, 8, 7))
    assert (decode(data) == 255).all()


def test_palette_is_looked_up() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([1, 0])
    assert decode(encode(image, "PNG")).tolist() == [[[0, 0, 255], [255, 0, 0]]]


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False, True]]))
    assert decode(encode(image, "PNG")).tolist() == [[[255] * 3, [0] * 3, [255] * 3]]


def test_cmyk_jpeg_shows_its_inks_not_its_negative() -> None:
    cyan = encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100)
    red, green, blue = decode(cyan)[8, 8].tolist()
    assert red < 10 < 245 < min(green, blue)


def test_profile_of_another_colour_space_in_a_cmyk_jpeg_is_refused() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with pytest.raises(DecodeError, match="the embedded CMYK profile cannot be used: cannot build transform"):
        decode(encode(rgb().convert("CMYK"), "JPEG", icc_profile=profile))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_cut_picture_is_refused_wherever_it_was_cut(kind: str, share: float) -> None:
    data = encode(rgb(), kind)
    with pytest.raises(DecodeError, match="cannot be decoded"):
        decode(data[: int(len(data) * share)])


def test_empty_bytes_are_called_empty() -> None:
    with pytest.raises(DecodeError, match=r"^the picture is empty \(0 bytes\)$"):
        decode(b"")


def test_bomb_is_refused_before_it_is_unpacked() -> None:
    # Its pixels cannot be unpacked, so any other message would mean that it was tried.
    with pytest.raises(DecodeError, match=r"100 x 100 pixels, over the limit of 9,999$"):
        decode(png_of(100, 100), DecodeOptions(max_pixels=9_999))


def test_picture_of_exactly_the_limit_is_not_refused() -> None:
    assert decode(encode(rgb(), "PNG"), DecodeOptions(max_pixels=48 * 32)).shape == (32, 48, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    red, green, blue = decode(animated(kind))[0, 0].tolist()
    assert red > 250 > 5 > max(green, blue)


@pytest.mark.parametrize("item", [item for item in HOSTILE if item.size], ids=lambda item: item.name)
def test_pixels_are_a_contiguous_writable_array_of_bytes(item: Hostile) -> None:
    pixels = decode(item.make())
    assert (pixels.dtype, pixels.flags.c_contiguous, pixels.flags.writeable) == (np.uint8, True, True)


def test_hash_of_pixels_does_not_depend_on_their_layout_in_memory() -> None:
    pixels = rgb_pixels()
    assert hash_pixels(np.asfortranarray(pixels)) == hash_pixels(pixels)


def test_hash_tells_shapes_of_the_same_bytes_apart() -> None:
    assert hash_pixels(np.zeros((2, 3, 3), np.uint8)) != hash_pixels(np.zeros((3, 2, 3), np.uint8))


def test_inspect_tells_what_the_file_holds() -> None:
    picture = inspect(oriented("JPEG", 6, rgb().convert("L")))
    assert (picture.format, picture.mode, picture.width, picture.height, picture.peak) == ("jpeg", "L", 32, 48, 0)


def test_inspect_hashes_the_pixels_that_decode_returns() -> None:
    data = oriented("PNG", 6)
    assert inspect(data).pixels_xxh3 == hash_pixels(decode(data))


def test_inspect_tells_the_largest_deep_value() -> None:
    assert inspect(deep(deep_ramp(4095), "PNG")).peak == 4095


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_damaged_bytes_decode_or_are_refused_and_nothing_else(kind: str) -> None:
    rng = np.random.default_rng(0)
    clean = encode(rgb(), kind) if kind in ("GIF", "BMP") else oriented(kind, 6)
    refusals = []
    for _ in range(300):
        data = bytearray(clean)
        for place in rng.integers(0, min(len(data), 400), 4):
            data[place] = rng.integers(0, 256)
        try:
            decode(bytes(data), DecodeOptions(max_pixels=1_000_000))
        except DecodeError as err:
            refusals.append(str(err))
    assert not [text for text in refusals if " at 0x" in text]  # an address would differ from run to run


def test_pillow_is_not_asked_to_read_formats_that_are_programs() -> None:
    file = io.BytesIO()
    rgb().save(file, "EPS")
    with pytest.raises(DecodeError, match="no known picture format"):
        decode(file.getvalue())


def test_examine_gives_the_pixels_of_decode_and_the_facts_of_inspect() -> None:
    data = oriented("PNG", 6)
    picture, pixels = examine(data)
    np.testing.assert_array_equal(pixels, decode(data))
    assert picture == inspect(data)


def exact_bytes(values: np.ndarray, peak: int = 65535) -> np.ndarray:
    """Return what 0..peak becomes on 0..255, in whole numbers."""
    return ((values.astype(np.int64) * 510 + peak) // (2 * peak)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_colour_is_read_with_all_its_bits(kind: str) -> None:
    values = deep_rgb(peak=4095)
    data = png_rows(values) if kind == "PNG" else tiff(values, {})
    np.testing.assert_array_equal(decode(data, DecodeOptions(gray_range=(0, 4095))), exact_bytes(values, 4095))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_colour_without_a_range_goes_from_0_to_65535(kind: str) -> None:
    values = deep_rgb()
    np.testing.assert_array_equal(decode(png_rows(values) if kind == "PNG" else tiff(values, {})), exact_bytes(values))


def test_deflated_16_bit_tiff_equals_plain() -> None:
    plain, deflated = tiff(deep_rgb(), {}), tiff(deep_rgb(), {259: 8})
    assert len(deflated) < len(plain) + 100
    np.testing.assert_array_equal(decode(plain), decode(deflated))


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB;16"), (4, "RGBA;16"), (2, "LA;16"), (1, "I;16")])
def test_inspect_tells_the_largest_colour_of_16_bit_pictures_and_not_their_alpha(channels: int, mode: str) -> None:
    values = deep_rgb(channels, peak=1000)
    values[0, 0, 0] = 3000
    if channels in (2, 4):
        values[:, :, -1] = 65535
    picture = inspect(png_rows(values))
    assert (picture.mode, picture.peak) == (mode, 3000)


@pytest.mark.parametrize("channels", [2, 4])
def test_16_bit_alpha_shows_the_background(channels: int) -> None:
    values = deep_rgb(channels)
    values[:, :24, -1], values[:, 24:, -1] = 0, 65535
    pixels = decode(png_rows(values), DecodeOptions(background=(1, 2, 3)))
    assert (pixels[:, :24] == (1, 2, 3)).all()
    np.testing.assert_array_equal(pixels[:, 24:], np.broadcast_to(exact_bytes(values[:, 24:, :-1]), (32, 24, 3)))


def test_range_of_the_colours_is_not_that_of_the_alpha() -> None:
    values = np.array([[[4095, 4095, 4095, 65535], [4095, 4095, 4095, 4095]]], dtype=np.uint16)
    pixels = decode(png_rows(values), DecodeOptions(gray_range=(0, 4095), background=(0, 0, 0)))
    assert pixels[0, :, 0].tolist() == [255, 16]  # 4095 of 65535 is a sixteenth of full cover


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_level_of_a_16_bit_png_is_compared_with_all_16_bits(channels: int) -> None:
    values = np.full((1, 2, channels), 0x1234, dtype=np.uint16)
    values[0, 1] += 1
    data = png_rows(values, chunk(b"tRNS", b"\x12\x34" * channels))
    pixels = decode(data, DecodeOptions(background=(200, 0, 0)))
    assert pixels.tolist() == [[[200, 0, 0], [0x12] * 3]]


@pytest.mark.parametrize("peak", [4095, 65535])
def test_gray_whose_zero_is_white_is_inverted(peak: int) -> None:
    values = deep_rgb(1, peak)
    options = DecodeOptions(gray_range=(0, peak))
    dark, light = (decode(tiff(values, {262: zero}), options) for zero in (1, 0))
    np.testing.assert_array_equal(light, 255 - dark)


def test_12_bit_tiff_needs_no_range_as_its_header_tells_it() -> None:
    values = np.array([[0, 4095]])
    packed = bytes([0x00, 0x0F, 0xFF])  # two values of 12 bits
    data = tiff(values.astype(np.uint16)[:, :, None], {258: 12, 279: 3})[:-4] + packed
    assert decode(data)[0, :, 0].tolist() == [0, 255]
    assert (inspect(data).peak, inspect(data).white) == (4095, 4095)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_colour_is_turned_upright_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = png_rows(deep_rgb(), chunk(b"eXIf", exif.tobytes()[6:]))
    np.testing.assert_array_equal(decode(data), UPRIGHT[orientation](exact_bytes(deep_rgb())))


def test_orientation_told_by_xmp_alone_counts() -> None:
    np.testing.assert_array_equal(decode(sideways_xmp()), np.rot90(decode(encode(rgb(), "JPEG")), -1))


@pytest.mark.parametrize(
    ("luma", "blue", "red", "expected"),
    # Luma and chroma give R, G, B; C = 255 - R and so on are stored inverted, as Adobe does, so R is the cyan ink.
    [(0, 128, 128, (215, 215, 215)), (255, 128, 128, (0, 0, 0)), (76, 85, 255, (1, 215, 215))],
)
def test_ycck_jpeg_is_turned_to_inks_and_then_to_rgb(
    luma: int, blue: int, red: int, expected: tuple[int, int, int]
) -> None:
    inks = (255 - luma, 255 - blue, 255 - red, 40)  # Pillow inverts as it writes
    flat = encode(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    adobe = flat.index(b"Adobe")
    pixels = decode(flat[: adobe + 11] + b"\x02" + flat[adobe + 12 :])[8, 8].astype(int)
    np.testing.assert_allclose(pixels, expected, atol=3)


def cmyk_profile(lightness: float) -> bytes:
    """Return an ICC profile under which every mix of colours without black is the gray of L* = `lightness`."""
    table = bytes(range(256))
    colours = bytes([round(lightness * 2.55), 128, 128, 0, 128, 128]) * 8  # two grid points for each ink, black last
    unit = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + table * 4 + colours + table * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"A2B0": lut, b"wtpt": white}
    offset, listing, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        listing += name + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = offset + len(body)
    head = struct.pack(">I", size) + bytes(4) + b"\x02\x40\x00\x00prtrCMYKLab " + bytes(12) + b"acsp"
    return head.ljust(68, b"\x00") + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + listing + body


@pytest.mark.parametrize(("lightness", "gray"), [(50, 119), (80, 198)])
@pytest.mark.parametrize("transform", [0, 2], ids=["CMYK", "YCCK"])
def test_cmyk_goes_through_its_embedded_profile(lightness: float, gray: int, transform: int) -> None:
    """Source of the grays: CIE L* 50 and 80 are Y = 0.184 and 0.567, which the sRGB curve makes 118.9 and 198.1."""
    data = encode(rgb().convert("CMYK"), "JPEG", icc_profile=cmyk_profile(lightness))
    adobe = data.index(b"Adobe")
    pixels = decode(data[: adobe + 11] + bytes([transform]) + data[adobe + 12 :])
    np.testing.assert_allclose(pixels, gray, atol=2)


@pytest.mark.parametrize(("kind", "frames"), [("GIF", 3), ("WEBP", 3), ("TIFF", 3), ("PNG", 3), ("MPO", 1)])
def test_frames_are_counted_and_a_cameras_previews_are_not(kind: str, frames: int) -> None:
    assert inspect(animated(kind)).frames == frames


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_several_frames_are_refused_where_one_is_asked_for(kind: str) -> None:
    with pytest.raises(DecodeError, match="has 3 frames, but only one is allowed") as caught:
        decode(animated(kind), DecodeOptions(frames="refuse"))
    assert caught.value.kind == "frames"


@pytest.mark.parametrize("item", [item for item in HOSTILE if item.size], ids=lambda item: item.name)
def test_single_pictures_pass_where_one_frame_is_asked_for(item: Hostile) -> None:
    several = item.name.startswith(("animated", "pages"))
    try:
        decode(item.make(), DecodeOptions(frames="refuse"))
    except DecodeError:
        assert several
    else:
        assert not several


def test_canvas_of_a_webp_is_refused_before_pillow_takes_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_args, **_options: pytest.fail("was opened"))
    with pytest.raises(DecodeError, match=r"16,777,216 x 255 pixels, over the limit of 100,000,000$"):
        decode(bomb_webp())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000"])
def test_cut_picture_is_called_truncated_wherever_it_was_cut(kind: str) -> None:
    data = encode(rgb().quantize() if kind == "GIF" else rgb(), kind)
    for share in np.linspace(0.3, 0.98, 15):
        with pytest.raises(DecodeError, match="truncated") as caught:
            decode(data[: int(len(data) * share)])
        assert caught.value.kind == "truncated"


def test_damaged_picture_with_its_end_is_not_called_truncated() -> None:
    damaged = bytearray(encode(rgb(), "PNG"))
    damaged[60] ^= 0xFF
    with pytest.raises(DecodeError) as caught:
        decode(bytes(damaged))
    assert caught.value.kind == "unreadable"


def test_kind_of_a_refusal_survives_the_way_between_processes() -> None:
    err = pickle.loads(pickle.dumps(DecodeError("too large", kind="bomb")))
    assert (str(err), err.kind) == ("too large", "bomb")


JPEGS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": "4:2:0"},
    "4:4:4": {"subsampling": "4:4:4"},
    "optimised": {"optimize": True},
    "restart markers": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
}


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", [kind for kind in JPEGS if kind != "progressive"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_jpeg_that_was_cut_and_closed_with_an_end_marker_is_refused(mode: str, kind: str, share: float) -> None:
    whole = encode(rgb().resize((480, 320)).convert(mode), "JPEG", **JPEGS[kind])
    scan = whole.rfind(b"\xff\xda")
    cut = whole[: scan + int(share * (len(whole) - scan))].rstrip(b"\xff") + b"\xff\xd9"
    with pytest.raises(DecodeError, match="truncated, but closed with an end marker") as caught:
        decode(cut)
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("kind", JPEGS)
def test_whole_jpeg_that_ends_in_the_gray_of_libjpegs_filling_is_not_refused(
    mode: str, quality: int, kind: str
) -> None:
    picture = half_gray().convert(mode).resize((160, 120), Image.Resampling.NEAREST)
    data = encode(picture, "JPEG", quality=quality, **JPEGS[kind])
    assert (decode(data)[-8:] == 128).all()  # the check that must let it pass is reached
    assert decode(data + b"appended by a camera").shape == (120, 160, 3)


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return [H, W, 3] of gray values whose `low` is black and `high` white, by exact fractions."""
    span = int(high - low)
    whole = ((values.astype(object) - int(low)).clip(0, span) * 510 + span) // (2 * span)
    return np.dstack([whole.astype(np.uint8)] * 3)


@pytest.mark.parametrize("boxed", [False, True], ids=["j2k", "jp2"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", range(1, 16))
def test_jpeg_2000_gray_goes_from_black_to_white_by_its_own_bits(bits: int, signed: bool, boxed: bool) -> None:
    values = jpeg2000.ramp(bits, signed)
    data = jpeg2000.codestream([values], [bits], signed)
    data = jpeg2000.jp2(data, 1, bits, jpeg2000.GRAY) if boxed else data
    np.testing.assert_array_equal(decode(data), stretched(values, values.min(), values.max()))
    told_by_bits = bits > 8 and not signed
    assert (inspect(data).peak, inspect(data).white) == ((values.max(), 2**bits - 1) if told_by_bits else (0, 0))


@pytest.mark.parametrize("told", [8, 16])
def test_bits_of_a_jpeg_2000_are_those_of_its_codestream_whatever_its_boxes_tell(told: int) -> None:
    data = jpeg2000.jp2(jpeg2000.codestream([jpeg2000.ramp(12)], [12]), 1, told, jpeg2000.GRAY)
    np.testing.assert_array_equal(decode(data), stretched(jpeg2000.ramp(12), 0, 4095))


def test_bits_of_each_channel_in_a_box_of_their_own_are_read() -> None:
    data = jpeg2000.jp2(jpeg2000.codestream([jpeg2000.ramp(12)], [12]), 1, 12, jpeg2000.GRAY, each=[12])
    np.testing.assert_array_equal(decode(data), stretched(jpeg2000.ramp(12), 0, 4095))


@pytest.mark.parametrize(("bits", "signed"), [(12, False), (16, False), (12, True), (16, True)])
def test_range_counts_in_the_values_of_a_jpeg_2000(bits: int, signed: bool) -> None:
    values = jpeg2000.ramp(bits, signed)
    low, high = (-1000, 1000) if signed else (100, 3000)
    data = jpeg2000.codestream([values], [bits], signed)
    np.testing.assert_array_equal(decode(data, DecodeOptions(gray_range=(low, high))), stretched(values, low, high))


def test_16_bit_jpeg_2000_gray_has_a_peak_as_a_png_has() -> None:
    values = jpeg2000.ramp(16) // 16
    data = jpeg2000.codestream([values], [16])
    assert inspect(data).peak == 4095
    np.testing.assert_array_equal(decode(data), decode(deep(values.astype(np.uint16), "PNG")))


def test_signed_16_bit_jpeg_2000_asks_for_a_range_as_a_tiff_does() -> None:
    with pytest.raises(DecodeError, match=r"values -32768\.\.32767, whose true range .* --range LO,HI"):
        decode(jpeg2000.codestream([jpeg2000.ramp(16, signed=True)], [16], signed=True))


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_jpeg_2000_colour_above_8_bits_is_refused_and_its_png_is_read(bits: int, channels: int) -> None:
    values = [jpeg2000.ramp(bits)] * channels
    with pytest.raises(
        DecodeError, match=f"{channels} channels with {bits} bits, .* convert it to a 16-bit PNG or TIFF"
    ):
        decode(jpeg2000.codestream(values, [bits] * channels))
    as_png = png_rows(np.dstack(values).astype(np.uint16))
    white = decode(as_png, DecodeOptions(gray_range=(0, 2**bits - 1), background=(0, 0, 0)))[-1, -1]
    assert white.tolist() == ([255] * 3 if channels == 3 or bits == 16 else [round((2**bits - 1) / 257)] * 3)


def test_jpeg_2000_gray_above_16_bits_is_refused_and_its_32_bit_tiff_is_read() -> None:
    values = jpeg2000.ramp(16) + 2**19 - 2**15
    with pytest.raises(DecodeError, match=r"gray with 20 bits, .* convert it to a 32-bit TIFF and give --range LO,HI"):
        decode(jpeg2000.codestream([values], [20]))
    low, high = float(values.min()), float(values.max())
    data = deep(values.astype(np.int32))
    np.testing.assert_array_equal(decode(data, DecodeOptions(gray_range=(low, high))), stretched(values, low, high))


@pytest.mark.parametrize("bits", [[8, 8, 8], [5, 6, 5], [1, 2, 7], [4, 8, 8]])
@pytest.mark.parametrize("signed", [False, True])
def test_each_channel_of_a_shallow_jpeg_2000_is_stretched_by_its_own_bits(bits: list[int], signed: bool) -> None:
    channels = [jpeg2000.ramp(depth, signed) for depth in bits]
    pixels = decode(jpeg2000.codestream(channels, bits, signed))
    for band, values in enumerate(channels):
        np.testing.assert_array_equal(pixels[:, :, band], stretched(values, values.min(), values.max())[:, :, 0])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_of_a_jpeg_2000_is_looked_up_by_an_index_of_any_bits(bits: int) -> None:
    colours = [(255, 0, 0), (9, 8, 7), (0, 255, 0), (0, 0, 255)][: 2**bits]
    index = np.arange(32 * 48).reshape(32, 48) % len(colours)
    stream = jpeg2000.codestream([index], [bits])
    pixels = decode(jpeg2000.jp2(stream, 1, bits, jpeg2000.RGB, jpeg2000.palette(colours, 8)))
    np.testing.assert_array_equal(pixels, np.array(colours)[index])


@pytest.mark.parametrize("bits", [5, 9, 16])
def test_palette_of_a_jpeg_2000_that_has_not_8_bits_is_refused(bits: int) -> None:
    table = jpeg2000.palette([(0, 0, 0), (2**bits - 1, 0, 0)], bits)
    data = jpeg2000.jp2(jpeg2000.codestream([jpeg2000.ramp(8) // 128], [8]), 1, 8, jpeg2000.RGB, table)
    with pytest.raises(DecodeError, match=f"palette has {bits} bits a colour, .* convert it to PNG"):
        decode(data)


def test_shallow_luminance_and_chroma_of_a_jpeg_2000_are_refused() -> None:
    stream = jpeg2000.codestream([jpeg2000.ramp(5)] * 3, [5] * 3)
    with pytest.raises(DecodeError, match=r"luminance and chroma with 5 bits, .* convert it to PNG"):
        decode(jpeg2000.jp2(stream, 3, 5, jpeg2000.SYCC))


@pytest.mark.parametrize("cut", [12, 30, 60, 90, 110])
def test_jpeg_2000_that_ends_within_its_header_is_truncated(cut: int) -> None:
    data = jpeg2000.jp2(jpeg2000.codestream([jpeg2000.ramp(8)], [8]), 1, 8, jpeg2000.GRAY)
    with pytest.raises(DecodeError, match="truncated") as caught:
        decode(data[:cut])
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("text", [False, True], ids=["bytes", "text"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [1, 101, 255, 257, 1001, 4095, 65535])
def test_netpbm_goes_from_black_to_the_white_that_its_header_tells(white: int, channels: int, text: bool) -> None:
    values = deep_rgb(channels, white)
    data = netpbm(values, white, text)
    np.testing.assert_array_equal(decode(data), np.broadcast_to(exact_bytes(values, white), (32, 48, 3)))
    # 4095 and 65535 may be no more than the number of bits; 1001 was chosen by whoever wrote the file.
    assert inspect(data).peak == (values.max() if white in (4095, 65535) else 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [4095, 65535])
def test_range_counts_in_the_values_of_a_netpbm(white: int, channels: int) -> None:
    values = deep_rgb(channels, 1001)
    pixels = decode(netpbm(values, white), DecodeOptions(gray_range=(0, 1001)))
    np.testing.assert_array_equal(pixels, np.broadcast_to(exact_bytes(values, 1001), (32, 48, 3)))


@pytest.mark.parametrize("word", [b"1001", b"-1", b"x", b"99999999999999999999"])
def test_value_of_a_netpbm_text_outside_its_range_is_refused(word: bytes) -> None:
    with pytest.raises(DecodeError, match="declares 1000 as white but holds"):
        decode(b"P2 2 1 1000\n5 " + word + b"\n")


def test_12_bit_colour_in_a_16_bit_netpbm_has_a_peak_as_a_png_has() -> None:
    values = deep_rgb(peak=4095)
    assert inspect(netpbm(values, 65535)).peak == inspect(png_rows(values)).peak == values.max()


@pytest.mark.parametrize("values", [[-128, -1, 0, 127], [0, 1, 2, 127]])
def test_signed_bytes_of_a_tiff_ask_for_a_range_and_do_not_wrap(values: list[int]) -> None:
    body = np.array(values, np.int8).view("<u2").reshape(1, 2, 1)
    data = tiff(body, {256: 4, 258: 8, 339: 2})
    with pytest.raises(DecodeError, match=r"int8 gray with values .* --range LO,HI"):
        decode(data)
    pixels = decode(data, DecodeOptions(gray_range=(-128, 127)))
    assert pixels[0, :, 0].tolist() == [value + 128 for value in values]


def test_unsigned_32_bits_of_a_tiff_do_not_wrap() -> None:
    values = np.array([0, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    data = tiff(values.view("<u2").reshape(1, 4, 2), {258: 32, 277: 1})
    pixels = decode(data, DecodeOptions(gray_range=(0, 2**32 - 1)))
    assert pixels[0, :, 0].tolist() == [0, 127, 128, 255]


def test_16_bit_cmyk_is_read_with_all_its_bits_and_no_range() -> None:
    values = deep_rgb(4)
    inks = [Image.fromarray(exact_bytes(values)[:, :, ink]) for ink in range(4)]
    expected = np.asarray(Image.merge("CMYK", inks).convert("RGB"))
    for options in (DecodeOptions(), DecodeOptions(gray_range=(0, 4095))):
        np.testing.assert_array_equal(decode(tiff(values, {262: 5}), options), expected)
    assert inspect(tiff(values // 100, {262: 5})).peak == 0  # little ink is no unknown range


@pytest.mark.parametrize("planes", [{}, {259: 8}], ids=["plain", "deflated"])
@pytest.mark.parametrize(("channels", "colour"), [(3, 2), (4, 5)], ids=["RGB", "CMYK"])
def test_16_bit_planes_of_a_tiff_are_read_as_interleaved_channels_are(
    channels: int, colour: int, planes: dict[int, int]
) -> None:
    values, tags = deep_rgb(channels), planes | {262: colour}
    np.testing.assert_array_equal(decode(tiff(values, tags, planes=True)), decode(tiff(values, tags)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparent_level_of_a_shallow_png_is_one_of_its_own_bits(bits: int) -> None:
    white = 2**bits - 1
    data = png_grays([0, 1, white, 1], bits, chunk(b"tRNS", b"\x00\x01"))
    pixels = decode(data, DecodeOptions(background=(200, 0, 0)))[0].tolist()
    clear, last = [200, 0, 0], [255] * 3 if bits > 1 else [200, 0, 0]
    assert pixels == [[0] * 3, clear, last, clear]


def test_bmp_whose_alpha_is_0_throughout_is_opaque_and_any_other_alpha_counts() -> None:
    """Source: Pillow's own BMP without alpha, and Windows, GIMP and browsers, show it opaque."""
    np.testing.assert_array_equal(decode(bmp_32(rgb_pixels(), 0)), rgb_pixels())
    np.testing.assert_array_equal(decode(bmp_32(rgb_pixels(), 255)), rgb_pixels())
    half = decode(bmp_32(rgb_pixels(), 51), DecodeOptions(background=(0, 0, 0)))
    np.testing.assert_allclose(half, rgb_pixels() / 5, atol=1)


@pytest.mark.parametrize(
    ("data", "hidden"),
    [
        (encode(Image.new("RGBA", (4, 3)), "PNG"), True),
        (encode(Image.new("LA", (4, 3)), "PNG"), True),
        (encode(Image.new("RGBA", (4, 3), (255, 255, 255, 1)), "PNG"), False),
        (encode(Image.new("RGBA", (4, 3), (255, 255, 255, 255)), "PNG"), False),
        (encode(Image.new("RGB", (4, 3), "white"), "PNG"), False),
        (encode(Image.new("RGB", (2, 2), (9, 8, 7)), "PNG", transparency=(9, 8, 7)), True),
        (bmp_32(rgb_pixels(), 0), False),
        (png_rows(deep_rgb(4) * np.array([1, 1, 1, 0], np.uint16)), True),
    ],
)
def test_inspect_tells_a_picture_of_which_nothing_is_seen(data: bytes, hidden: bool) -> None:
    assert inspect(data).hidden == hidden


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read_upright_and_its_transparency_counts() -> None:
    flat = Image.new("RGBA", (32, 16), (200, 30, 60, 255))
    flat.paste((0, 0, 0, 0), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = decode(encode(flat, "AVIF", quality=100, exif=exif), DecodeOptions(background=(10, 20, 30)))
    assert pixels.shape == (32, 16, 3)
    np.testing.assert_allclose(pixels[:12], np.broadcast_to((10, 20, 30), (12, 16, 3)), atol=3)
    np.testing.assert_allclose(pixels[20:], np.broadcast_to((200, 30, 60), (12, 16, 3)), atol=3)
    assert inspect(encode(rgb(), "AVIF")).format == "avif"


def test_several_frames_of_an_avif_are_counted() -> None:
    assert inspect(animated("AVIF")).frames == 3


HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100)


def test_heic_without_its_extra_is_refused_and_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as Python marks what cannot be imported
    with pytest.raises(
        DecodeError, match=r"is HEIC, but pillow-heif is not installed: pip install 'shardline\[heic\]'"
    ):
        decode(HEIC)


def quarters() -> Image.Image:
    """Return 96 x 64 pixels of four flat colours: red and green above, blue and white below."""
    image = Image.new("RGB", (96, 64), "white")
    for colour, box in (("red", (0, 0, 48, 32)), ("lime", (48, 0, 96, 32)), ("blue", (0, 32, 48, 64))):
        image.paste(colour, box)
    return image


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_by_its_extra_and_comes_out_upright(orientation: int) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    heif.from_pillow(quarters()).save(file, quality=95, exif=exif.tobytes())
    picture, pixels = examine(file.getvalue())
    expected = UPRIGHT[orientation](np.asarray(quarters()))
    assert (picture.format, pixels.shape, picture.frames) == ("heic", expected.shape, 1)
    np.testing.assert_allclose(pixels[8::16, 8::16].astype(int), expected[8::16, 8::16], atol=8)


def test_heic_without_a_picture_is_refused_in_words() -> None:
    pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
    with pytest.raises(DecodeError, match="cannot be decoded"):
        decode(HEIC)
