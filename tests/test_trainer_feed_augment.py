from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from shards.order.purposes import Purpose
from trainer.feed.augment.albumentations_policies import A, Sharpness, compose_photometric, seed_transforms
from trainer.feed.augment.library import Change
from trainer.feed.augment.operations import chain, flip
from trainer.feed.augment.policies import build_policy
from trainer.feed.augment.seeding import SampleKey, make_numpy_rng, make_python_rng, make_torch_rng
from trainer.feed.augment.torch_random import DrawFrom
from trainer.feed.augment.torchvision_policies import compose_photometric as compose_torchvision_photometric
from trainer.feed.augment.torchvision_policies import seed_transform
from trainer.recipes.options.augment import POLICIES as TABLE
from trainer.recipes.options.augment import AugmentOptions

ROOT = Path(__file__).parent.parent
# What is added to the table is tested by all that is parametrised here, by each library that it is there for.
NAMED = {
    f"{name}/{backend}": {"policy": name, "backend": backend} for name, row in TABLE.items() for backend in row.builders
}
WRITTEN = {
    "erase": {"erase": 0.5},
    "torchvision pipeline": {
        "pipeline": [
            {"op": "RandomRotation", "degrees": 10, "interpolation": "bilinear"},
            {"op": "RandomApply", "transforms": [{"op": "GaussianBlur", "kernel_size": 3}], "p": 0.5},
            {"op": "ColorJitter", "brightness": 0.2},
        ]
    },
    "albumentations pipeline": {
        "backend": "albumentations",
        "pipeline": [
            {"op": "Rotate", "limit": 10, "border_mode": "reflect"},
            {"op": "OneOf", "transforms": [{"op": "Blur"}, {"op": "GaussNoise"}], "p": 0.5},
            {"op": "RandomBrightnessContrast", "brightness_limit": [-0.2, 0.2]},
        ],
    },
    "erased pipeline": {"pipeline": [{"op": "RandomHorizontalFlip"}], "erase": 0.5},
}
POLICIES: dict[str, dict[str, Any]] = {**NAMED, **WRITTEN}
RANDOM = [policy for policy in POLICIES if not policy.startswith("none")]


@pytest.fixture(scope="module")
def image() -> Tensor:
    """uint8[3, 24, 24] without any symmetry."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 24, 24), dtype=np.uint8))


def change(policy: str) -> Change:
    """Return what a policy does, before geometry or after it."""
    options = AugmentOptions.model_validate(POLICIES.get(policy) or {"policy": policy})
    built = build_policy(options)
    changes = [part for part in (built.before, built.after) if part is not None]
    assert len(changes) <= 1
    return changes[0] if changes else lambda image, _key: image


CHANGES: dict[str, Change] = {}


def augment(image: Tensor, policy: str, key: SampleKey | tuple[int, int, int]) -> Tensor:
    if policy not in CHANGES:
        CHANGES[policy] = change(policy)
    return CHANGES[policy](image, SampleKey(*key))


def draw(image: Tensor, policy: str, count: int, seed: int = 0, epoch: int = 0, copy: int = 0) -> list[bytes]:
    keys = [SampleKey(seed, epoch, sample, copy) for sample in range(count)]
    return [augment(image, policy, key).numpy().tobytes() for key in keys]


@pytest.mark.parametrize("policy", RANDOM)
def test_same_key_gives_the_same_pixels(image: Tensor, policy: str) -> None:
    assert draw(image, policy, 30) == draw(image, policy, 30)


@pytest.mark.parametrize("policy", RANDOM)
def test_samples_have_draws_of_their_own(image: Tensor, policy: str) -> None:
    assert len(set(draw(image, policy, 30))) > 1


@pytest.mark.parametrize("policy", RANDOM)
@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}, {"copy": 1}], ids=["epoch", "seed", "copy"])
def test_another_epoch_seed_or_copy_has_draws_of_its_own(image: Tensor, policy: str, other: dict[str, int]) -> None:
    assert draw(image, policy, 30, **other) != draw(image, policy, 30)


def test_epoch_1_of_seed_0_is_not_epoch_0_of_seed_1(image: Tensor) -> None:
    assert draw(image, "light", 30, seed=0, epoch=1) != draw(image, "light", 30, seed=1, epoch=0)


def test_plain_tuple_is_a_key_of_a_first_showing(image: Tensor) -> None:
    assert torch.equal(augment(image, "strong", (1, 2, 3)), augment(image, "strong", SampleKey(1, 2, 3, copy=0)))


def test_no_policy_leaves_the_pixels_alone(image: Tensor) -> None:
    assert torch.equal(augment(image, "none", (0, 0, 0)), image)


@pytest.mark.parametrize("policy", RANDOM)
def test_policy_changes_most_pictures(image: Tensor, policy: str) -> None:
    """None is the identity; `flip` and `erase` leave half of the pictures as they are."""
    assert sum(pixels != image.numpy().tobytes() for pixels in draw(image, policy, 200)) > 70


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_policy_keeps_type_and_shape(image: Tensor, policy: str, channels: int) -> None:
    """Over samples enough that each operation comes."""
    for sample in range(60):
        changed = augment(image[:channels], policy, SampleKey(0, 0, sample))
        assert (changed.dtype, changed.shape) == (torch.uint8, (channels, 24, 24))


@pytest.mark.parametrize("policy", NAMED)
def test_policy_changes_the_decoded_picture_or_the_models_input_as_its_row_says(policy: str) -> None:
    name = policy.partition("/")[0]
    built = build_policy(AugmentOptions.model_validate(NAMED[policy]))
    assert (built.before is not None) == TABLE[name].decoded
    assert (built.after is not None) == (name != "none" and not TABLE[name].decoded)


@pytest.mark.parametrize("policy", [f"{name}/torchvision" for name, row in TABLE.items() if row.moves])
def test_policy_that_moves_pixels_by_its_row_does_no_more(image: Tensor, policy: str) -> None:
    """The picture's numbers are there as often as before."""
    counts = torch.bincount(image.flatten(), minlength=256)
    for sample in range(60):
        changed = augment(image, policy, (0, 0, sample))
        assert torch.equal(torch.bincount(changed.flatten(), minlength=256), counts)


@pytest.mark.parametrize("policy", RANDOM)
def test_pixels_do_not_depend_on_how_the_picture_lies_in_memory(image: Tensor, policy: str) -> None:
    """Geometry hands on whatever layout was cheapest to make, and so does augment; the feed copies once."""
    channels_last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert draw(channels_last, policy, 50) == draw(image, policy, 50)


@pytest.mark.parametrize("policy", RANDOM)
@pytest.mark.parametrize("channels", [1, 3])
def test_policy_leaves_its_input_alone(image: Tensor, policy: str, channels: int) -> None:
    picture = image[:channels].clone()
    draw(picture, policy, 50)
    assert torch.equal(picture, image[:channels])


@pytest.mark.parametrize("policy", RANDOM)
def test_policy_moves_no_global_generator(image: Tensor, policy: str) -> None:
    def states() -> list[str]:
        return [torch.get_rng_state().numpy().tobytes().hex(), str(np.random.get_state()), str(random.getstate())]

    before = states()
    draw(image, policy, 50)
    assert states() == before


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that give way every few instructions, so that what they share is seen half done."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("policy", RANDOM)
def test_pixels_are_the_same_from_8_threads_in_another_order(image: Tensor, policy: str) -> None:
    order = np.random.default_rng(1).permutation(160).tolist()
    with ThreadPoolExecutor(8) as pool:
        shuffled = pool.map(lambda sample: augment(image, policy, SampleKey(0, 0, sample)).numpy().tobytes(), order)
        threaded = dict(zip(order, shuffled, strict=True))
    assert [threaded[sample] for sample in range(160)] == draw(image, policy, 160)


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


def flip_down(image: Tensor, rng: np.random.Generator) -> Tensor:
    return image.flip(1) if rng.random() < 0.5 else image


def build_flips() -> list[A.BasicTransform]:
    return [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]


def build_after(**options: Any) -> Change:
    built = build_policy(AugmentOptions.model_validate(options)).after
    assert built is not None
    return built


TWO_FLIPS: dict[str, Change] = {
    "own": chain(flip, flip_down),
    "torchvision": seed_transform(v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])),
    "albumentations": seed_transforms(build_flips),
    "torchvision pipeline": build_after(pipeline=[{"op": "RandomHorizontalFlip"}, {"op": "RandomVerticalFlip"}]),
    "albumentations pipeline": build_after(
        backend="albumentations", pipeline=[{"op": "HorizontalFlip"}, {"op": "VerticalFlip"}]
    ),
    "nested pipeline": build_after(
        backend="albumentations",
        pipeline=[{"op": "Sequential", "transforms": [{"op": "HorizontalFlip"}, {"op": "VerticalFlip"}], "p": 1}],
    ),
}


@pytest.mark.parametrize("backend", TWO_FLIPS)
def test_two_flips_of_one_sample_are_independent(image: Tensor, backend: str) -> None:
    counts = Counter(TWO_FLIPS[backend](image, SampleKey(0, 0, sample)).numpy().tobytes() for sample in range(4000))
    outcomes = [image, image.flip(1), image.flip(2), image.flip(1, 2)]
    assert chi_square([counts[outcome.numpy().tobytes()] for outcome in outcomes]) < 16.3
    assert counts.total() == 4000


PUBLISHED = {
    "autoaugment": v2.AutoAugment,
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
    "augmix": v2.AugMix,
    "manual": v2.AutoAugment,
}


@pytest.mark.parametrize("policy", PUBLISHED)
@pytest.mark.parametrize("channels", [1, 3])
def test_published_policy_gives_the_pixels_of_torchvision_for_the_same_seed(
    image: Tensor, policy: str, channels: int
) -> None:
    transform = PUBLISHED[policy](interpolation=v2.InterpolationMode.BILINEAR)
    with torch.random.fork_rng(devices=[]):
        for sample in range(100):
            key = SampleKey(0, 0, sample)
            torch.manual_seed(
                make_torch_rng(key, Purpose.BEFORE if policy == "manual" else Purpose.OPERATIONS).initial_seed()
            )
            expected = transform(image[:channels])
            assert torch.equal(augment(image[:channels], policy, key), expected)


def test_set_random_seed_still_makes_two_flips_agree() -> None:
    """Why albumentations_policies gives generators. When this fails, albumentations has healed: a seed would do."""
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    compose, outcomes = A.Compose(build_flips()), Counter[str]()
    for seed in range(200):
        compose.set_random_seed(seed)
        changed = compose(image=pixels)["image"]
        outcomes["both" if np.array_equal(changed, pixels[::-1, ::-1]) else str(np.array_equal(changed, pixels))] += 1
    assert set(outcomes) == {"both", "True"}


@pytest.fixture(scope="module")
def scene() -> Tensor:
    """uint8[3, 48, 48] with smooth colours that no factor up to 1.5 saturates much."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 48), torch.linspace(0, 4, 48), indexing="ij")
    return torch.stack([100 + 50 * rows.sin(), 90 + 40 * columns.cos(), 80 + 30 * (rows + columns).sin()]).byte()


FACTORS: list[tuple[int, str, Callable[[Tensor, float], Tensor]]] = [
    (0, "brightness", v2.functional.adjust_brightness),
    (1, "contrast", v2.functional.adjust_contrast),
    (2, "saturation", v2.functional.adjust_saturation),
    (3, "factor", v2.functional.adjust_sharpness),
]


def apply_operation(number: int, image: Tensor, sample: int) -> tuple[Tensor, dict[str, float]]:
    """Return what one operation of `photometric` makes of a picture, and the parameters that it drew."""
    operation, key = compose_photometric()[0].transforms[number], SampleKey(0, 0, sample)
    operation.set_random_state(make_numpy_rng(key, Purpose.OPERATIONS), make_python_rng(key, Purpose.OPERATIONS))
    changed = operation(image=np.ascontiguousarray(image.permute(1, 2, 0).numpy()), force_apply=True)["image"]
    return torch.from_numpy(changed).permute(2, 0, 1), operation.params


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("number", "name", "reference"), FACTORS, ids=[name for _, name, _ in FACTORS])
def test_photometric_factors_are_those_of_torchvision(
    scene: Tensor, number: int, name: str, reference: Callable[[Tensor, float], Tensor], channels: int
) -> None:
    factors = []
    for sample in range(200):
        changed, params = apply_operation(number, scene[:channels], sample)
        expected = reference(scene[:channels], params[name])
        assert (changed.int() - expected.int()).abs().max() <= 2
        factors.append(params[name])
    assert 0.5 <= min(factors) < 0.53
    assert 1.47 < max(factors) <= 1.5


def test_photometric_rotates_by_up_to_30_degrees() -> None:
    """A dot to the right of the middle tells the angle."""
    dot = torch.zeros(1, 101, 101, dtype=torch.uint8)
    dot[0, 48:53, 88:93] = 255
    angles = []
    for sample in range(200):
        turned = apply_operation(4, dot, sample)[0][0].double()
        rows, columns = torch.meshgrid(torch.arange(101) - 50, torch.arange(101) - 50, indexing="ij")
        angles.append(float(torch.rad2deg(torch.atan2((turned * rows).sum(), (turned * columns).sum()))))
    assert -30.5 < min(angles) < -29
    assert 29 < max(angles) < 30.5


def test_photometric_noise_has_sigma_up_to_10_and_differs_by_channel() -> None:
    grey = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    sigmas = []
    for sample in range(200):
        changed = apply_operation(5, grey, sample)[0].double()
        assert abs(float(changed.mean()) - 128) < 1  # the library cuts fractions off: half a step darker
        sigmas.append(float(changed.std()))
        assert sigmas[-1] < 1 or not torch.equal(changed[0], changed[1])
    assert min(sigmas) < 0.8
    assert 9.5 < max(sigmas) < 10.5


def test_photometric_operations_come_half_of_the_time_each_and_in_any_order(scene: Tensor) -> None:
    compose = A.Compose(compose_photometric(), save_applied_params=True)
    pixels = np.ascontiguousarray(scene.permute(1, 2, 0).numpy())
    rotated = noised = noise_first = 0
    lengths = Counter[int]()
    for sample in range(2000):
        key = SampleKey(0, 0, sample)
        compose.set_random_state(make_numpy_rng(key, Purpose.OPERATIONS), make_python_rng(key, Purpose.OPERATIONS))
        names = [name for name, _ in compose(image=pixels)["applied_transforms"]]
        lengths[len(names)] += 1
        rotated += "Rotate" in names
        noised += "GaussNoise" in names
        noise_first += {"Rotate", "GaussNoise"} <= set(names) and names.index("GaussNoise") < names.index("Rotate")
    for count, share in ((rotated, 1 / 2), (noised, 1 / 2), (noise_first, 1 / 8)):
        expected = np.array([2000 * share, 2000 * (1 - share)])
        assert float(((np.array([count, 2000 - count]) - expected) ** 2 / expected).sum()) < 10.8
    binomial = 2000 * np.array([1, 6, 15, 20, 15, 6, 1]) / 64
    assert float(((np.array([lengths[n] for n in range(7)]) - binomial) ** 2 / binomial).sum()) < 22.5  # 6 degrees


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("number", "name", "reference"), FACTORS, ids=[name for _, name, _ in FACTORS])
def test_photometric_of_torchvision_draws_the_same_factors(
    scene: Tensor, number: int, name: str, reference: Callable[[Tensor, float], Tensor], channels: int
) -> None:
    operation, factors = compose_torchvision_photometric().transforms[number].transforms[0], []
    for sample in range(200):
        with DrawFrom(make_torch_rng(SampleKey(0, 0, sample), Purpose.OPERATIONS)):
            factors.append(operation.make_params([])["factor"])
        changed = seed_transform(operation)(scene[:channels], SampleKey(0, 0, sample))
        assert torch.equal(changed, reference(scene[:channels], factors[-1]))
    assert 0.5 <= min(factors) < 0.53
    assert 1.47 < max(factors) <= 1.5


def test_photometric_of_torchvision_is_six_operations_of_probability_half_in_random_order() -> None:
    policy = compose_torchvision_photometric()
    assert isinstance(policy, v2.RandomOrder)
    assert [(type(one), one.p) for one in policy.transforms] == [(v2.RandomApply, 0.5)] * 6
    rotation = policy.transforms[4].transforms[0]
    assert (rotation.degrees, rotation.fill) == ([-30.0, 30.0], 0)


def test_noise_of_photometric_of_torchvision_has_sigma_up_to_10_and_comes_half_of_the_time() -> None:
    """Nothing else makes the middle of a grey picture uneven; sigma below 0.4 leaves it, which is 4 % of them."""
    grey, middle = torch.full((3, 31, 31), 128, dtype=torch.uint8), slice(13, 18)
    sigmas = []
    for sample in range(600):
        changed = augment(grey, "photometric/torchvision", SampleKey(0, 0, sample))[:, middle, middle]
        sigmas.append(float(changed.double().std()))
    assert 0.43 < sum(sigma > 0 for sigma in sigmas) / 600 < 0.53
    noise = compose_torchvision_photometric().transforms[5].transforms[0]
    with DrawFrom(torch.Generator().manual_seed(0)):
        drawn = [noise.make_params([])["factor"] * 255 for _ in range(200)]
    assert 0 <= min(drawn) < 0.5
    assert 9.5 < max(drawn) <= 10


BOTH = pytest.mark.parametrize("backend", ["torchvision", "albumentations"])


@BOTH
def test_light_moves_half_of_the_pictures_by_whole_pixels_up_to_a_twentieth(backend: str) -> None:
    """Of 40 pixels, by -2 to 2 either way; where each pixel came from is found by its value, as reflection has it."""
    values = torch.arange(40, dtype=torch.uint8)
    rows, columns = values.repeat_interleave(40).view(1, 40, 40), values.repeat(40).view(1, 40, 40)
    moves = Counter[tuple[int, int]]()
    for sample in range(2000):
        key = SampleKey(0, 0, sample)
        down, right = (augment(side, f"light/{backend}", key)[0].int() for side in (rows, columns))
        if right[0, 5] > right[0, 30]:  # mirrored
            right = 39 - right
        move = int(20 - down[20, 0]), int(20 - right[0, 20])
        for shown, by in ((down[:, 0], move[0]), (right[0], move[1])):
            assert shown.tolist() == np.pad(np.arange(40), 2, mode="reflect")[2 - by : 42 - by].tolist()
        moves[move] += 1
    still = moves.pop((0, 0))
    assert set(moves) <= {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    assert len(moves) == 24
    expected = np.array([2000 * (1 / 2 + 1 / 50), 2000 * (1 / 2 - 1 / 50)])
    assert float(((np.array([still, 2000 - still]) - expected) ** 2 / expected).sum()) < 10.8
    assert chi_square(list(moves.values())) < 49.7  # p = 0.001 with 23 degrees of freedom


def load_fixed_pictures() -> list[Tensor]:
    """Photographs that come with scikit-image, at 96 pixels as evaluation resizes them, and noise; all of 64 to 191."""
    from skimage import data

    photographs = [data.chelsea(), data.astronaut(), data.coffee(), data.camera()]
    pictures = [torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)[:1] for pixels in photographs]
    resized = [v2.functional.resize(picture, [96, 96], antialias=True) for picture in pictures]
    noise = np.random.default_rng(0).integers(0, 256, (1, 96, 96), dtype=np.uint8)
    return [picture // 2 + 64 for picture in [*resized, torch.from_numpy(noise)]]


def measure_energy(picture: Tensor) -> float:
    """The mean square of the Laplacian in the middle, where no border comes in."""
    pixels = picture[0, 15:-15, 15:-15].double()
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((around - 4 * pixels[1:-1, 1:-1]).square().mean())


def measure(change: Change, pictures: list[Tensor]) -> tuple[float, float]:
    """Return the share of its Laplacian energy that a picture keeps on average, and the share of black pixels."""
    kept, black = [], []
    for number, picture in enumerate(pictures):
        changed = [change(picture, SampleKey(0, number, sample)) for sample in range(100)]
        kept.append(np.mean([measure_energy(one) for one in changed]) / measure_energy(picture))
        black.append(np.mean([float((one == 0).double().mean()) for one in changed]))
    return float(np.mean(kept)), float(np.mean(black))


def interpolate(image: Tensor, rng: np.random.Generator) -> Tensor:
    """What light and strong did before: turn, move and scale between pixels, onto black."""
    angle, x, y, scale = rng.uniform((-5, -0.05, -0.05, 0.9), (5, 0.05, 0.05, 1.1)).tolist()
    side = image.shape[-1]
    moved = [round(x * side), round(y * side)]
    return v2.functional.affine(image, angle, moved, scale, [0.0, 0.0], v2.InterpolationMode.BILINEAR)


def test_what_light_and_strong_did_before_lost_energy_and_brought_black_pixels_in() -> None:
    kept, black = measure(chain(interpolate), load_fixed_pictures())
    assert kept < 0.6
    assert black > 0.04


@BOTH
@pytest.mark.parametrize("policy", ["light", "strong"])
def test_light_and_strong_lose_no_energy_and_bring_no_black_pixels_in(policy: str, backend: str) -> None:
    """`strong` also changes brightness and contrast, each by factors whose mean square is 1 + 0.04 / 3."""
    kept, black = measure(change(f"{policy}/{backend}"), load_fixed_pictures())
    assert kept == (pytest.approx(1, abs=0.01) if policy == "light" else pytest.approx(1.027, abs=0.06))
    assert black == 0


def test_square_of_albumentations_draws_the_eight_symmetries(image: Tensor) -> None:
    symmetries = {
        torch.rot90(side, turns, (1, 2)).numpy().tobytes() for side in (image, image.flip(2)) for turns in range(4)
    }
    counts = Counter(draw(image, "square/albumentations", 4000))
    assert set(counts) == symmetries
    assert chi_square(list(counts.values())) < 24.3  # p = 0.001 with 7 degrees of freedom


def test_sharpness_of_1_changes_nothing(scene: Tensor) -> None:
    pixels = np.ascontiguousarray(scene.permute(1, 2, 0).numpy())
    assert np.array_equal(Sharpness((1.0, 1.0), p=1.0)(image=pixels)["image"], pixels)


def test_grey_picture_of_three_channels_stays_grey_under_colour_policies(image: Tensor) -> None:
    """Their geometry and light treat the channels alike; photometric's noise alone does not."""
    grey = image[:1].expand(3, -1, -1)
    for policy in ("autoaugment", "randaugment", "trivialaugment", "augmix", "strong", "strong/albumentations"):
        for sample in range(50):
            changed = augment(grey, policy, SampleKey(0, 0, sample)).int()
            assert (changed.amax(0) - changed.amin(0)).max() <= 1


def run_python(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_recipe_that_names_an_albumentations_policy_imports_neither_it_nor_torch() -> None:
    code = """
import sys
from trainer.recipes.options.augment import AugmentOptions
AugmentOptions(policy="photometric")
AugmentOptions.model_validate({"backend": "albumentations", "pipeline": [{"op": "Blur"}]})
print([name for name in ("albumentations", "cv2", "torch") if name in sys.modules])
"""
    assert run_python(code) == "[]"


WATCHED = """
import sys
asked = []
def watch(event, _):
    if event in ("socket.getaddrinfo", "socket.connect", "urllib.Request"):
        asked.append(event)
        raise ConnectionError("this test is off line")
sys.addaudithook(watch)
import {}
print(bool(asked))
"""


def test_import_of_albumentations_by_its_door_asks_no_network() -> None:
    assert run_python(WATCHED.format("trainer.feed.augment.albumentations_policies")) == "False"


@pytest.mark.slow
def test_import_of_albumentations_by_itself_would_ask() -> None:
    """When this fails, albumentations has healed, and the door need not set NO_ALBUMENTATIONS_UPDATE."""
    assert run_python(WATCHED.format("albumentations")) == "True"


@pytest.mark.slow
def test_first_use_from_several_threads_at_once_gives_the_same_pixels() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import torch
from trainer.feed.augment.policies import build_policy
from trainer.feed.augment.seeding import SampleKey
from trainer.recipes.options.augment import AugmentOptions
photometric = build_policy(AugmentOptions(policy="photometric")).after
barrier, image = Barrier(8, timeout=60), torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)
def draw(sample):
    barrier.wait()
    return photometric(image, SampleKey(0, 0, sample)).numpy().tobytes()
with ThreadPoolExecutor(8) as pool:
    together = list(pool.map(draw, range(8)))
print(together == [photometric(image, SampleKey(0, 0, sample)).numpy().tobytes() for sample in range(8)])
"""
    assert run_python(code) == "True"


# erasing


def test_erasing_fills_one_box_of_allowed_share_and_shape_with_noise_and_leaves_the_rest() -> None:
    plain, change_all = torch.full((3, 100, 140), 128, dtype=torch.uint8), build_after(erase=1.0)
    shares, noise = [], []
    for sample in range(300):
        erased = change_all(plain, SampleKey(0, 0, sample))
        hit = (erased != plain).any(0)
        rows, columns = hit.any(1).nonzero(), hit.any(0).nonzero()
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        shares.append((bottom - top) * (right - left) / (100 * 140))
        assert 0.28 < (right - left) / (bottom - top) < 3.5
        assert float(hit[top:bottom, left:right].float().mean()) > 0.97
        noise.append(erased[:, top:bottom, left:right].flatten().double())
    assert 0.019 < min(shares) < 0.03
    assert 0.3 < max(shares) < 0.335
    drawn = torch.cat(noise)
    assert abs(float(drawn.mean()) - 127.5) < 0.5
    assert abs(float(drawn.std()) - 255 / 12**0.5) < 0.5


def test_erasing_comes_as_often_as_it_was_asked_for(image: Tensor) -> None:
    quarter = build_after(erase=0.25)
    count = sum(not torch.equal(quarter(image, SampleKey(0, 0, sample)), image) for sample in range(2000))
    assert (count - 500) ** 2 / 500 + (count - 500) ** 2 / 1500 < 10.8


def test_erasing_does_not_depend_on_what_the_policy_draws(image: Tensor) -> None:
    """Its own stream: with a policy before it, the same box."""
    alone, after_flip = build_after(erase=1.0), build_after(erase=1.0, policy="flip")
    for sample in range(20):
        key = SampleKey(0, 0, sample)
        expected = alone(augment(image, "flip", key), key)
        assert torch.equal(after_flip(image, key), expected)
