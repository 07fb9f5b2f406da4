"""TIFF in layouts that Pillow does not know or misreads, written by tifffile or by hand; and previews before them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import tifffile
from data.make_hostile import deep_rgb, packed_tiff, preview_tiff, rgb_pixels, tiff

from shards.errors import DecodeError
from shards.pictures.decode import DecodeOptions, decode, inspect
from shards.pictures.tiff_pages import pick_page


def write(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return uint8[H, W, 3] of gray [H, W] or colour [H, W, 3] whose `low` is black and `high` white."""
    numbers = np.clip(values.astype(np.float64), low, high)
    flat = np.rint((numbers - low) * 255 / (high - low)).astype(np.uint8)
    return np.dstack([flat] * 3) if values.ndim == 2 else flat


RNG = np.random.default_rng(5)
NUMBERS: dict[str, tuple[np.ndarray, tuple[float, float]]] = {
    "float64": (RNG.random((40, 30)), (0, 1)),
    "float16": (RNG.random((40, 30)).astype(np.float16), (0, 1)),
    "float32 colour": (RNG.random((40, 30, 3)).astype(np.float32), (0, 1)),
    "float64 colour": (RNG.normal(size=(40, 30, 3)), (-2, 2)),
    "int8": (RNG.integers(-128, 128, (40, 30)).astype(np.int8), (-128, 127)),
    "int8 colour": (RNG.integers(-128, 128, (40, 30, 3)).astype(np.int8), (-128, 127)),
    "int16": (RNG.integers(-9000, 9000, (40, 30)).astype(np.int16), (-9000, 8999)),
    "int16 colour": (RNG.integers(-9000, 9000, (40, 30, 3)).astype(np.int16), (-9000, 8999)),
    "uint32 colour": (RNG.integers(0, 2**32, (40, 30, 3)).astype(np.uint32), (0, 2**32 - 1)),
    "float32": (RNG.random((40, 30)).astype(np.float32), (0, 1)),
    "int32": (RNG.integers(-9000, 9000, (40, 30)).astype(np.int32), (-9000, 8999)),
    "uint32": (RNG.integers(0, 2**32, (40, 30)).astype(np.uint32), (0, 2**32 - 1)),
    "int64": (RNG.integers(-(2**40), 2**40, (40, 30)), (-(2**40), 2**40)),
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "big endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 16)},
    "deflated": {"compression": "zlib"},
    "deflated tiles, big endian": {"compression": "zlib", "tile": (16, 16), "byteorder": ">"},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_every_kind_are_read_by_their_range(name: str, form: str) -> None:
    values, ends = NUMBERS[name]
    data = write(values, photometric="rgb" if values.ndim == 3 else "minisblack", **FORMS[form])
    np.testing.assert_array_equal(decode(data, DecodeOptions(gray_range=ends)), stretch(values, *ends))


@pytest.mark.parametrize("name", list(NUMBERS))
def test_numbers_whose_range_no_file_tells_ask_for_it(name: str) -> None:
    values, _ = NUMBERS[name]
    data = write(values, photometric="rgb" if values.ndim == 3 else "minisblack")
    with pytest.raises(DecodeError, match="whose true range the file does not declare; give it with --range") as caught:
        decode(data)
    assert caught.value.kind == "range"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_planes_are_read(channels: int, form: str) -> None:
    values = RNG.integers(0, 65536, (40, 30, channels)).astype(np.uint16)
    if channels == 4:
        values[:, :, 3] = 65535
    more = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    data = write(values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", **more, **FORMS[form])
    np.testing.assert_array_equal(decode(data), stretch(values[:, :, :3], 0, 65535))


def test_alpha_of_planes_and_of_gray_shows_the_background() -> None:
    values = np.full((4, 6, 2), 65535, np.uint16)
    values[:, :3, 1] = 0
    data = write(values, photometric="minisblack", extrasamples=["unassalpha"])
    pixels = decode(data, DecodeOptions(background=(1, 2, 3)))
    assert (pixels[:, :3] == (1, 2, 3)).all()
    assert (pixels[:, 3:] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", range(9, 16))
def test_values_of_9_to_15_bits_go_from_black_to_white_by_their_bits(bits: int, channels: int) -> None:
    values = deep_rgb(channels, 2**bits - 1)
    data = packed_tiff(values, bits)
    expected = stretch(values[:, :, 0] if channels == 1 else values, 0, 2**bits - 1)
    np.testing.assert_array_equal(decode(data), expected)
    assert (inspect(data).peak, inspect(data).white) == (values.max(), 2**bits - 1)


def differences(values: np.ndarray, each: int) -> bytes:
    """Return rows of whole numbers as TIFF's predictor 2 has them: each less the one before it in its channel."""
    before = np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)
    return (values - before).astype(f"<u{each}").tobytes()


def test_predictor_of_whole_numbers_is_undone() -> None:
    values = RNG.integers(0, 65536, (32, 48, 3)).astype(np.uint16)
    planes = [differences(values[:, :, [plane]], 2) for plane in range(3)]
    shorts = np.frombuffer(b"".join(planes), np.uint16).reshape(3, 32, 48).transpose(1, 2, 0)
    np.testing.assert_array_equal(decode(tiff(shorts, {317: 2}, planes=True)), stretch(values, 0, 65535))


def test_predictor_of_floats_is_undone() -> None:
    """Source: Adobe Photoshop TIFF technical note 3: bytes sorted by their weight, then differences of bytes."""
    values = RNG.random((32, 48)).astype(np.float64)
    weights = values.astype(">f8").view(np.uint8).reshape(32, 48, 8).transpose(0, 2, 1).reshape(32, -1)
    packed = np.concatenate([weights[:, :1], weights[:, 1:] - weights[:, :-1]], axis=1).astype(np.uint8)
    shorts = packed.view(np.uint16).reshape(32, 48, 4)
    data = tiff(shorts, {258: 64, 262: 1, 277: 1, 317: 3, 339: 3})
    np.testing.assert_array_equal(decode(data, DecodeOptions(gray_range=(0, 1))), stretch(values, 0, 1))


def ten_bits(values: np.ndarray, **tags: int) -> bytes:
    """Return a TIFF of 10-bit gray with more tags, by number behind a letter."""
    body = np.frombuffer(packed_tiff(values, 10)[-values.nbytes :], np.uint16).reshape(values.shape)
    return tiff(body, {258: 10} | {int(name[1:]): value for name, value in tags.items()})


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_counts_there_too(orientation: int) -> None:
    values = deep_rgb(1, 1023)
    expected = np.rot90(stretch(values[:, :, 0], 0, 1023), {3: 2, 6: -1}[orientation])
    np.testing.assert_array_equal(decode(ten_bits(values, t274=orientation)), expected)


def test_white_that_is_zero_is_minded_there_too() -> None:
    values = deep_rgb(1, 1023)
    np.testing.assert_array_equal(decode(ten_bits(values, t262=0)), 255 - stretch(values[:, :, 0], 0, 1023))


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({338: 1, 277: 4, 262: 2}, "premultiplied alpha"),
        ({259: 7}, "compression 7"),
        ({266: 2}, "reverse order"),
        ({317: 3}, "predictor 3"),
    ],
)
def test_forms_that_are_not_read_are_refused_by_name(tags: dict[int, int], says: str) -> None:
    channels = tags.get(277, 3)
    with pytest.raises(DecodeError, match=says):
        decode(tiff(deep_rgb(channels), tags, planes=True))


@pytest.mark.parametrize("make", [lambda: tiff(deep_rgb(), {}, planes=True), lambda: write(NUMBERS["float64"][0])])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_what_was_cut_is_refused_as_truncated(make: Any, share: float) -> None:
    data = make()
    with pytest.raises(DecodeError, match="truncated") as caught:
        decode(data[: int(len(data) * share)], DecodeOptions(gray_range=(0, 1)))
    assert caught.value.kind == "truncated"


def test_pixel_limit_counts_before_memory_is_taken() -> None:
    with pytest.raises(DecodeError, match="60,000 x 60,000 pixels, over the limit") as caught:
        decode(tiff(deep_rgb(), {256: 60_000, 257: 60_000}, planes=True))
    assert caught.value.kind == "bomb"


def test_damaged_files_decode_or_are_refused_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for clean in (tiff(deep_rgb(), {}, planes=True), packed_tiff(deep_rgb(1, 1023), 10), preview_tiff(below=True)):
        for _ in range(150):
            data = bytearray(clean)
            for place in rng.integers(0, 200, 4):
                data[place if place < 8 else -int(place)] = rng.integers(0, 256)
            with contextlib.suppress(DecodeError):
                decode(bytes(data), DecodeOptions(max_pixels=1_000_000, gray_range=(0, 1)))


# pages


def write_pages(*pages: tuple[np.ndarray, dict[str, Any]], **options: Any) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as writer:
        for values, facts in pages:
            writer.write(values, **facts)
    return file.getvalue()


SMALL = np.zeros((8, 12, 3), np.uint8)
PICTURE, PREVIEW = {"subfiletype": 0, "photometric": "rgb"}, {"subfiletype": 1, "photometric": "rgb"}


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_preview_before_the_picture_is_not_taken_for_it(order: str, bigtiff: bool) -> None:
    options = {"byteorder": order, "bigtiff": bigtiff}
    deep = RNG.integers(0, 65536, (40, 30, 3)).astype(np.uint16)
    beside = write_pages((SMALL, PREVIEW), (deep, PICTURE), **options)
    below = write_pages((SMALL, PREVIEW | {"subifds": 1}), (deep, PICTURE), **options)
    for data in (beside, below):
        np.testing.assert_array_equal(decode(data, DecodeOptions(frames="refuse")), stretch(deep, 0, 65535))
        assert inspect(data).frames == 1


def test_preview_of_a_layout_of_its_own_is_not_taken_either() -> None:
    values = RNG.integers(0, 65536, (3, 40, 30)).astype(np.uint16)
    facts = {"subfiletype": 0, "photometric": "rgb", "planarconfig": "separate"}
    data = write_pages((SMALL, PREVIEW), (values, facts))
    np.testing.assert_array_equal(decode(data), stretch(values.transpose(1, 2, 0), 0, 65535))


def test_smaller_versions_behind_the_picture_are_no_frames_and_pages_are() -> None:
    pyramid = write_pages((rgb_pixels(), PICTURE), (SMALL, PREVIEW), (SMALL[:4], PREVIEW))
    pages = write_pages((rgb_pixels(), PICTURE), (SMALL, PICTURE), (SMALL, PREVIEW))
    assert (inspect(pyramid).frames, inspect(pages).frames) == (1, 2)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's words for what it does not know
def test_big_endian_bigtiff_of_8_bits_is_refused_by_name() -> None:
    with pytest.raises(DecodeError, match=r"a BigTIFF of 3 channels of 8 unsigned bits .* in big-endian order"):
        decode(write(rgb_pixels(), photometric="rgb", bigtiff=True, byteorder=">"))


def test_preview_that_is_all_there_is_is_the_picture() -> None:
    data = write_pages((rgb_pixels(), PREVIEW))
    np.testing.assert_array_equal(decode(data), rgb_pixels())
    assert pick_page(data)[0] is data


def test_chain_of_pages_that_bites_its_tail_ends() -> None:
    data = bytearray(write_pages((SMALL, PREVIEW), (SMALL, PREVIEW)))
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    data[first + 2 + 12 * count : first + 6 + 12 * count] = first.to_bytes(4, "little")
    assert decode(bytes(data)).shape == SMALL.shape


def test_raw_sensor_data_below_a_preview_are_named() -> None:
    with pytest.raises(DecodeError, match="a camera's raw sensor data; develop it to PNG or JPEG"):
        decode(preview_tiff(below=True, photometric=32803))
