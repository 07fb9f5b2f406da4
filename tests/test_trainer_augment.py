from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.augment import POLICIES, augment

RANDOM = [policy for policy in POLICIES if policy != "none"]


@pytest.fixture(scope="module")
def image() -> Tensor:
    """uint8[3, 24, 24] without any symmetry."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 24, 24), dtype=np.uint8))


def draw(image: Tensor, policy: str, count: int, seed: int = 0, epoch: int = 0) -> list[bytes]:
    return [augment(image, policy, (seed, epoch, sample)).numpy().tobytes() for sample in range(count)]


@pytest.mark.parametrize("policy", RANDOM)
def test_same_key_gives_the_same_pixels(image: Tensor, policy: str) -> None:
    assert draw(image, policy, 30) == draw(image, policy, 30)


@pytest.mark.parametrize("policy", RANDOM)
def test_samples_have_draws_of_their_own(image: Tensor, policy: str) -> None:
    assert len(set(draw(image, policy, 30))) > 1


@pytest.mark.parametrize("policy", RANDOM)
@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}], ids=["epoch", "seed"])
def test_another_epoch_or_seed_has_draws_of_its_own(image: Tensor, policy: str, other: dict[str, int]) -> None:
    assert draw(image, policy, 30, **other) != draw(image, policy, 30)


def test_epoch_1_of_seed_0_is_not_epoch_0_of_seed_1(image: Tensor) -> None:
    assert draw(image, "light", 30, seed=0, epoch=1) != draw(image, "light", 30, seed=1, epoch=0)


def test_no_policy_leaves_the_pixels_alone(image: Tensor) -> None:
    assert torch.equal(augment(image, "none", (0, 0, 0)), image)


@pytest.mark.parametrize("policy", RANDOM)
def test_policy_changes_most_pictures(image: Tensor, policy: str) -> None:
    """None is the identity; `flip` leaves half of the pictures as they are."""
    assert sum(pixels != image.numpy().tobytes() for pixels in draw(image, policy, 200)) > 70


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_policy_keeps_type_and_shape(image: Tensor, policy: str, channels: int) -> None:
    changed = augment(image[:channels], policy, (0, 0, 1))
    assert (changed.dtype, changed.shape, changed.is_contiguous()) == (torch.uint8, (channels, 24, 24), True)


@pytest.mark.parametrize("policy", RANDOM)
def test_policy_leaves_its_input_alone(image: Tensor, policy: str) -> None:
    before = image.clone()
    draw(image, policy, 10)
    assert torch.equal(image, before)


@pytest.mark.parametrize("policy", RANDOM)
def test_draws_are_the_same_from_several_threads(image: Tensor, policy: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda sample: augment(image, policy, (0, 0, sample)).numpy().tobytes(), range(200)))
    assert threaded == draw(image, policy, 200)


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_flip_mirrors_half_of_the_pictures(image: Tensor) -> None:
    counts = Counter(draw(image, "flip", 2000))
    assert set(counts) == {image.numpy().tobytes(), image.flip(2).numpy().tobytes()}
    assert chi_square(list(counts.values())) < 10.8  # p = 0.001 with 1 degree of freedom


def test_square_draws_the_eight_symmetries_equally_often(image: Tensor) -> None:
    symmetries = {
        torch.rot90(side, turns, (1, 2)).numpy().tobytes() for side in (image, image.flip(2)) for turns in range(4)
    }
    counts = Counter(draw(image, "square", 4000))
    assert set(counts) == symmetries
    assert chi_square(list(counts.values())) < 24.3  # p = 0.001 with 7 degrees of freedom


def test_neighbouring_samples_flip_independently(image: Tensor) -> None:
    """Two outcomes of probability 1/2 meet in each of their four ways a quarter of the time."""
    flipped = [pixels != image.numpy().tobytes() for pixels in draw(image, "flip", 4000)]
    pairs = Counter(zip(flipped[::2], flipped[1::2], strict=True))
    assert chi_square([pairs[pair] for pair in ((False, False), (False, True), (True, False), (True, True))]) < 16.3


def test_one_picture_flips_independently_from_epoch_to_epoch(image: Tensor) -> None:
    flipped = [not torch.equal(augment(image, "flip", (0, epoch, 7)), image) for epoch in range(2000)]
    pairs = Counter(zip(flipped[::2], flipped[1::2], strict=True))
    assert chi_square([pairs[pair] for pair in ((False, False), (False, True), (True, False), (True, True))]) < 16.3


def test_light_flips_without_regard_to_where_it_shifts(image: Tensor) -> None:
    """A gradient from left to right falls after a flip, whatever the small shift; half of the pictures do."""
    ramp = torch.arange(24, dtype=torch.uint8).mul(10).expand(1, 24, 24)
    falls = 0
    for sample in range(2000):
        middle = augment(ramp, "light", (0, 0, sample))[0, 12].int()
        falls += int(middle[6] > middle[18])
    assert chi_square([falls, 2000 - falls]) < 10.8
