"""Equal pictures: found in spite of size, compression and brightness, and never by comparing all with all."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from data.scenes import draw
from PIL import Image, ImageEnhance

from shards.audit import duplicates
from shards.audit.duplicates import MAX_LEADERS, MIN_CORRELATION, NEIGHBOURS, Pairs, correlate, find_duplicates
from shards.audit.facts import Facts, compute_phash, examine, make_thumbnail
from shards.audit.findings import join_pairs
from shards.pictures.decode import DecodeOptions
from trainer.recipes.data.elpv import read_cells

Thumbnails = npt.NDArray[np.uint8]


def compress(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scale(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg_of_quality_50": lambda image: compress(image, "JPEG", quality=50),
    "jpeg_of_quality_90": lambda image: compress(image, "JPEG", quality=90),
    "half_size": lambda image: compress(scale(image, 0.5), "PNG"),
    "double_size": lambda image: compress(scale(image, 2), "PNG"),
    "brighter": lambda image: compress(ImageEnhance.Brightness(image).enhance(1.1), "PNG"),
    "darker": lambda image: compress(ImageEnhance.Brightness(image).enhance(0.9), "PNG"),
    "more_contrast": lambda image: compress(ImageEnhance.Contrast(image).enhance(1.1), "PNG"),
    "less_contrast": lambda image: compress(ImageEnhance.Contrast(image).enhance(0.9), "PNG"),
}


def find(data: Sequence[bytes]) -> Pairs:
    """Return the equal pictures among files."""
    facts = [examine(item, DecodeOptions()) for item in data]
    readable = [item for item in facts if isinstance(item, Facts)]
    assert len(readable) == len(data)
    return find_duplicates(
        [item.pixels_xxh3 for item in readable],
        np.array([item.phash for item in readable], dtype=np.uint64),
        np.frombuffer(b"".join(item.thumbnail for item in readable), np.uint8).reshape(len(readable), -1),
        np.array([item.width for item in readable]),
        np.array([item.height for item in readable]),
    )


def find_thumbnails(thumbnails: Thumbnails, hashes: Sequence[str] | None = None) -> Pairs:
    """Return the equal pictures among those of given thumbnails, all pixels different unless told."""
    phashes = np.array([compute_phash(row.reshape(32, 32)) for row in thumbnails], dtype=np.uint64)
    sides = np.full(len(thumbnails), 100)
    return find_duplicates(hashes or [str(row) for row in range(len(thumbnails))], phashes, thumbnails, sides, sides)


def make_alike(count: int, share: float = 0.15) -> Thumbnails:
    """Return thumbnails that all look alike: a common picture and a little of another one each."""
    common = draw(10_000, 64)
    blends = (Image.blend(common, draw(20_000 + number, 64), share) for number in range(count))
    return np.stack([make_thumbnail(np.asarray(blend)).reshape(-1) for blend in blends])


def add_noise(thumbnails: Thumbnails, rng: np.random.Generator) -> Thumbnails:
    """Return thumbnails with every tenth pixel or so changed by one."""
    noise = rng.choice(np.array([-1, 0, 1]), thumbnails.shape, p=[0.05, 0.9, 0.05])
    return (thumbnails + noise).clip(0, 255).astype(np.uint8)


def ends(pairs: Pairs) -> list[tuple[int, int]]:
    return sorted(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


@pytest.fixture(scope="module")
def originals() -> list[bytes]:
    return [compress(draw(seed, 200), "PNG") for seed in range(30)]


def test_different_pictures_make_no_pair(originals: list[bytes]) -> None:
    assert len(find(originals)) == 0


@pytest.mark.parametrize("kind", COPIES)
def test_every_copy_is_paired_with_its_original(originals: list[bytes], kind: str) -> None:
    copies = [COPIES[kind](draw(seed, 200)) for seed in range(30)]
    pairs = find([*originals, *copies])
    assert ends(pairs) == [(number, number + 30) for number in range(30)]
    assert (pairs.similarity >= MIN_CORRELATION).all()
    assert not pairs.exact.any()


@pytest.mark.parametrize("turn", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90])
def test_mirrored_and_turned_pictures_are_no_copies(originals: list[bytes], turn: Image.Transpose) -> None:
    assert len(find([*originals, *(compress(draw(seed, 200).transpose(turn), "PNG") for seed in range(30))])) == 0


def test_equal_pixels_in_another_container_are_an_exact_pair() -> None:
    pairs = find([compress(draw(1, 200), "PNG"), compress(draw(2, 200), "PNG"), compress(draw(1, 200), "BMP")])
    assert ends(pairs) == [(0, 2)]
    assert pairs.exact.tolist() == [True]
    assert pairs.similarity.tolist() == [1]


def test_many_equal_pictures_are_paired_with_the_first_only() -> None:
    thumbnails = np.repeat(make_alike(1), 20_000, axis=0)
    assert ends(find_thumbnails(thumbnails, ["same"] * 20_000)) == [(0, number) for number in range(1, 20_000)]


def test_copy_of_an_exact_pair_joins_their_cluster() -> None:
    image = draw(3, 200)
    pairs = find([compress(image, "PNG"), compress(image, "BMP"), compress(image, "JPEG", quality=80)])
    assert join_pairs(pairs, 3) == [[0, 1, 2]]


@pytest.mark.parametrize(("side", "found"), [(31, 0), (32, 1)])
def test_pictures_below_32_pixels_are_compared_exactly_only(side: int, found: int) -> None:
    one = np.asarray(draw(4, side))
    other = one.copy()
    other[0, 0] ^= 1
    data = [compress(Image.fromarray(pixels), "PNG") for pixels in (one, other)]
    assert len(find(data)) == found


def test_small_pictures_of_equal_pixels_are_a_pair() -> None:
    assert len(find([compress(draw(5, 8), "PNG"), compress(draw(5, 8), "BMP")])) == 1


def test_flat_pictures_are_compared_exactly_only() -> None:
    blank = [np.full((50, 50, 3), value, np.uint8) for value in (0, 128, 255, 128)]
    blank[1][:25] += 1
    assert ends(find([compress(Image.fromarray(pixels), "PNG") for pixels in [*blank, blank[0]]])) == [(0, 4)]


def test_search_finds_what_comparing_all_with_all_finds() -> None:
    rng = np.random.default_rng(0)
    alike = make_alike(300)
    thumbnails = np.concatenate([alike, add_noise(alike[::3], rng)])
    expected = {
        (left, right)
        for right in range(len(thumbnails))
        for left in np.flatnonzero(
            correlate(thumbnails[:right], np.repeat(thumbnails[right : right + 1], right, axis=0)) >= MIN_CORRELATION
        ).tolist()
    }
    assert 100 <= len(expected) < 300
    assert set(ends(find_thumbnails(thumbnails))) == expected


def test_thousands_of_alike_pictures_are_not_compared_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def count(left: Thumbnails, right: Thumbnails) -> npt.NDArray[np.float32]:
        nonlocal compared
        compared += len(left)
        return correlate(left, right)

    thumbnails = make_alike(3000, share=0.05)
    monkeypatch.setattr(duplicates, "correlate", count)
    find_thumbnails(thumbnails)
    assert 0 < compared <= (MAX_LEADERS + NEIGHBOURS) * 3000 < 3000 * 2999 / 2 / 20


def test_thousands_of_nearly_equal_pictures_are_one_cluster_of_few_pairs() -> None:
    thumbnails = add_noise(np.repeat(make_alike(1), 3000, axis=0), np.random.default_rng(1))
    pairs = find_thumbnails(thumbnails)
    assert join_pairs(pairs, 3000) == [list(range(3000))]
    assert len(pairs) <= 2 * 3000


def test_pairs_are_the_same_from_thumbnails_on_disk(tmp_path: Path) -> None:
    thumbnails = np.repeat(make_alike(20), 2, axis=0)
    thumbnails[::2, :5] += 1
    thumbnails.tofile(tmp_path / "thumbnails")
    mapped = np.memmap(tmp_path / "thumbnails", np.uint8, "r", shape=thumbnails.shape)
    assert ends(find_thumbnails(mapped)) == ends(find_thumbnails(thumbnails)) != []


@pytest.mark.parametrize(("height", "found"), [(10, 0), (30, 1)])
def test_ramp_is_compared_by_thumbnail_once_it_has_contrast(height: int, found: int) -> None:
    ramp = np.repeat(np.linspace(120, 120 + height, 1024)[None], 2, axis=0).round().astype(np.uint8)
    ramp[1, 500] += 1
    assert len(find_thumbnails(ramp)) == found


@pytest.mark.parametrize("count", [0, 1])
def test_no_picture_and_one_picture_make_no_pair(count: int) -> None:
    assert len(find_thumbnails(make_alike(1)[:count])) == 0


@pytest.mark.slow
def test_no_two_of_elpvs_solar_cells_are_equal() -> None:
    assert len(find([cell.path.read_bytes() for cell in read_cells()])) == 0
