from __future__ import annotations

import io

import numpy as np
import pytest
from data.make_hostile import (
    DAMAGED_BEHIND_HEADER,
    HOSTILE,
    Hostile,
    animated,
    deep,
    deep_ramp,
    encode,
    oriented,
    rgb,
    rgb_pixels,
)
from PIL import Image
from pydantic import ValidationError

from shards.errors import DecodeError
from shards.packing.encode import Stored, StoreOptions, store_picture, store_pixels
from shards.pictures.decode import DecodeOptions, decode


def smooth(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return a photograph-like picture: soft colours without noise."""
    return rgb().resize((6, 4)).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def read_by_pillow(stored: Stored) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stored.data)).convert("RGB"))


@pytest.mark.parametrize("item", [item for item in HOSTILE if item.size], ids=lambda item: item.name)
def test_what_is_stored_decodes_to_the_pixels_of_the_original(item: Hostile) -> None:
    data = item.make()
    stored = store_picture(data, StoreOptions())
    expected = decode(data)
    np.testing.assert_array_equal(decode(stored.data), expected)
    np.testing.assert_array_equal(read_by_pillow(stored), expected)
    assert (stored.width, stored.height) == item.size


@pytest.mark.parametrize("item", [item for item in HOSTILE if item.size], ids=lambda item: item.name)
def test_facts_of_what_is_stored_are_those_of_its_bytes(item: Hostile) -> None:
    stored = store_picture(item.make(), StoreOptions(max_side=40))
    image = Image.open(io.BytesIO(stored.data))
    kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[stored.ending]
    assert (stored.width, stored.height, stored.mode, kind) == (*image.size, image.mode, image.format)
    assert max(image.size) <= 40


REFUSED = [item for item in HOSTILE if not item.size]


@pytest.mark.parametrize(
    "item", [item for item in REFUSED if item.name not in DAMAGED_BEHIND_HEADER], ids=lambda item: item.name
)
def test_refused_picture_is_not_stored(item: Hostile) -> None:
    with pytest.raises(DecodeError):
        store_picture(item.make(), StoreOptions())


@pytest.mark.parametrize(
    "item", [item for item in REFUSED if item.name in DAMAGED_BEHIND_HEADER], ids=lambda item: item.name
)
def test_damage_behind_a_whole_header_is_left_to_the_audit_unless_the_picture_is_decoded(item: Hostile) -> None:
    data = item.make()
    assert store_picture(data, StoreOptions()).data is data
    with pytest.raises(DecodeError):
        store_picture(data, StoreOptions(max_side=8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_plain_picture_passes_untouched(kind: str) -> None:
    data = encode(rgb(), kind)
    assert store_picture(data, StoreOptions(max_side=48)).data is data


def test_plain_picture_passes_undecoded() -> None:
    broken = bytearray(encode(rgb(), "PNG"))
    broken[100:120] = bytes(20)
    with pytest.raises(DecodeError):
        decode(bytes(broken))
    assert store_picture(bytes(broken), StoreOptions()).data == broken


def test_picture_over_the_pixel_limit_is_refused_though_plain() -> None:
    with pytest.raises(DecodeError, match="over the limit of 100"):
        store_picture(encode(rgb(), "PNG"), StoreOptions(decode=DecodeOptions(max_pixels=100)))


def test_several_frames_are_refused_where_one_is_asked_for() -> None:
    with pytest.raises(DecodeError, match="3 frames"):
        store_picture(animated("WEBP"), StoreOptions(decode=DecodeOptions(frames="refuse")))


def test_options_of_decoding_count() -> None:
    data, decoding = deep(deep_ramp(4095), "PNG"), DecodeOptions(gray_range=(0, 4095))
    stored = store_picture(data, StoreOptions(decode=decoding))
    np.testing.assert_array_equal(decode(stored.data), decode(data, decoding))
    assert stored.mode == "L"


def test_gray_stays_gray_and_colour_stays_colour() -> None:
    assert store_picture(oriented("PNG", 6, rgb().convert("L")), StoreOptions()).mode == "L"
    assert store_picture(oriented("PNG", 6), StoreOptions()).mode == "RGB"
    assert store_picture(encode(smooth(96, 64, "L"), "JPEG"), StoreOptions(max_side=48)).mode == "L"
    assert store_picture(encode(smooth(96, 64), "JPEG"), StoreOptions(max_side=48)).mode == "RGB"


@pytest.mark.parametrize("place", [(0, 0, 0), (31, 47, 1), (31, 47, 2)])
def test_one_coloured_pixel_makes_a_picture_colour(place: tuple[int, int, int]) -> None:
    pixels = np.repeat(rgb_pixels()[:, :, :1], 3, axis=2)
    assert store_pixels(pixels, StoreOptions()).mode == "L"
    pixels[place] ^= 1
    stored = store_pixels(pixels, StoreOptions())
    assert stored.mode == "RGB"
    np.testing.assert_array_equal(decode(stored.data), pixels)


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((96, 64), 48, (48, 32)),
        ((64, 96), 48, (32, 48)),
        ((49, 1), 48, (48, 1)),
        ((1000, 3), 48, (48, 1)),
        ((48, 48), 47, (47, 47)),
        ((100, 75), 64, (64, 48)),
    ],
)
def test_shrunk_picture_keeps_its_aspect_and_the_longer_side_is_max_side(
    size: tuple[int, int], max_side: int, expected: tuple[int, int]
) -> None:
    stored = store_picture(encode(smooth(*size), "PNG"), StoreOptions(max_side=max_side))
    assert (stored.width, stored.height, stored.ending) == (*expected, "jpg")


def test_picture_is_never_enlarged() -> None:
    data = encode(rgb(), "JPEG")
    assert store_picture(data, StoreOptions(max_side=4096)).data is data


def test_longer_side_is_that_of_the_upright_picture() -> None:
    stored = store_picture(oriented("JPEG", 6, smooth(96, 64)), StoreOptions(max_side=48))
    assert (stored.width, stored.height) == (32, 48)


def test_shrinking_averages_and_does_not_pick_pixels() -> None:
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    stored = store_picture(encode(Image.fromarray(stripes), "PNG"), StoreOptions(max_side=32))
    np.testing.assert_allclose(decode(stored.data)[2:-2, 2:-2], 127.5, atol=4)


def test_shrunk_picture_shows_the_same_scene_and_colours() -> None:
    image = smooth(300, 200)
    expected = np.asarray(image.resize((150, 100), Image.Resampling.BOX)).astype(int)
    pixels = decode(store_picture(encode(image, "PNG"), StoreOptions(max_side=150)).data).astype(int)
    assert np.abs(pixels - expected).max() <= 12
    assert np.abs(pixels - expected).mean() <= 2


def test_colour_detail_survives_shrinking() -> None:
    """Red and blue columns of one pixel after the shrink: with chroma halved they would be purple."""
    columns = np.zeros((128, 128, 3), dtype=np.uint8)
    columns[:, :, 2] = 255
    columns[:, (np.arange(128) // 4) % 2 == 0] = (255, 0, 0)
    pixels = decode(store_picture(encode(Image.fromarray(columns), "PNG"), StoreOptions(max_side=32)).data)
    red, blue = pixels[16, 8].astype(int), pixels[16, 9].astype(int)
    assert red[0] > 200 > 60 > red[2]
    assert blue[2] > 200 > 60 > blue[0]


def test_quality_is_obeyed() -> None:
    data = encode(rgb().resize((200, 150)), "PNG")
    low, high = (store_picture(data, StoreOptions(max_side=100, quality=quality)).data for quality in (30, 95))
    assert len(low) < len(high)


@pytest.mark.parametrize("max_side", [None, 30])
@pytest.mark.parametrize("item", [item for item in HOSTILE if item.size], ids=lambda item: item.name)
def test_same_picture_gives_the_same_bytes(item: Hostile, max_side: int | None) -> None:
    options = StoreOptions(max_side=max_side)
    assert store_picture(item.make(), options) == store_picture(item.make(), options)


def test_no_metadata_of_the_original_is_carried_over() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a patient's name"
    for options in (StoreOptions(), StoreOptions(max_side=20)):
        stored = store_picture(encode(rgb(), "JPEG", exif=exif, comment=b"a patient's name"), options)
        assert b"patient" not in stored.data


def test_pixels_that_were_decoded_already_are_used() -> None:
    other = rgb_pixels()[::-1].copy()
    stored = store_picture(oriented("PNG", 6), StoreOptions(), pixels=other)
    np.testing.assert_array_equal(decode(stored.data), other)


@pytest.mark.parametrize("bad", [{"max_side": 0}, {"quality": 0}, {"quality": 101}, {"qualty": 90}])
def test_options_that_make_no_sense_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        StoreOptions(**bad)  # type: ignore[arg-type]
