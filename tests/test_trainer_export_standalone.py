"""The sections of the program beside an export: its pixels and decisions are those of the bundle, to the bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from data.make_hostile import HOSTILE, Hostile
from decisions import DECISIONS, NAMES, compare
from odd_pictures import LEFT_OUT, MORE, UNREAD, scene

from shards.errors import DecodeError
from shards.pictures.decode import DecodeOptions, decode
from shards.pictures.shrink import shrink_pixels
from trainer.contract.decision.decision import answer
from trainer.contract.preprocess import PreprocessSpec, apply_geometry
from trainer.export.explanation import describe_answer
from trainer.export.standalone import decision as standalone_decision
from trainer.export.standalone import geometry
from trainer.export.standalone.decode import PictureError
from trainer.export.standalone.decode import decode as decode_alone

EVERY = [*HOSTILE, *(Hostile(name, "", make, (1, 1)) for name, make in MORE.items())]
OPTIONS = [DecodeOptions(), DecodeOptions(gray_range=(100, 30000), background=(10, 200, 90), frames="refuse")]


@pytest.mark.parametrize("options", OPTIONS, ids=["usual", "chosen"])
@pytest.mark.parametrize("item", EVERY, ids=lambda item: item.name)
def test_the_program_decodes_to_the_same_pixels_or_refuses(item: Hostile, options: DecodeOptions) -> None:
    data, said = item.make(), options.model_dump(mode="json")
    try:
        expected = decode(data, options)
    except DecodeError:
        with pytest.raises(PictureError, match=r"^(the picture|the embedded)"):
            decode_alone(data, said)
        return
    if item.name in LEFT_OUT:
        with pytest.raises(PictureError, match=UNREAD):
            decode_alone(data, said)
    else:
        np.testing.assert_array_equal(decode_alone(data, said), expected)


def test_what_is_no_picture_is_refused_as_the_endpoint_refuses_it() -> None:
    with pytest.raises(PictureError, match=r"^the picture cannot be decoded \(5 bytes: no known picture format\)$"):
        decode_alone(b"hello", DecodeOptions().model_dump())


def test_a_dicom_file_is_refused_by_name() -> None:
    with pytest.raises(PictureError, match=f"a DICOM file, {UNREAD}"):
        decode_alone(bytes(128) + b"DICM" + bytes(50), DecodeOptions().model_dump(mode="json"))


SIZES = [(1, 1), (1, 300), (300, 2), (37, 41), (64, 64), (300, 33), (407, 311)]


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "fit",
    [
        {"policy": "stretch", "size": 64},
        {"policy": "crop", "size": 24, "resize": 31},
        {"policy": "crop", "size": 32, "resize": 43, "rounding": "down"},
        {"policy": "letterbox", "size": 51, "fill": 9},
    ],
    ids=["stretch", "crop", "crop-down", "letterbox"],
)
def test_the_program_fits_pictures_bit_for_bit(fit: dict[str, Any], kind: Any) -> None:
    for (width, height), channels, max_side in itertools.product(SIZES, (1, 3), (None, 100)):
        rule = 2 if max_side else 1
        spec = PreprocessSpec(**fit, interpolation=kind, channels=channels, luminance=rule, max_side=max_side)
        pixels = np.array(scene(width, height))
        expected = apply_geometry(shrink_pixels(pixels, max_side), spec).numpy()
        actual = geometry.fit(geometry.shrink(pixels, max_side), spec.model_dump(mode="json"))
        np.testing.assert_array_equal(actual, expected, err_msg=str(spec))


@pytest.mark.parametrize("name", DECISIONS)
def test_the_program_decides_as_the_bundle_does(name: str) -> None:
    decided = DECISIONS[name]
    stated = decided.state_rule().model_dump(mode="json")
    ties = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, -3.0], [-900.0, -900.0, -950.0], [800.0, 0.0, 800.0]])
    for logits in torch.cat([torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), ties]):
        expected = answer(logits, NAMES, decided).describe()
        actual = standalone_decision.decide(logits.numpy(), NAMES, stated, None)
        assert compare(actual, expected) < 1e-12


@pytest.mark.parametrize("name", DECISIONS)
def test_the_page_says_the_decision_in_words(name: str) -> None:
    decided = DECISIONS[name].state_rule()
    words = " / ".join(describe_answer(decided, NAMES))
    wanted = [repr(point.threshold) for point in [decided.point, *(decided.points or [])] if point]
    wanted += [repr(number) for number in (decided.conformal.thresholds if decided.conformal else [])]
    wanted += [f"temperature {decided.temperature!r}"] if decided.temperature else []
    wanted += ["green: ln(0.7 / 0.25)"] if decided.priors else []
    wanted += [f"probability {decided.abstain_below!r}"] if decided.abstain_below else []
    wanted += ["sigmoid" if decided.rule == "each" else "softmax"]
    if name == "never":
        wanted = ["never red", "softmax"]
    assert [each for each in wanted if each not in words] == []
    assert (decided.rule == "threshold") == (decided.point is not None)
