from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from shards.order.purposes import Purpose
from trainer.feed.augment.seeding import SampleKey, make_numpy_rng, make_python_rng, make_torch_rng
from trainer.feed.augment.torch_random import DRAWS, REFUSED, DrawFrom

LIBRARIES: dict[str, Callable[[SampleKey, int], Callable[[], float]]] = {
    "numpy": lambda key, purpose: make_numpy_rng(key, purpose).random,
    "python": lambda key, purpose: make_python_rng(key, purpose).random,
    "torch": lambda key, purpose: lambda: float(torch.rand((), generator=make_torch_rng(key, purpose))),
}


def words_of(key: SampleKey, purpose: int, library: str) -> int:
    """Return 64 bits that tell a stream from every other of the same library."""
    if library == "numpy":
        return int(make_numpy_rng(key, purpose).integers(2**63))
    if library == "python":
        return make_python_rng(key, purpose).getrandbits(63)
    return make_torch_rng(key, purpose).initial_seed()


@pytest.mark.parametrize("library", LIBRARIES)
def test_same_key_and_purpose_give_the_same_draws(library: str) -> None:
    key = SampleKey(3, 1, 4, 1)
    assert LIBRARIES[library](key, Purpose.CROP)() == LIBRARIES[library](key, Purpose.CROP)()


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_key_of_a_small_grid_has_a_stream_of_its_own_for_each_purpose(library: str) -> None:
    """Zeros and small numbers in every place: where seeds that are sums or padded tuples would meet."""
    keys = [SampleKey(*words) for words in itertools.product(range(4), repeat=4)]
    streams = [words_of(key, purpose, library) for key in keys for purpose in (Purpose.OPERATIONS, Purpose.CROP)]
    assert len(set(streams)) == 512


def test_no_stream_of_a_sample_is_one_of_the_plan_or_of_another_library() -> None:
    """shards seeds numpy with (seed, epoch, purpose) and up to two words more; its purposes are 0, 1, 3, 4, 6 and 7."""
    starts = itertools.product(range(3), range(3), (0, 1, 3, 4, 6, 7))
    ends = [*itertools.product(range(3), repeat=1), *itertools.product(range(3), repeat=2)]
    plans = [(*start, *end) for start, end in itertools.product(starts, ends)]
    states = {int(np.random.default_rng(plan).integers(2**63)) for plan in plans}
    samples = [SampleKey(*words) for words in itertools.product(range(3), repeat=4)]
    for key, purpose in itertools.product(samples, (Purpose.OPERATIONS, Purpose.CROP)):
        states.add(int(make_numpy_rng(key, purpose).integers(2**63)))
        states.add(make_python_rng(key, purpose).getrandbits(63))
        states.add(make_torch_rng(key, purpose).initial_seed())
    assert len(states) == len(plans) + 3 * 2 * len(samples)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("place", range(5), ids=["seed", "epoch", "sample", "copy", "purpose"])
def test_streams_next_to_each_other_are_independent(library: str, place: int) -> None:
    """First draws of neighbours meet below and above 1/2 in each of four ways a quarter of the time."""
    counts = np.zeros((2, 2))
    for number in range(1000):
        key, other = [5, 6, number, 0, Purpose.OPERATIONS], [5, 6, number, 0, Purpose.OPERATIONS]
        other[place] = Purpose.CROP if place == 4 else other[place] + 1
        pair = [LIBRARIES[library](SampleKey(*words[:4]), words[4])() > 0.5 for words in (key, other)]
        counts[int(pair[0]), int(pair[1])] += 1
    assert float(((counts - 250) ** 2 / 250).sum()) < 16.3  # p = 0.001 with 3 degrees of freedom


def test_first_showing_keeps_the_stream_of_runs_from_before_copies() -> None:
    assert (
        make_numpy_rng(SampleKey(1, 2, 3), Purpose.OPERATIONS).random() == np.random.default_rng((1, 2, 2, 3)).random()
    )


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**70 + 3])
def test_stream_is_that_of_numpy_for_the_numbers_of_the_key(seed: int) -> None:
    key = SampleKey(seed, 2, 2**32 - 1, 7)
    assert (
        make_numpy_rng(key, Purpose.CROP).random()
        == np.random.default_rng((seed, 2, Purpose.CROP, 2**32 - 1, 7)).random()
    )


def test_torch_keeps_32_bits_of_a_seed() -> None:
    """When this fails, torch has healed: give make_torch_rng 64 bits and drop its warning."""
    low, high = (torch.Generator().manual_seed(5 + add) for add in (0, 2**32))
    assert torch.equal(torch.rand(8, generator=low), torch.rand(8, generator=high))


def from_generator(draw: Callable[[], Any], seed: int = 1) -> Any:
    with DrawFrom(torch.Generator().manual_seed(seed)):
        return draw()


def test_every_operation_of_torch_that_draws_is_known() -> None:
    """By torch's own tags and signatures; what is left are kernels that public functions choose."""
    drawing = set()
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace != "aten":
            continue
        operation = getattr(getattr(torch.ops.aten, name, None), schema.overload_name or "default", None)
        tagged = operation is not None and torch.Tag.nondeterministic_seeded in operation.tags
        if tagged or any(argument.name == "generator" for argument in schema.arguments):
            drawing.add(name)
    assert len(drawing) > 40
    assert {name for name in drawing - DRAWS - REFUSED if not name.startswith(("_", "miopen_"))} == set()


DRAWN: dict[str, Callable[[], Tensor]] = {
    "rand": lambda: torch.rand(3),
    "rand_like": lambda: torch.rand_like(torch.ones(3)),
    "randn": lambda: torch.randn(3),
    "randn_like": lambda: torch.randn_like(torch.ones(3, dtype=torch.float32)),
    "randint": lambda: torch.randint(1000, (3,)),
    "randint_like": lambda: torch.randint_like(torch.ones(3), 1000),
    "randperm": lambda: torch.randperm(9),
    "multinomial": lambda: torch.multinomial(torch.ones(99), 9),
    "bernoulli": lambda: torch.bernoulli(torch.full((20,), 0.5)),
    "normal": lambda: torch.normal(0.0, 1.0, (3,)),
    "poisson": lambda: torch.poisson(torch.full((9,), 99.0)),
    "binomial": lambda: torch.binomial(torch.full((9,), 99.0), torch.full((9,), 0.5)),
    "_sample_dirichlet": lambda: torch._sample_dirichlet(torch.ones(3)),
    **{name: lambda name=name: getattr(torch.empty(3), name)() for name in ("uniform_", "normal_", "exponential_",
       "cauchy_", "log_normal_")},
    "random_": lambda: torch.empty(9, dtype=torch.int64).random_(),
    "bernoulli_": lambda: torch.empty(20).bernoulli_(0.5),
    "geometric_": lambda: torch.empty(20).geometric_(0.1),
    "kaiming_uniform_": lambda: torch.nn.init.kaiming_uniform_(torch.empty(3, 3)),
    "trunc_normal_": lambda: torch.nn.init.trunc_normal_(torch.empty(3, 3)),
    "Beta": lambda: torch.distributions.Beta(torch.ones(3), torch.ones(3)).sample(),
    "Categorical": lambda: torch.distributions.Categorical(torch.ones(999)).sample((3,)),
    "overload": lambda: torch.ops.aten.uniform(torch.empty(3)),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_torch_draws_from_the_generator_and_leaves_the_global_one_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (from_generator(DRAWN[name], seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_generator_of_a_call_is_left_to_it() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(7))
    assert torch.equal(from_generator(lambda: torch.rand(3, generator=torch.Generator().manual_seed(7))), expected)


def test_block_ends_with_the_block() -> None:
    from_generator(lambda: torch.rand(1))
    before = torch.get_rng_state()
    torch.rand(1)
    assert not torch.equal(torch.get_rng_state(), before)


ones = torch.ones
HIDDEN: dict[str, Callable[[], Any]] = {
    "F.dropout": lambda: functional.dropout(ones(4)),
    "torch.dropout": lambda: torch.dropout(ones(4), 0.5, True),
    "dropout_": lambda: torch.dropout_(ones(4), 0.5, True),
    "dropout1d": lambda: functional.dropout1d(ones(2, 2, 2)),
    "dropout2d": lambda: functional.dropout2d(ones(2, 2, 2, 2)),
    "dropout3d": lambda: functional.dropout3d(ones(2, 2, 2, 2, 2)),
    "alpha_dropout": lambda: functional.alpha_dropout(ones(4), training=True),
    "feature_alpha_dropout": lambda: functional.feature_alpha_dropout(ones(2, 2, 2, 2), training=True),
    "feature_dropout": lambda: torch.feature_dropout(ones(2, 2, 2, 2), 0.5, True),
    "native_dropout": lambda: torch.native_dropout(ones(4), 0.5, True),
    "fractional_max_pool2d": lambda: functional.fractional_max_pool2d(ones(1, 1, 8, 8), 2, output_size=3),
    "fractional_max_pool3d": lambda: functional.fractional_max_pool3d(ones(1, 1, 8, 8, 8), 2, output_size=3),
    "gumbel_softmax": lambda: functional.gumbel_softmax(ones(4)),
    "rrelu": lambda: functional.rrelu(-ones(4), training=True),
    "attention": lambda: functional.scaled_dot_product_attention(*[ones(1, 2, 2, 2)] * 3, dropout_p=0.5),
    "lstm": lambda: torch.nn.LSTM(2, 2, 2, dropout=0.5)(ones(2, 1, 2)),
    "gru": lambda: torch.nn.GRU(2, 2, 2, dropout=0.5)(ones(2, 1, 2)),
    "rnn": lambda: torch.nn.RNN(2, 2, 2, dropout=0.5)(ones(2, 1, 2)),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_function_that_takes_no_generator_is_refused_before_it_draws(name: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="draws from the process-wide generator and takes no other"):
        from_generator(HIDDEN[name])
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_inside_their_blocks_at_once_do_not_disturb_each_other() -> None:
    """All threads are in their blocks before the first draw, and take turns at every draw."""
    barrier = Barrier(4, timeout=60)

    def draw(seed: int) -> list[float]:
        draws = []
        with DrawFrom(torch.Generator().manual_seed(seed)):
            for _ in range(20):
                barrier.wait()
                draws.append(float(torch.rand(())))
        return draws

    def draw_alone(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return [float(torch.rand((), generator=generator)) for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, range(4)))
    assert together == [draw_alone(seed) for seed in range(4)]


# Every random class of v2, each made so that it has something to draw.
half = 0.5
RANDOM_TRANSFORMS: dict[str, v2.Transform] = {
    "AugMix": v2.AugMix(),
    "AutoAugment": v2.AutoAugment(),
    "ColorJitter": v2.ColorJitter(half, half, half, 0.2),
    "CutMix": v2.CutMix(num_classes=4),
    "ElasticTransform": v2.ElasticTransform(),
    "GaussianBlur": v2.GaussianBlur(3, (0.1, 2.0)),
    "GaussianNoise": v2.GaussianNoise(),
    "JPEG": v2.JPEG((5, 95)),
    "MixUp": v2.MixUp(num_classes=4),
    "RandAugment": v2.RandAugment(),
    "RandomAdjustSharpness": v2.RandomAdjustSharpness(2),
    "RandomAffine": v2.RandomAffine(30, (0.1, 0.1), (0.8, 1.2), 10),
    "RandomApply": v2.RandomApply([v2.RandomHorizontalFlip(1.0)]),
    "RandomAutocontrast": v2.RandomAutocontrast(),
    "RandomChannelPermutation": v2.RandomChannelPermutation(),
    "RandomChoice": v2.RandomChoice([v2.Identity(), v2.RandomHorizontalFlip(1.0)]),
    "RandomCrop": v2.RandomCrop(16),
    "RandomEqualize": v2.RandomEqualize(),
    "RandomErasing": v2.RandomErasing(1.0, value="random"),
    "RandomGrayscale": v2.RandomGrayscale(half),
    "RandomHorizontalFlip": v2.RandomHorizontalFlip(),
    "RandomInvert": v2.RandomInvert(),
    "RandomIoUCrop": v2.RandomIoUCrop(),
    "RandomOrder": v2.RandomOrder([v2.RandomHorizontalFlip(1.0), v2.RandomRotation((90, 90))]),
    "RandomPerspective": v2.RandomPerspective(),
    "RandomPhotometricDistort": v2.RandomPhotometricDistort(),
    "RandomPosterize": v2.RandomPosterize(3),
    "RandomResize": v2.RandomResize(8, 40),
    "RandomResizedCrop": v2.RandomResizedCrop(16),
    "RandomRotation": v2.RandomRotation(30),
    "RandomShortestSize": v2.RandomShortestSize([12, 16, 20]),
    "RandomSolarize": v2.RandomSolarize(100),
    "RandomVerticalFlip": v2.RandomVerticalFlip(),
    "RandomZoomOut": v2.RandomZoomOut(),
    "ScaleJitter": v2.ScaleJitter((32, 32)),
    "TrivialAugmentWide": v2.TrivialAugmentWide(),
}
FIXED_TRANSFORMS = {
    "CenterCrop", "ClampBoundingBoxes", "ClampKeyPoints", "Compose", "ConvertBoundingBoxFormat", "ConvertImageDtype",
    "FiveCrop", "Grayscale", "Identity", "Lambda", "LinearTransformation", "Normalize", "PILToTensor", "Pad", "RGB",
    "Resize", "SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode", "TenCrop", "ToDtype", "ToImage",
    "ToPILImage", "ToPureTensor", "ToTensor", "Transform", "UniformTemporalSubsample",
}  # fmt: skip


def test_every_transform_of_v2_is_either_tested_or_known_to_draw_nothing() -> None:
    names = {name for name, kind in vars(v2).items() if isinstance(kind, type) and issubclass(kind, v2.Transform)}
    assert names == set(RANDOM_TRANSFORMS) | FIXED_TRANSFORMS


def transform_one(name: str, seed: int) -> Tensor:
    """Return what a v2 transform makes of one picture, flat; classes that need boxes or batches get them."""
    image = torch.from_numpy(np.random.default_rng(0).integers(40, 200, (3, 24, 24), dtype=np.uint8))
    inputs: tuple[Any, ...] = (image,)
    if name in ("MixUp", "CutMix"):
        inputs = torch.stack([image, image.flip(2), image.flip(1), 255 - image]).float(), torch.arange(4)
    elif name == "RandomIoUCrop":
        boxes = tv_tensors.BoundingBoxes([[4, 4, 18, 18]], format="XYXY", canvas_size=(24, 24))
        inputs = tv_tensors.Image(image), boxes
    with DrawFrom(torch.Generator().manual_seed(seed)):
        changed = RANDOM_TRANSFORMS[name](*inputs)
    return changed[0] if isinstance(changed, tuple) else changed


def global_states() -> list[str]:
    return [torch.get_rng_state().numpy().tobytes().hex(), str(np.random.get_state()), str(random.getstate())]


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")  # JPEG
@pytest.mark.parametrize("name", RANDOM_TRANSFORMS)
def test_v2_transform_depends_on_its_generator_alone_and_moves_no_global_one(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = global_states()
        first = [transform_one(name, seed) for seed in range(20)]
        assert global_states() == before
        torch.manual_seed(2)
        again = [transform_one(name, seed) for seed in range(20)]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({(tuple(one.shape), one.numpy().tobytes()) for one in first}) > 1
