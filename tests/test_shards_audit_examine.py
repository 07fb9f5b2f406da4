"""The audit's journal: what it remembers, and what it must not believe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.make_hostile import deep, deep_ramp
from PIL import Image

from shards.dataset.verify import verify_dataset
from shards.errors import ShardError
from shards.packing.encode import StoreOptions
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.pictures.decode import DecodeOptions
from shards.sources.find import find_sources
from shards.splits.splits import SplitOptions

ALL_TRAIN = PackOptions(split=SplitOptions(shares={}))


def make_folder(root: Path) -> Path:
    for name in "ab":
        (root / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng((ord(name), number)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_pictures_are_audited_anew_for_other_decoding_options(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in")
    (folder / "a/scan.png").write_bytes(deep(deep_ramp(4095), "PNG"))
    with pytest.raises(ShardError, match="--bits 12"):
        pack(find_sources(folder), tmp_path / "out", ALL_TRAIN)
    twelve = StoreOptions(decode=DecodeOptions(gray_range=(0, 4095)))
    pack(find_sources(folder), tmp_path / "out", ALL_TRAIN.model_copy(update={"store": twelve}))
    assert verify_dataset(tmp_path / "out").pictures == 7


def test_picture_that_changed_after_a_refusal_is_audited_anew(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in")
    (folder / "a/0.png").write_bytes(b"")
    with pytest.raises(ShardError, match="1 of 6 pictures cannot be read"):
        pack(find_sources(folder), tmp_path / "out", ALL_TRAIN)
    Image.new("RGB", (16, 16), "red").save(folder / "a/0.png")
    assert pack(find_sources(folder), tmp_path / "out", ALL_TRAIN).quarantined == 0
    assert verify_dataset(tmp_path / "out").pictures == 6
