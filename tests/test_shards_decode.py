from __future__ import annotations

import io

import numpy as np
import pytest
from data.make_hostile import HOSTILE, Hostile, animated, deep, deep_ramp, encode, oriented, png_of, rgb, rgb_pixels
from PIL import Image, ImageCms
from pydantic import ValidationError

from shards.decode import DecodeOptions, decode, hash_pixels, inspect
from shards.errors import DecodeError

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
    with pytest.raises(DecodeError, match=r"values 0\.\.1, whose true range the file does not tell; .* --range LO,HI"):
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
