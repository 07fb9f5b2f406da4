"""What training decodes and crops: the pixels of the contract's decoder, faster; and how far from them it may be."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
import torch
from PIL import Image
from skimage import data
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from shards.dataset.read import Sample
from shards.errors import DecodeError
from shards.order.purposes import Purpose
from shards.pictures.decode import decode
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.feed.augment.seeding import SampleKey, make_numpy_rng
from trainer.feed.geometry import Box, TrainGeometry, decode_sample, decode_upper, draw_box
from trainer.feed.meter import Meter
from trainer.feed.resize import resize
from trainer.recipes.options.augment import AugmentOptions

SPEC = PreprocessSpec(size=64)
RANDOM = AugmentOptions(crop="random")
KEY = SampleKey(0, 1, 2)
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def encode(pixels: npt.NDArray[np.uint8], kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def make_sample(data: bytes, audited: bool = True) -> Sample:
    return Sample(7, 0, 1.0, data, "0" * 32 if audited else "", "a.jpg", "/shards/train/000000.tar", "000000007", 512)


def photographs() -> Iterator[npt.NDArray[np.uint8]]:
    yield from (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())


def gray(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).convert("L"))


ENCODINGS = [
    {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    for quality in (60, 92)
    for subsampling in (0, 1, 2)
    for progressive in (False, True)
]


@pytest.mark.parametrize("options", ENCODINGS, ids=str)
def test_training_decodes_the_pixels_of_the_contract(options: dict[str, Any]) -> None:
    """Odd sides included: the encoder pads them, and the upsampling at the border is the decoder's choice."""
    for pixels in photographs():
        encoded = encode(pixels[:-1, :-3], **options)
        ours = decode_sample(make_sample(encoded), SPEC).permute(1, 2, 0).numpy()
        assert (ours == decode(encoded)).all()


@pytest.mark.parametrize("progressive", [False, True])
def test_gray_jpeg_is_decoded_to_its_luminance_once(progressive: bool) -> None:
    encoded = encode(gray(data.astronaut()), progressive=progressive)
    ours = decode_sample(make_sample(encoded), SPEC)
    assert ours.shape[0] == 1
    assert (ours.expand(3, -1, -1).permute(1, 2, 0).numpy() == decode(encoded)).all()


@pytest.mark.parametrize("kind", ["444", "422", "420", "440", "411", "gray"])
@pytest.mark.parametrize("quality", [60, 95])
def test_upper_rows_are_those_of_the_whole_picture(kind: str, quality: int) -> None:
    """Any number of them but the last two: chroma is interpolated over rows that are not decoded there."""
    for pixels in (data.coffee()[:97, :131], data.chelsea()[:64, :64]):
        if kind == "gray":
            encoded = encode(gray(pixels), quality=quality)
        else:
            encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, colorsubsampling=kind)
        whole = decode_sample(make_sample(encoded), SPEC)
        for rows in range(3, whole.shape[1]):
            upper = decode_upper(encoded, rows)
            assert upper is not None
            assert upper.shape[1:] == (rows, whole.shape[2])
            assert torch.equal(upper[:, : rows - 2], whole[:, : rows - 2])


def test_rows_below_a_part_are_not_decoded() -> None:
    """Seen by what lies there: data that no decoder would take for a picture changes nothing."""
    encoded = encode(data.coffee())
    keys = [SampleKey(0, 0, number) for number in range(9)]
    boxes = [draw_box(400, 600, RANDOM, make_numpy_rng(key, Purpose.CROP)) for key in keys]
    key = next(key for key, box in zip(keys, boxes, strict=True) if box.top + box.height < 250)
    spoilt = encoded[: len(encoded) * 9 // 10] + bytes(len(encoded) // 10) + encoded[-2:]
    with pytest.raises(DecodeError):
        decode_sample(make_sample(spoilt), SPEC)
    ours, theirs = (TrainGeometry(SPEC, RANDOM).load(make_sample(x), key, Meter()) for x in (spoilt, encoded))
    assert torch.equal(ours, theirs)


def save_with_restarts(pixels: npt.NDArray[np.uint8]) -> bytes:
    return encode(pixels, restart_marker_rows=1)


def save_in_scans(pixels: npt.NDArray[np.uint8]) -> bytes:
    return encode(pixels, progressive=True)


def save_and_spoil(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A picture whose data ends within the upper rows."""
    encoded = encode(pixels)
    return encoded[: len(encoded) // 8] + b"\xff\xd9"


@pytest.mark.parametrize("save", [save_with_restarts, save_in_scans, save_and_spoil])
def test_upper_rows_are_left_to_the_whole_picture_where_it_is_odd(
    save: Callable[[npt.NDArray[np.uint8]], bytes],
) -> None:
    assert decode_upper(encode(data.coffee()), 300) is not None
    assert decode_upper(save(data.coffee()), 300) is None


@pytest.mark.parametrize("policy", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize(("channels", "rule"), [(1, 1), (1, 2), (3, 1)])
@pytest.mark.parametrize("shade", ["colour", "gray"])
def test_without_a_crop_training_sees_what_evaluation_sees(policy: Any, channels: Any, rule: Any, shade: str) -> None:
    spec = PreprocessSpec(size=64, policy=policy, channels=channels, luminance=rule)
    encoded = encode(data.coffee() if shade == "colour" else gray(data.coffee()))
    ours = TrainGeometry(spec, AugmentOptions()).load(make_sample(encoded), KEY, Meter())
    assert torch.equal(ours, prepare(encoded, spec))


def crop_by_the_contract(encoded: bytes, box: Box, size: int, mode: str) -> Tensor:
    """The slow way: the contract's decoder, and torchvision's antialiased resize of the same box."""
    image = torch.from_numpy(decode(encoded)).permute(2, 0, 1)
    return transforms.resized_crop(image, box.top, box.left, box.height, box.width, [size, size], MODES[mode], True)


def differ(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """Mean and 99th percentile of the absolute difference, of 255."""
    difference = (ours.int() - theirs.int()).abs().float()
    return float(difference.mean()), float(difference.flatten().quantile(0.99))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [63, 64, 224])
@pytest.mark.parametrize("shade", ["colour", "gray"])
def test_random_part_is_faithful(shade: str, size: int, mode: Any) -> None:
    """Mean at most 1 of 255, 99th percentile at most 6; for colour there is no difference at all."""
    spec = PreprocessSpec(size=size, interpolation=mode)
    geometry = TrainGeometry(spec, RANDOM)
    for number, pixels in enumerate(photographs()):
        encoded, key = encode(pixels if shade == "colour" else gray(pixels)), SampleKey(0, 0, number)
        box = draw_box(*pixels.shape[:2], RANDOM, make_numpy_rng(key, Purpose.CROP))
        theirs = crop_by_the_contract(encoded, box, size, mode)
        mean, high = differ(geometry.load(make_sample(encoded), key, Meter()), theirs)
        assert mean <= (0 if shade == "colour" else 1)
        assert high <= (0 if shade == "colour" else 6)


@pytest.mark.parametrize("shade", ["colour", "gray"])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_fast_decoding_is_near_the_faithful_one_of_the_same_part(shade: str, mode: Any) -> None:
    """The bounds are a little above what the docstring says; a box of whole small pixels reaches 1.1 and 10, 2.7 and
    25."""
    spec, far = PreprocessSpec(size=224, interpolation=mode), {1: (0.0, 0.0), 2: (0.7, 5.0), 4: (1.5, 12.0)}
    scales = set()
    for number, pixels in enumerate([*photographs()] * 2):
        large = np.asarray(Image.fromarray(pixels).resize((1600, 1200), Image.Resampling.LANCZOS))
        encoded, key = encode(large if shade == "colour" else gray(large), quality=92), SampleKey(0, 0, number)
        box = draw_box(1200, 1600, RANDOM, make_numpy_rng(key, Purpose.CROP))
        scale = next(scale for scale in (8, 4, 2, 1) if min(box.height, box.width) >= scale * spec.size)
        if scale == 1 and shade == "gray":
            continue  # of one channel the faithful one itself may differ by 1
        ours = TrainGeometry(spec, RANDOM, fast=True).load(make_sample(encoded), key, Meter())
        mean, high = differ(ours, crop_by_the_contract(encoded, box, 224, mode))
        assert (mean > 0) == (scale > 1)
        assert mean <= far[scale][0]
        assert high <= far[scale][1]
        scales.add(scale)
    assert {2, 4} <= scales


def test_fast_decoding_of_parts_no_larger_than_the_input_is_the_faithful_one() -> None:
    sample = make_sample(encode(data.coffee()))
    ours, theirs = (TrainGeometry(PreprocessSpec(size=512), RANDOM, fast).load(sample, KEY, Meter()) for fast in (1, 0))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("sides", [(375, 500), (1797, 1203), (64, 64)])
def test_snapped_box_covers_the_box_and_lies_in_the_smaller_picture(scale: int, sides: tuple[int, int]) -> None:
    height, width = sides
    small = -(-height // scale), -(-width // scale)
    for number in range(200):
        box = draw_box(height, width, RANDOM, np.random.default_rng(number))
        snapped = box.snap(scale)
        assert snapped.top * scale <= box.top
        assert snapped.left * scale <= box.left
        assert (snapped.top + snapped.height) * scale >= box.top + box.height
        assert (snapped.left + snapped.width) * scale >= box.left + box.width
        assert snapped.top + snapped.height <= small[0]
        assert snapped.left + snapped.width <= small[1]


@pytest.mark.parametrize("audited", [True, False])
@pytest.mark.parametrize("progressive", [False, True])
def test_cut_picture_is_refused_and_never_filled(progressive: bool, audited: bool) -> None:
    encoded = encode(data.coffee(), progressive=progressive)
    geometry = TrainGeometry(SPEC, RANDOM)
    with pytest.raises(DecodeError):
        geometry.load(make_sample(encoded[: len(encoded) // 2], audited), KEY, Meter())


@pytest.mark.parametrize("audited", [True, False])
def test_picture_that_was_cut_and_closed_is_refused(audited: bool) -> None:
    encoded = encode(data.coffee())
    with pytest.raises(DecodeError, match="closed with an end marker"):
        TrainGeometry(SPEC, RANDOM).load(make_sample(encoded[: len(encoded) // 2] + b"\xff\xd9", audited), KEY, Meter())


def test_jpeg_that_nobody_audited_is_turned_upright() -> None:
    """Somebody else's shards may hold them; what we pack is upright."""
    image = Image.fromarray(data.coffee())
    exif = image.getexif()
    exif[0x0112] = 6
    encoded = encode(data.coffee(), exif=exif)
    ours = decode_sample(make_sample(encoded, audited=False), SPEC)
    assert tuple(ours.shape) == (3, 600, 400)
    assert (ours.permute(1, 2, 0).numpy() == decode(encoded)).all()


def test_fast_decoding_leaves_to_the_contract_what_nobody_audited() -> None:
    large = np.asarray(Image.fromarray(data.coffee()).resize((1600, 1200)))
    exif = Image.fromarray(large).getexif()
    exif[0x0112] = 6
    sample = make_sample(encode(large, exif=exif), audited=False)
    ours, theirs = (TrainGeometry(SPEC, RANDOM, fast).load(sample, KEY, Meter()) for fast in (True, False))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_are_cropped_as_jpegs_are(kind: str) -> None:
    encoded = encode(data.chelsea(), kind, lossless=True)
    box = draw_box(*data.chelsea().shape[:2], RANDOM, make_numpy_rng(KEY, Purpose.CROP))
    ours = TrainGeometry(SPEC, RANDOM).load(make_sample(encoded), KEY, Meter())
    assert torch.equal(ours, crop_by_the_contract(encoded, box, 64, "bilinear"))


# padded crops, and what comes before geometry

PADDED = AugmentOptions(crop="padded", crop_resize=80, crop_padding=6)


@pytest.mark.parametrize("policy", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_padded_crop_is_a_part_of_evaluations_picture_of_another_size_with_a_border(policy: Any, channels: Any) -> None:
    """Each is found in it by looking at every place; both sides of both borders are reached, and the middle."""
    spec, encoded, places = PreprocessSpec(size=64, policy=policy, channels=channels), encode(data.coffee()), set()
    if policy == "crop":  # the shorter side, and all of the longer one
        image = torch.from_numpy(decode(encoded)).permute(2, 0, 1)
        image = transforms.rgb_to_grayscale(image) if channels == 1 else image
        whole = transforms.resize(image, [80, 120], antialias=True)
    else:
        whole = prepare(encoded, spec.model_copy(update={"size": 80}))
    whole = torch.nn.functional.pad(whole, (6, 6, 6, 6))
    for number in range(60):
        part = TrainGeometry(spec, PADDED).load(make_sample(encoded), SampleKey(0, 0, number), Meter())
        assert (part.dtype, part.shape) == (torch.uint8, (channels, 64, 64))
        middle = (
            whole[0, 28:-28, 28:-28].unfold(0, 8, 1).unfold(1, 8, 1) == part[0, 28:36, 28:36]
        )  # [tops, lefts, 8, 8]
        found = middle.all(dim=3).all(dim=2).nonzero().tolist()
        fits = [(top, left) for top, left in found if torch.equal(whole[:, top : top + 64, left : left + 64], part)]
        assert len(fits) == 1
        places.add(fits[0])
    tops, lefts = zip(*places, strict=True)
    assert len(places) > 40
    assert min(tops) <= 2
    assert max(tops) >= whole.shape[1] - 64 - 2
    assert min(lefts) <= 4
    assert max(lefts) >= whole.shape[2] - 64 - 6


def test_padded_crop_takes_every_place_equally_often() -> None:
    """Sides of 4 and a border of 1 leave 3 x 3 places for a crop of 4; each pixel has its own value."""
    spec, options = PreprocessSpec(size=16), AugmentOptions(crop="padded", crop_resize=16, crop_padding=1)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    sample, counts = make_sample(encode(pixels, "PNG")), dict[int, int]()
    for number in range(1800):
        middle = int(TrainGeometry(spec, options).load(sample, SampleKey(0, 0, number), Meter())[0, 8, 8])
        counts[middle] = counts.get(middle, 0) + 1
    assert sorted(counts) == [119, 120, 121, 135, 136, 137, 151, 152, 153]
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 26.1  # p = 0.001 with 8 degrees of freedom


def test_padded_crop_has_imagenets_proportion_where_nothing_else_is_said() -> None:
    assert [AugmentOptions().crop_side(size) for size in (224, 32, 299)] == [256, 37, 342]


def test_manual_takes_a_padded_crop_unless_another_one_is_named() -> None:
    assert AugmentOptions(policy="manual").chosen_crop == "padded"
    assert AugmentOptions(policy="manual", crop="none").chosen_crop == "none"
    assert AugmentOptions(policy="autoaugment").chosen_crop == "none"


@pytest.mark.parametrize("crop", ["none", "random", "padded"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_comes_before_geometry_changes_the_decoded_picture_once(crop: Any, channels: Any) -> None:
    """Of the model's channels and the stored sides; fast decoding leaves it whole."""
    seen: list[tuple[int, ...]] = []

    def invert(image: Tensor, key: SampleKey) -> Tensor:
        assert key == KEY
        seen.append(tuple(image.shape))
        return 255 - image

    spec, options = PreprocessSpec(size=64, channels=channels), AugmentOptions(crop=crop)
    encoded = make_sample(encode(data.coffee()))
    ours = TrainGeometry(spec, options, fast=True, before=invert).load(encoded, KEY, Meter())
    plain = TrainGeometry(spec, options).load(encoded, KEY, Meter())
    assert seen == [(channels, 400, 600)]
    inside = plain != 0 if crop == "padded" else torch.ones_like(plain, dtype=torch.bool)  # the border stays black
    assert float((ours.int() + plain.int() - 255).abs()[inside].float().mean()) < 0.6


def test_manual_is_torchvisions_autoaugment_then_resize_then_a_padded_crop() -> None:
    """The X-ray tutorial's, written with torchvision for the same draws."""
    from torchvision.transforms import v2

    from shards.order.purposes import Purpose
    from trainer.feed.augment.policies import build_policy
    from trainer.feed.augment.seeding import make_torch_rng

    options, spec = AugmentOptions(policy="manual"), PreprocessSpec(size=224)
    policy, encoded = build_policy(options), encode(gray(data.coffee()))
    image = torch.from_numpy(decode(encoded)).permute(2, 0, 1)
    assert policy.after is None
    for number in range(8):
        key = SampleKey(0, 0, number)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(make_torch_rng(key, Purpose.BEFORE).initial_seed())
            augmented = v2.AutoAugment(interpolation=InterpolationMode.BILINEAR)(image)
        resized = transforms.pad(transforms.resize(augmented, [256, 256], antialias=True), [4])
        top, left = make_numpy_rng(key, Purpose.CROP).integers(41, size=2).tolist()
        ours = TrainGeometry(spec, options, before=policy.before).load(make_sample(encoded), key, Meter())
        assert torch.equal(ours, transforms.crop(resized, top, left, 224, 224))


# boxes


def test_box_depends_on_the_samples_key_alone() -> None:
    boxes = [draw_box(300, 400, RANDOM, make_numpy_rng(SampleKey(0, 0, 5), Purpose.CROP)) for _ in range(2)]
    other = [
        draw_box(300, 400, RANDOM, make_numpy_rng(SampleKey(*key), Purpose.CROP)) for key in ((0, 0, 6), (0, 1, 5, 0))
    ]
    assert boxes[0] == boxes[1]
    assert boxes[0] not in other


@pytest.mark.parametrize("sides", [(375, 500), (20, 900), (900, 20), (1, 1), (224, 224)])
def test_box_lies_in_the_picture_and_has_the_share_and_shape_that_were_asked_for(sides: tuple[int, int]) -> None:
    height, width = sides
    for number in range(500):
        box = draw_box(height, width, RANDOM, np.random.default_rng(number))
        assert 0 <= box.top <= box.top + box.height <= height
        assert 0 <= box.left <= box.left + box.width <= width
        assert min(box.height, box.width) > 0
        if min(sides) > 200:
            assert 0.08 * 0.97 <= box.height * box.width / (height * width) <= 1.001
            assert 0.74 <= box.width / box.height <= 1.36


def test_boxes_are_spread_as_torchvisions_are() -> None:
    """Mean share, shape and place over 4,000 boxes each; 5 standard errors apart would be chance 1 in a million."""
    from torchvision.transforms.v2 import RandomResizedCrop

    crop, image = RandomResizedCrop(64, RANDOM.crop_scale, RANDOM.crop_ratio), torch.zeros(3, 375, 500)
    torch.manual_seed(0)
    theirs = [crop.make_params([image]) for _ in range(4000)]
    ours = [draw_box(375, 500, RANDOM, np.random.default_rng(number)) for number in range(4000)]
    their_rows = np.array([(p["height"] * p["width"], p["width"] / p["height"], p["top"], p["left"]) for p in theirs])
    our_rows = np.array([(b.height * b.width, b.width / b.height, b.top, b.left) for b in ours])
    error = np.hypot(their_rows.std(axis=0), our_rows.std(axis=0)) / np.sqrt(4000)
    assert (np.abs(their_rows.mean(axis=0) - our_rows.mean(axis=0)) < 5 * error).all()


def test_picture_too_long_for_any_shape_gives_its_middle() -> None:
    narrow = AugmentOptions(crop="random", crop_scale=(0.9, 1.0), crop_ratio=(1.0, 1.0))
    assert draw_box(20, 900, narrow, np.random.default_rng(0)) == Box(0, 440, 20, 20)


# resizing


@pytest.mark.parametrize("sides", [(375, 500), (101, 37), (224, 224), (600, 738), (5, 9), (3, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_torchvisions_to_one_step_and_for_colour_to_the_bit(channels: int, sides: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*sides, channels), dtype=np.uint8)
    image = torch.from_numpy(noise).permute(2, 0, 1)
    difference = (resize(image, 64, "bilinear").int() - transforms.resize(image, [64, 64], antialias=True).int()).abs()
    assert int(difference.max()) <= (0 if channels == 3 else 1)
