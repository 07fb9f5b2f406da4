"""`stream.decode=device`: JPEGs decoded where their batch is computed, by the same code on a CPU and on CUDA."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import run_dir
from skimage import data
from test_trainer_feed import SPEC, corrupt
from test_trainer_feed_geometry import differ, encode, make_sample, photographs
from torch import Tensor

from shards.dataset.dataset import open_dataset
from shards.errors import ShardError, UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed import encoded as module
from trainer.feed.encoded import Encoded, decode_into
from trainer.feed.meter import Meter
from trainer.feed.stream import TrainStream, make_late_load, make_load
from trainer.loop.loop import train
from trainer.ranks.ranks import Ranks
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.ledger import read_ledger
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import RunFolder
from trainer.weights.resolve import resolve_recipe

# torchvision says that torchcodec will take its place; see trainer.feed.encoded.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")

torch.set_num_threads(1)

HERE = Ranks(0, 1, torch.device("cpu"))
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
    ),
]


def make_recipe(data: Path | str, *options: str) -> Recipe:
    return load_recipe("smoke", [f"data={data}", "name=late", "batch_size_global=10", *options])


def open_stream(recipe: Recipe, ranks: Ranks = HERE) -> TrainStream:
    spec = SPEC.model_copy(update={"channels": recipe.preprocess.channels})
    return TrainStream(open_dataset(recipe.data).split("train"), recipe, spec, ranks)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 96 to 160 pixels: JPEGs in colour, gray, CMYK (which pack rewrites), 4:2:0, progressive; and PNGs."""
    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for split, count in {"train": 24, "val": 2, "test": 2}.items():
        for name, photograph in {"cat": data.chelsea(), "cup": data.coffee()}.items():
            (root / "in" / split / name).mkdir(parents=True)
            for number in range(count):
                top, left, height, width = rng.integers((0, 0, 96, 96), (140, 240, 160, 160)).tolist()
                image = Image.fromarray(photograph[top : top + height, left : left + width])
                _save(image, root / "in" / split / name / f"{number}", number % 6)
    pack(find_sources(root / "in"), root / "shards", PackOptions(shard_bytes=60_000))
    return root / "shards"


def _save(image: Image.Image, stem: Path, kind: int) -> None:
    options: dict[str, Any] = {"quality": 92, "subsampling": 2 if kind == 2 else 0, "progressive": kind == 3}
    if kind == 5:
        image.save(stem.with_suffix(".png"))
    else:
        image.convert({1: "L", 4: "CMYK"}.get(kind, "RGB")).save(stem.with_suffix(".jpg"), **options)


Epoch = list[tuple[list[int], Tensor]]
"""Sample ids and pictures of each batch."""


def read_epoch(recipe: Recipe, ranks: Ranks = HERE) -> Epoch:
    stream = open_stream(recipe, ranks)
    try:
        return [(batch.ids.tolist(), batch.images.cpu().clone()) for batch in stream.iterate(1, 0)]
    finally:
        stream.close()


CHANGES = {
    "random": ["augment.crop=random"],
    "flip": ["augment.crop=random", "augment.policy=flip", "augment.erase=0.5"],
    "padded": ["augment.crop=padded", "augment.policy=square"],
    "whole": ["augment.crop=none"],
    "gray": ["augment.crop=random", "augment.policy=flip", "preprocess.channels=1"],
    "mixed": ["augment.crop=random", "augment.mixup=0.2"],
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", CHANGES)
def test_device_makes_the_pixels_of_the_faithful_way(mixed: Path, changes: str, device: str) -> None:
    """The same boxes, mirrors and noise, in batches of all kinds of pictures; on a CPU to the bit."""
    options, ranks = CHANGES[changes], Ranks(0, 1, torch.device(device))
    ours = read_epoch(make_recipe(mixed, *options, "stream.decode=device"), ranks)
    theirs = read_epoch(make_recipe(mixed, *options))
    assert [ids for ids, _ in ours] == [ids for ids, _ in theirs]
    mean, high = differ(*(torch.cat([images for _, images in epoch]) for epoch in (ours, theirs)))
    assert mean <= (0 if device == "cpu" else 1)
    assert high <= (0 if device == "cpu" else 6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("subsampling", [0, 2])
def test_random_parts_of_photographs_are_faithful_on_the_device(subsampling: int, device: str) -> None:
    """Mean at most 1 of 255, 99th percentile at most 6: the bound of the default."""
    spec, recipe, meter = PreprocessSpec(size=224), make_recipe("somewhere", "augment.crop=random"), Meter()
    late, whole = make_late_load(recipe, spec, 0), make_load(recipe, spec, 0)
    samples = [make_sample(encode(pixels, quality=92, subsampling=subsampling)) for pixels in photographs()]
    made = {row: late(sample, row, meter) for row, sample in enumerate(samples)}
    assert all(isinstance(picture, Encoded) for picture in made.values())
    ours = torch.empty((len(samples), *spec.shape), dtype=torch.uint8, device=device)
    decode_into(ours, made, meter)  # type: ignore[arg-type]
    theirs = torch.stack([whole(sample, row, meter) for row, sample in enumerate(samples)])
    mean, high = differ(ours.cpu(), theirs)
    assert mean <= 1
    assert high <= 6


@pytest.mark.parametrize("changes", ["flip", "mixed"])
def test_ranks_and_workers_see_the_same_pixels(mixed: Path, changes: str) -> None:
    options = [*CHANGES[changes], "stream.decode=device"]
    alone = read_epoch(make_recipe(mixed, *options, "workers=0"))
    halves = [
        read_epoch(make_recipe(mixed, *options, "workers=2"), Ranks(rank, 2, torch.device("cpu"))) for rank in (0, 1)
    ]
    for (ids, images), (first_ids, first), (last_ids, last) in zip(alone, *halves, strict=True):
        assert ids == first_ids + last_ids
        own = [first[: len(first_ids)], last[: len(last_ids)]]  # behind them the partners that a rank lacks
        assert torch.equal(images, torch.cat(own))


def count_encoded(recipe: Recipe) -> int:
    """Pictures of an epoch that the feed's threads leave to the device."""
    stream = open_stream(recipe)
    try:
        return sum(len(batch.encoded) for batch in stream._read(stream.plan(0).slices(0, 0, 1), 0))
    finally:
        stream.close()


def test_plain_jpegs_alone_are_left_to_the_device_and_by_default_none(mixed: Path) -> None:
    """Colour, gray, 4:2:0 and progressive ones; not CMYK, not PNG."""
    assert count_encoded(make_recipe(mixed, "stream.decode=device")) == 48 * 4 // 6
    assert count_encoded(make_recipe(mixed)) == 0


def encode_cmyk() -> bytes:
    file = io.BytesIO()
    Image.fromarray(data.coffee()).convert("CMYK").save(file, "JPEG")
    return file.getvalue()


ODD = {
    "CMYK": make_sample(encode_cmyk()),
    "RGB": make_sample(encode(data.coffee(), keep_rgb=True)),
    "WebP": make_sample(encode(data.coffee(), "WEBP")),
    "unaudited": make_sample(encode(data.coffee()), audited=False),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_pictures_are_not_left_to_the_device(kind: str) -> None:
    """Decoders guess colours that are not YCbCr; and who was not audited may be anything."""
    load = make_late_load(make_recipe("somewhere"), SPEC, 0)
    assert isinstance(load(make_sample(encode(data.coffee())), 0, Meter()), Encoded)
    assert isinstance(load(ODD[kind], 0, Meter()), Tensor)


def test_pictures_are_decoded_in_parts_that_a_device_has_room_for(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, parts, decode = make_recipe(mixed, "stream.decode=device"), list[list[int]](), module.decode_jpeg

    def count(pictures: list[Tensor], device: torch.device) -> Any:
        decoded = decode(pictures, device=device)
        parts.append([picture[0].numel() for picture in decoded])
        return decoded

    monkeypatch.setattr(module, "decode_jpeg", count)
    whole = read_epoch(recipe)
    assert len(parts) == len(whole)
    parts.clear()
    monkeypatch.setattr(module, "_PIXELS_AT_ONCE", limit := 40_000)
    shared = read_epoch(recipe)
    assert all(torch.equal(image, other) for (_, image), (_, other) in zip(whole, shared, strict=True))
    assert max(map(sum, parts)) <= limit
    assert any(len(part) > 1 for part in parts)


# what the device's decoder cannot decode


def make_encoded(encoded: bytes, value: int) -> Encoded:
    """A picture that is `value` everywhere when the CPU has to make it, and 255 when the device does."""
    whole = torch.full(SPEC.shape, value, dtype=torch.uint8)
    return Encoded(make_sample(encoded), (400, 600), lambda _: torch.full_like(whole, 255), lambda: whole)


@pytest.mark.parametrize("device", DEVICES)
def test_what_the_device_refuses_is_made_by_the_cpu_and_named(device: str, caplog: pytest.LogCaptureFixture) -> None:
    sound, odd = encode(data.coffee()), b"\xff\xd8\xff\xdb no picture at all"
    pictures = {row: make_encoded(odd if row in (1, 6) else sound, 10 * row) for row in (0, 1, 3, 4, 6)}
    images = torch.zeros((7, *SPEC.shape), dtype=torch.uint8, device=device)
    decode_into(images, pictures, Meter())
    assert images.float().mean(dim=(1, 2, 3)).tolist() == [255, 10, 0, 255, 255, 0, 60]
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "/shards/train/000000.tar key 000000007 at offset 512 is decoded on the CPU instead"
    ] * 2


@pytest.mark.parametrize("device", DEVICES)
def test_cut_picture_ends_the_epoch_with_shard_key_and_offset(device: str) -> None:
    encoded = encode(data.coffee())
    picture = make_late_load(make_recipe("somewhere"), SPEC, 0)(make_sample(encoded[: len(encoded) // 2]), 0, Meter())
    assert isinstance(picture, Encoded)
    images = torch.zeros((1, *SPEC.shape), dtype=torch.uint8, device=device)
    with pytest.raises(ShardError) as caught:
        decode_into(images, {0: picture}, Meter())
    assert str(caught.value).startswith("/shards/train/000000.tar key 000000007 at offset 512: ")
    assert str(caught.value).endswith("Restore the shard from a backup or pack again")


@pytest.mark.parametrize("workers", [0, 2])
def test_picture_that_changed_after_packing_ends_the_epoch_before_it_is_decoded(
    mixed: Path, tmp_path: Path, workers: int
) -> None:
    """A device's decoder may fill what is missing and say nothing."""
    shutil.copytree(mixed, tmp_path / "copy")
    tar, _, _ = corrupt(tmp_path / "copy", 2)
    stream = open_stream(make_recipe(tmp_path / "copy", "stream.decode=device", f"workers={workers}"))
    with pytest.raises(ShardError, match=r"at offset .* bytes are not those that were packed; restore") as caught:
        list(stream.iterate(0, 0))
    stream.close()
    assert str(caught.value).startswith(tar)


# the option


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["augment.policy=strong"], "augment.policy=strong of torchvision"),
        (["augment.policy=manual"], "augment.policy=manual of torchvision"),
        (["augment.policy=flip", "augment.backend=albumentations"], "augment.policy=flip of albumentations"),
        (["augment.policy=none", "augment.pipeline=[{op: RandomRotation, degrees: 9}]"], "augment.pipeline of torch"),
    ],
)
def test_what_changes_pixels_on_the_cpu_is_refused(options: list[str], chosen: str) -> None:
    with pytest.raises(UsageError, match=rf"stream.decode=device decodes on the GPU, but {chosen}"):
        make_recipe("somewhere", *options, "stream.decode=device")
    make_recipe("somewhere", *options)


def test_run_that_decodes_on_the_device_trains_as_one_that_does_not(mixed: Path, tmp_path: Path) -> None:
    """On a CPU: the same pixels in its ledger, and the same loss; its metrics say that it did."""
    ledgers, metrics = [], []
    for way in ("device", "faithful"):
        options = ["augment.crop=random", "augment.policy=flip", "ledger=true", "epochs=2", "track.wandb=disabled"]
        placed = ["model=timm/test_efficientnet", f"storage.root={tmp_path / way}", f"stream.decode={way}"]
        recipe = resolve_recipe(make_recipe(mixed, *options, *placed))
        run_dir(recipe).mkdir(parents=True)
        assert train(recipe, RunFolder.of(recipe), HERE, lambda _: None) == "finished"
        ledgers.append(read_ledger(run_dir(recipe) / "ledger"))
        metrics.append(read_metrics(run_dir(recipe)))
    assert ledgers[0].num_rows == 2 * 48
    assert ledgers[0].equals(ledgers[1])
    for late, whole in zip(*metrics, strict=True):
        assert late["train/loss"] == whole["train/loss"]
        assert late["feed/device_s"] > 0 == whole["feed/device_s"]
