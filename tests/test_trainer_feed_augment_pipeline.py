"""Pipelines written out in a recipe: what is refused before a run, in which words, and that what passes is exact."""

from __future__ import annotations

import random
from typing import Any

import albumentations as A  # noqa: N812 (the name that its documentation uses)
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from shards.errors import UsageError
from shards.order.purposes import Purpose
from trainer.feed.augment.albumentations_policies import LIBRARY as ALBUMENTATIONS
from trainer.feed.augment.library import Library
from trainer.feed.augment.policies import build_policy, check_augment
from trainer.feed.augment.probe import probe_input
from trainer.feed.augment.seeding import SampleKey, make_torch_rng
from trainer.feed.augment.torchvision_policies import LIBRARY as TORCHVISION
from trainer.recipes.file import load_recipe
from trainer.recipes.options.augment import AugmentOptions

torch.set_num_threads(1)


def options(*operations: dict[str, Any], backend: str = "auto") -> AugmentOptions:
    return AugmentOptions.model_validate({"pipeline": list(operations), "backend": backend})


def refusal(*operations: dict[str, Any], backend: str = "auto", channels: int = 3) -> str:
    with pytest.raises(UsageError) as caught:
        check_augment(options(*operations, backend=backend), channels, 32)
    return str(caught.value)


REFUSALS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "augment.pipeline: torchvision has no operation 'RandomRotaton': did you mean 'RandomRotation'?": (
        "torchvision", [{"op": "RandomRotaton", "degrees": 3}]),
    "augment.pipeline: torchvision has no operation 'Zzz'; see its documentation for their names": (
        "auto", [{"op": "Zzz"}]),
    "augment.pipeline: torchvision has no operation 'HorizontalFlip'; albumentations has it: set "
    "augment.backend=albumentations, where its parameters may differ": ("auto", [{"op": "HorizontalFlip"}]),
    "augment.pipeline: albumentations has no operation 'RandomRotation'; torchvision has it: set "
    "augment.backend=torchvision, where its parameters may differ": (
        "albumentations", [{"op": "RandomRotation", "degrees": 3}]),
    "augment.pipeline: RandomRotation has no parameter 'degreez': did you mean 'degrees'?; it takes degrees, "
    "interpolation, expand, center, fill": ("torchvision", [{"op": "RandomRotation", "degreez": 3}]),
    "augment.pipeline: HorizontalFlip has no parameter 'always'; it takes p": (
        "albumentations", [{"op": "HorizontalFlip", "always": True}]),
    "augment.pipeline: torchvision rejects RandomRotation(degrees=[1, 2, 3]) (degrees should be a sequence of length "
    "2.)": ("torchvision", [{"op": "RandomRotation", "degrees": [1, 2, 3]}]),
    "augment.pipeline: albumentations rejects Blur(p=7) (p: Input should be less than or equal to 1)": (
        "albumentations", [{"op": "Blur", "p": 7}]),
    "augment.pipeline: RandomRotation's interpolation must be one of nearest, nearest-exact, bilinear, bicubic, box, "
    "hamming, lanczos, got 'cubic'": (
        "torchvision", [{"op": "RandomRotation", "degrees": 3, "interpolation": "cubic"}]),
    "augment.pipeline: Rotate's border_mode must be one of constant, replicate, reflect, wrap, reflect_101, "
    "got 'mirror'": (
        "albumentations", [{"op": "Rotate", "border_mode": "mirror"}]),
    "augment.pipeline: MixUp cannot be used in a pipeline: it mixes a batch; set augment.mixup": (
        "torchvision", [{"op": "MixUp"}]),
    "augment.pipeline: Normalize cannot be used in a pipeline: pictures must stay uint8[H, W, C]; the model normalises "
    "them": ("albumentations", [{"op": "Normalize"}]),
    "augment.pipeline: RandomCrop makes the model's input (3, 16, 16) instead of (3, 32, 32); add `when: before`, "
    "which applies it to the decoded picture, or set its size to the input's": (
        "torchvision", [{"op": "RandomCrop", "size": 16}]),
    "augment.pipeline: Grayscale makes a picture of (1, 32, 32) from (3, 32, 32); channels must not change": (
        "torchvision", [{"op": "Grayscale"}]),
    "augment.pipeline: FDA cannot change a picture of (3, 32, 32) (FDA requires ['fda_metadata'] missing keys: "
    "{'fda_metadata'})": ("albumentations", [{"op": "FDA"}]),
    "augment.pipeline: RandomApply contains RandomInvert with `when`; only the outer operation takes `when`": (
        "torchvision", [{"op": "RandomApply", "transforms": [{"op": "RandomInvert", "when": "before"}]}]),
    "augment.pipeline: albumentations has no operation 'Blurr': did you mean 'Blur'?": (
        "albumentations", [{"op": "OneOf", "transforms": [{"op": "Blur"}, {"op": "Blurr"}]}]),
}  # fmt: skip


@pytest.mark.parametrize("sentence", REFUSALS)
def test_bad_pipeline_is_refused_in_a_sentence(sentence: str) -> None:
    backend, operations = REFUSALS[sentence]
    assert refusal(*operations, backend=backend) == sentence


def test_good_operations_do_not_hide_a_bad_one() -> None:
    assert "'RandomInvertt'" in refusal({"op": "RandomInvert"}, {"op": "RandomInvertt"})


def test_operation_for_colour_is_refused_where_the_model_takes_luminance() -> None:
    check_augment(options({"op": "ISONoise"}, backend="albumentations"), 3, 32)
    assert refusal({"op": "ISONoise"}, backend="albumentations", channels=1).startswith(
        "augment.pipeline: ISONoise cannot change a picture of (1, 32, 32) ("
    )


def test_crop_before_geometry_may_be_larger_than_the_input() -> None:
    check_augment(options({"op": "RandomCrop", "size": 900, "when": "before"}), 3, 32)
    assert "cannot change a picture" in refusal({"op": "RandomCrop", "size": 9000, "when": "before"})


def test_crop_that_cannot_fit_is_refused() -> None:
    narrow = AugmentOptions(crop="padded", crop_resize=200, crop_padding=11)
    with pytest.raises(UsageError, match="make 222 pixels, less than image_size 224: no crop fits"):
        check_augment(narrow, 3, 224)
    check_augment(narrow, 3, 222)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ["augment.pipeline=[{op: RandomInvert}]"],
            "augment: a policy and a pipeline exclude each other, got policy=flip and a pipeline; set policy=none",
        ),
        (
            ["augment.policy=augmix", "augment.backend=albumentations"],
            "augment: the policy augmix exists only for torchvision, got backend albumentations; leave backend out",
        ),
        (
            ["augment.pipeline=[{op: RandomInvert, when: late}]"],
            "augment.pipeline.0.when: input should be 'before' or 'after', got 'late'",
        ),
        (["augment.erase=1.5"], "augment.erase: input should be less than or equal to 1, got 1.5"),
        (["augment.mixup=-1"], "augment.mixup: input should be greater than or equal to 0, got -1"),
    ],
)
def test_recipe_refuses_what_can_be_seen_without_a_library(given: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("smoke", ["data=x", *given])
    assert str(caught.value) == sentence


def test_pipeline_survives_a_recipe_on_disk_and_is_part_of_its_fingerprint(tmp_path: Any) -> None:
    written = "augment.pipeline=[{op: RandomRotation, degrees: [-5, 10]}, {op: RandomInvert, when: before}]"
    recipe = load_recipe("smoke", ["data=x", "augment.policy=none", written])
    recipe.write(tmp_path / "recipe.yaml")
    again = load_recipe(str(tmp_path / "recipe.yaml"))
    assert again.augment == recipe.augment
    assert again.fingerprint() == recipe.fingerprint()
    other = load_recipe(str(tmp_path / "recipe.yaml"), ["augment.pipeline=[{op: RandomInvert, when: before}]"])
    assert other.fingerprint() != recipe.fingerprint()


@pytest.mark.parametrize(
    "changed",
    ["policy=light", "backend=albumentations", "erase=0.1", "mixup=0.1", "cutmix=1", "mix_prob=0.5", "crop=padded",
     "crop_resize=40", "crop_padding=2"],
)  # fmt: skip
def test_every_option_is_part_of_the_fingerprint(changed: str) -> None:
    plain, other = (load_recipe("smoke", ["data=x", *given]) for given in ([], [f"augment.{changed}"]))
    assert plain.fingerprint() != other.fingerprint()


# what the libraries make of it


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 24, 24), dtype=np.uint8))


def test_torchvision_pipeline_gives_the_pixels_of_torchvision_for_the_same_seed(image: Tensor) -> None:
    written = options(
        {"op": "RandomRotation", "degrees": 10, "interpolation": "bilinear"},
        {
            "op": "RandomChoice",
            "transforms": [{"op": "RandomInvert", "p": 1}, {"op": "GaussianBlur", "kernel_size": 3}],
        },
    )
    choice = v2.RandomChoice([v2.RandomInvert(1), v2.GaussianBlur(3)])
    theirs = v2.Compose([v2.RandomRotation(10, interpolation=v2.InterpolationMode.BILINEAR), choice])
    change = build_policy(written).after
    assert change is not None
    with torch.random.fork_rng(devices=[]):
        for sample in range(30):
            key = SampleKey(0, 0, sample)
            torch.manual_seed(make_torch_rng(key, Purpose.OPERATIONS).initial_seed())
            assert torch.equal(change(image, key), theirs(image))


def test_albumentations_pipeline_has_the_parameters_that_were_written(image: Tensor) -> None:
    """A rotation by exactly 90 degrees, a shift of exactly 10 levels."""
    written = options(
        {"op": "Rotate", "limit": [90, 90], "interpolation": "nearest", "p": 1},
        {"op": "RGBShift", "r_shift_limit": [10, 10], "g_shift_limit": [0, 0], "b_shift_limit": [0, 0], "p": 1},
        backend="albumentations",
    )
    change = build_policy(written).after
    assert change is not None
    expected = torch.rot90(image, 1, (1, 2)).clone().int()
    expected[0] += 10
    assert torch.equal(change(image, SampleKey(0, 0, 0)).int(), expected.clamp(0, 255))


def test_stages_are_kept_apart_and_draw_from_streams_of_their_own(image: Tensor) -> None:
    flips = options({"op": "RandomHorizontalFlip", "when": "before"}, {"op": "RandomHorizontalFlip"})
    policy = build_policy(flips)
    assert policy.before is not None
    assert policy.after is not None
    pairs = [
        (torch.equal(policy.before(image, key), image), torch.equal(policy.after(image, key), image))
        for key in (SampleKey(0, 0, sample) for sample in range(2000))
    ]
    counts = [pairs.count(pair) for pair in ((False, False), (False, True), (True, False), (True, True))]
    assert sum((count - 500) ** 2 / 500 for count in counts) < 16.3  # p = 0.001 with 3 degrees of freedom


def test_failure_on_a_picture_names_operation_sample_and_shape(image: Tensor) -> None:
    change = build_policy(options({"op": "RandomCrop", "size": 30, "when": "before"})).before
    assert change is not None
    with pytest.raises(UsageError) as caught:
        change(image, SampleKey(0, 2, 7))
    assert str(caught.value) == (
        "augment.pipeline: RandomCrop failed on sample 7 in epoch 3, with shape (3, 24, 24); remove operations that do "
        "not fit every picture (Required crop size (30, 30) is larger than input image size (24, 24).)"
    )


# generators


class GlobalNumpy(A.ImageOnlyTransform):
    """As people write transforms: it draws from numpy's process-wide generator."""

    def apply(self, img: Any, **_: Any) -> Any:
        return img ^ np.uint8(np.random.randint(256))


class GlobalTorch(v2.Transform):
    """Draws from the generator of the machine."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:  # noqa: ARG002
        return inpt ^ random.SystemRandom().randrange(256)


@pytest.mark.parametrize(
    ("library", "operation"), [(ALBUMENTATIONS, GlobalNumpy), (TORCHVISION, GlobalTorch)], ids=["numpy", "system"]
)
def test_operation_that_draws_where_no_generator_reaches_is_refused(library: Library, operation: type) -> None:
    arguments = {"p": 1} if library is ALBUMENTATIONS else {}
    change = library.seed(lambda: [operation(**arguments)], Purpose.BEFORE)
    with pytest.raises(
        ValueError, match="so that a sample's pixels would depend on other samples; use another operation"
    ):
        probe_input(change, 3, 32, library.disturb)


def test_check_puts_the_process_wide_generators_back() -> None:
    def states() -> list[str]:
        return [torch.get_rng_state().numpy().tobytes().hex(), str(np.random.get_state()), str(random.getstate())]

    before = states()
    check_augment(options({"op": "RandomInvert"}), 3, 32)
    assert states() == before


NEEDS_NOTHING_MORE = {
    "torchvision": {
        "AugMix", "AutoAugment", "ColorJitter", "GaussianNoise", "Identity", "RandAugment", "RandomAutocontrast",
        "RandomChannelPermutation", "RandomEqualize", "RandomErasing", "RandomGrayscale", "RandomHorizontalFlip",
        "RandomInvert", "RandomPerspective", "RandomPhotometricDistort", "RandomVerticalFlip", "TrivialAugmentWide",
        "ElasticTransform",
    },
    "albumentations": {
        "AdditiveNoise", "AdvancedBlur", "Affine", "AutoContrast", "Blur", "CLAHE", "ChannelDropout", "ChannelShuffle",
        "ChromaticAberration", "CoarseDropout", "ColorJitter", "D4", "Defocus", "Downscale", "ElasticTransform",
        "Emboss", "Equalize", "FancyPCA", "GaussNoise", "GaussianBlur", "GlassBlur", "GridDistortion", "GridDropout",
        "HorizontalFlip", "HueSaturationValue", "ISONoise", "Illumination", "ImageCompression", "InvertImg",
        "MedianBlur",
        "MotionBlur", "MultiplicativeNoise", "OpticalDistortion", "Perspective", "PixelDropout",
        "PlasmaBrightnessContrast", "Posterize", "RGBShift", "RandomBrightnessContrast", "RandomFog", "RandomGamma",
        "RandomGridShuffle", "RandomRain", "RandomRotate90", "RandomShadow", "RandomSnow", "RandomSunFlare",
        "RandomToneCurve", "RingingOvershoot", "Rotate", "SafeRotate", "SaltAndPepper", "Sharpen", "ShiftScaleRotate",
        "ShotNoise", "Solarize", "Spatter", "SquareSymmetry", "Superpixels", "ThinPlateSpline", "ToGray", "ToSepia",
        "Transpose", "UnsharpMask", "VerticalFlip", "ZoomBlur",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "name"), [(backend, name) for backend, names in NEEDS_NOTHING_MORE.items() for name in sorted(names)]
)
def test_operation_with_its_defaults_passes_and_so_depends_on_the_samples_key_alone(backend: str, name: str) -> None:
    check_augment(options({"op": name}, backend=backend), 3, 32)
