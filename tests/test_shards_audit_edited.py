"""Edited copies: mirrored, turned, cropped, bordered; found where they are asked for, and named as leaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.scenes import draw
from in_process import command
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from shards.audit.blocks import Blocks, find_blocks
from shards.audit.edited import MIN_BLOCKS, find_edited, find_turned
from shards.audit.facts import make_thumbnail
from shards.dataset.dataset import open_dataset

SIDE, COUNT = 300, 12


def make_scene(seed: int, side: int = SIDE) -> Image.Image:
    """Return a picture of coarse structure and grain, as a camera gives it."""
    rng = np.random.default_rng((seed, 2))
    pixels = np.asarray(draw(seed, side), np.float32)
    grain = np.asarray(
        Image.fromarray(rng.normal(0, 25, (side // 3, side // 3)).astype(np.float32)).resize((side, side))
    )
    return Image.fromarray((pixels * 0.6 + 50 + grain[..., None]).clip(0, 255).astype(np.uint8))


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop(
        (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
    )


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "upside_down": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned_left": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned_right": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "transposed": lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    "transversed": lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    "cropped_by_1_percent": lambda image: crop(image, 0.01, 0.01, 0.01, 0.01),
    "cropped_by_8_percent": lambda image: crop(image, 0.08, 0.08, 0.08, 0.08),
    "cropped_on_two_sides": lambda image: crop(image, 0.1, 0, 0, 0.05),
    "bordered_black": lambda image: ImageOps.expand(image, 15, (0, 0, 0)),
    "bordered_white": lambda image: ImageOps.expand(image, 15, (255, 255, 255)),
    "mirrored_and_cropped": lambda image: crop(ImageOps.mirror(image), 0.05, 0.05, 0.05, 0.05),
    "turned_and_bordered": lambda image: ImageOps.expand(image.transpose(Image.Transpose.ROTATE_270), 12),
}


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [make_scene(seed) for seed in range(COUNT)]


def blocks_of(images: list[Image.Image]) -> list[Blocks]:
    return [find_blocks(np.asarray(image)) for image in images]


@pytest.mark.parametrize("edit", EDITS)
def test_every_edited_copy_is_paired_with_its_original_alone(scenes: list[Image.Image], edit: str) -> None:
    copies = [EDITS[edit](image) for image in scenes]
    assert find_edited(blocks_of([*scenes, *copies])) == [(number, COUNT + number) for number in range(COUNT)]


def test_different_pictures_make_no_pair_and_neither_do_few_or_none(scenes: list[Image.Image]) -> None:
    blocks = blocks_of(scenes)
    assert find_edited(blocks) == find_edited(blocks[:1]) == find_edited([]) == []


def test_what_many_pictures_have_in_common_makes_no_pair_even_where_it_is_nearly_all_of_them() -> None:
    """A dial in every one of them, and a hand that is each one's own: of two alone it is a copy that was changed."""
    images = [make_scene(99) for _ in range(COUNT)]
    for seed, image in enumerate(images):
        image.paste(make_scene(seed).crop((0, 0, 40, 40)), (130, 130))
    assert find_edited(blocks_of(images)) == []
    assert find_edited(blocks_of(images[:2])) == [(0, 1)]


def test_stamp_that_two_pictures_share_makes_no_copy_though_all_else_is_smooth() -> None:
    """Its edges are soft and what is around it is alike: all blocks of both are its own. Far below they differ."""
    ramp = np.linspace(30, 110, SIDE)
    below = np.clip(np.arange(SIDE) - SIDE / 2, 0, None)[:, None] * 0.4
    smooth = [(ramp[:, None] + ramp + share * below).astype(np.uint8) for share in (0, 1)]
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[45:60, 50:250] = 255
    soft, stamp = Image.fromarray(gaussian_filter(mask, 5).astype(np.uint8)), make_scene(99)
    images = [Image.composite(stamp, Image.fromarray(each).convert("RGB"), soft) for each in smooth]
    blocks = blocks_of(images)
    shared = {tuple(place) for place in blocks[0].places.tolist()} & {
        tuple(place) for place in blocks[1].places.tolist()
    }
    assert len(shared) >= 2 * MIN_BLOCKS
    assert find_edited(blocks) == []


def test_pictures_that_share_a_half_are_no_copies() -> None:
    images = [make_scene(0), make_scene(1)]
    images[1].paste(images[0].crop((0, 0, SIDE // 2, SIDE)), (0, 0))
    assert find_edited(blocks_of(images)) == []


def test_picture_that_is_its_own_mirror_image_is_no_copy_of_itself() -> None:
    image = np.asarray(draw(1, 200))
    thumbnail = make_thumbnail(np.concatenate([image, image[:, ::-1]], axis=1)).reshape(-1)
    other = make_thumbnail(np.asarray(draw(2, 200))).reshape(-1)
    assert find_turned(np.stack([thumbnail, other]), np.arange(2)) == set()


@pytest.mark.parametrize("size", [(1, 1), (40, 2000), (31, 33), (64, 64)])
def test_small_and_long_pictures_have_few_blocks_and_no_copy(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (9, 9, 9))
    assert find_edited(blocks_of([image, ImageOps.mirror(image)])) == []


def test_smooth_pictures_are_compared_by_their_turned_thumbnails() -> None:
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(20)]
    images = [image.resize((200, 120), Image.Resampling.BICUBIC) for image in small]
    turned = [image.transpose(turn) for image, turn in zip(images, Image.Transpose, strict=False)]
    thumbnails = np.stack([make_thumbnail(np.asarray(image)).reshape(-1) for image in [*images, *turned]])
    assert find_turned(thumbnails, np.arange(len(thumbnails))) == {(k, 20 + k) for k in range(7)}


def write(root: Path, scenes: list[Image.Image], *, leak: bool) -> Path:
    for number, image in enumerate(scenes):
        for split in ("train", "test"):
            folder = root / split / ("even" if number % 2 == 0 else "odd")
            folder.mkdir(parents=True, exist_ok=True)
        split = "train" if number % 3 else "test"
        image.save(root / split / ("even" if number % 2 == 0 else "odd") / f"{number}.png")
    if leak:  # scene 4 is in train
        crop(ImageOps.mirror(scenes[4]), 0.05, 0.05, 0.05, 0.05).save(root / "test" / "even" / "edited.png")
    return root


def test_leak_by_an_edited_copy_is_named_and_refused_with_the_option_alone(
    scenes: list[Image.Image], tmp_path: Path
) -> None:
    source = write(tmp_path / "source", scenes, leak=True)
    assert command("pack", source, tmp_path / "plain").returncode == 0
    refused = command("pack", source, tmp_path / "out", "--edited-copies")
    assert refused.returncode == 3
    assert "test/even/edited.png [test] = train/even/4.png [train]" in refused.stderr
    audited = command("audit", source, "--edited-copies", "--out", tmp_path / "audit")
    assert audited.returncode == 3
    assert "edited: mirrored, turned, cropped or bordered" in (tmp_path / "audit/audit.html").read_text()
    for remedy, kept in (
        ("--drop-duplicates", COUNT),
        ("--allow-leaks", COUNT + 1),
        ("--merge-and-resplit", COUNT + 1),
    ):
        words = [remedy, "train,test"] if remedy == "--merge-and-resplit" else [remedy]
        out = tmp_path / remedy.strip("-")
        done = command("pack", source, out, "--edited-copies", *words)
        assert done.returncode == 0, done.stderr
        splits = open_dataset(str(out)).manifest.splits
        assert sum(split.samples for split in splits.values()) == kept
    origin = json.loads((tmp_path / "drop-duplicates" / "origin.json").read_text())
    assert "--edited-copies" in json.dumps(origin)


def test_dataset_without_edited_copies_is_the_same_with_and_without_the_option(
    scenes: list[Image.Image], tmp_path: Path
) -> None:
    source = write(tmp_path / "source", scenes, leak=False)
    for name, words in (("plain", []), ("looked", ["--edited-copies"])):
        done = command("pack", source, tmp_path / name, *words)
        assert done.returncode == 0, done.stderr
    plain, looked = (open_dataset(str(tmp_path / name)).fingerprint() for name in ("plain", "looked"))
    assert plain == looked


def test_update_with_the_option_is_refused_and_both_remedies_pack(scenes: list[Image.Image], tmp_path: Path) -> None:
    source, out = write(tmp_path / "source", scenes[:9], leak=False), tmp_path / "out"
    assert command("pack", source, out).returncode == 0
    write(source, scenes, leak=False)
    refused = command("pack", source, out, "--update", "--edited-copies")
    assert refused.returncode == 2
    assert "keeps no blocks of its 9 pictures" in refused.stderr
    assert command("pack", source, out, "--update").returncode == 0
    assert command("pack", source, tmp_path / "anew", "--edited-copies").returncode == 0


def test_option_without_an_audit_is_refused_and_either_alone_packs(scenes: list[Image.Image], tmp_path: Path) -> None:
    source = write(tmp_path / "source", scenes, leak=False)
    refused = command("pack", source, tmp_path / "out", "--audit", "none", "--edited-copies")
    assert refused.returncode == 2
    assert "leave out one of the two" in refused.stderr
    for name, words in (("unaudited", ["--audit", "none"]), ("audited", ["--edited-copies"])):
        assert command("pack", source, tmp_path / name, *words).returncode == 0


def test_unreadable_picture_has_no_blocks_and_is_rejected_as_ever(scenes: list[Image.Image], tmp_path: Path) -> None:
    source = write(tmp_path / "source", scenes, leak=False)
    (source / "train" / "odd" / "torn.png").write_bytes(b"\x89PNG torn")
    done = command("pack", source, tmp_path / "out", "--edited-copies", "--max-reject-rate", "0.5")
    assert done.returncode == 0, done.stderr
    assert "left out 1 unreadable pictures" in done.stdout
