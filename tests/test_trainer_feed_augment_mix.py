"""Mixup and cutmix: one plan for any number of ranks, exact pixels, partners that are their own samples' pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from data.tars import write_tar
from PIL import Image
from scipy import stats
from torch import Tensor

from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from shards.order.mixing import measure_sorting
from shards.order.plan import EpochPlan, OrderOptions, ShardSizes, slice_rank
from shards.order.purposes import VERSION
from shards.packing.foreign import index_foreign
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed.augment.mix import CutBox, MixPlan, Pairs, find_missing, mix_images, plan_mix
from trainer.feed.feed import Batch
from trainer.feed.shown import find_sorted_lanes
from trainer.feed.stream import TrainStream
from trainer.ranks.ranks import Ranks, single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.options.augment import AugmentOptions
from trainer.record.ledger import Ledger, read_ledger
from trainer.weights.resolve import resolve_recipe

MIXUP, CUTMIX = AugmentOptions(mixup=0.4), AugmentOptions(cutmix=1.0)
BOTH = AugmentOptions(mixup=0.2, cutmix=1.0)
SIZE = 32

torch.set_num_threads(1)


def plan(options: AugmentOptions, step: int, size: int = 12, seed: int = 0, epoch: int = 0) -> MixPlan:
    planned = plan_mix(options, seed, epoch, step, size)
    assert planned is not None
    return planned


# the plan


@pytest.mark.parametrize("options", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
def test_plan_is_a_function_of_seed_epoch_and_step(options: AugmentOptions) -> None:
    def tell(**other: int) -> list[object]:
        return [(one.lam, one.box) for one in (plan(options, step, **other) for step in range(20))]

    assert tell() == tell()
    assert tell(epoch=1) != tell()
    assert tell(seed=1) != tell()
    assert tell(seed=1, epoch=0) != tell(seed=0, epoch=1)
    assert len(set(tell())) > 15


@pytest.mark.parametrize("options", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_how_a_step_mixes_does_not_depend_on_its_size(options: AugmentOptions) -> None:
    short, full = plan(options, 3, size=1), plan(options, 3, size=500)
    assert (short.lam, short.box) == (full.lam, full.box)


@pytest.mark.parametrize("size", range(1, 20))
def test_partners_are_a_permutation_that_pairs_none_with_itself_but_a_lone_one(size: int) -> None:
    partners = plan(MIXUP, 0, size=size).partners
    assert sorted(partners.tolist()) == list(range(size))
    assert (partners != np.arange(size)).all() == (size > 1)


def test_nothing_mixes_where_it_is_off_or_nobody_is_there() -> None:
    assert plan_mix(AugmentOptions(), 0, 0, 0, 8) is None
    assert plan_mix(AugmentOptions(mixup=1.0, mix_prob=0.0), 0, 0, 0, 8) is None
    assert plan_mix(MIXUP, 0, 0, 0, 0) is None


@pytest.mark.parametrize(("options", "alpha"), [(MIXUP, 0.4), (CUTMIX, 1.0)], ids=["mixup", "cutmix"])
def test_shares_are_drawn_from_the_beta_distribution(options: AugmentOptions, alpha: float) -> None:
    shares = [plan(options, step).lam for step in range(3000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.001


def test_steps_mix_as_often_as_asked_and_take_mixup_and_cutmix_equally_often() -> None:
    options = BOTH.model_copy(update={"mix_prob": 0.5})
    plans = [plan_mix(options, 0, 0, step, 8) for step in range(4000)]
    counts = [
        sum(one is None for one in plans),
        sum(one is not None and one.box is None for one in plans),
        sum(one is not None and one.box is not None for one in plans),
    ]
    assert stats.chisquare(counts, [2000, 1000, 1000]).pvalue > 0.001


def test_box_has_the_partners_share_and_any_place_and_is_cut_at_the_border() -> None:
    rows, inside = [], 0
    for step in range(2000):
        one = plan(CUTMIX, step)
        assert one.box is not None
        side = (1 - one.lam) ** 0.5
        height, width = one.box.bottom - one.box.top, one.box.right - one.box.left
        assert 0 <= one.box.top <= one.box.bottom <= 1
        assert max(height, width) <= side + 1e-9
        if one.box.top > 0 and one.box.bottom < 1 and one.box.left > 0 and one.box.right < 1:
            assert height == pytest.approx(side)
            assert width == pytest.approx(side)
            inside += 1
        if side < 0.2:
            rows.append((one.box.top + one.box.bottom) / 2)
    assert inside > 200
    assert stats.kstest(rows, "uniform").pvalue > 0.0001  # small boxes: the border moves their middle by 0.05 at most


@pytest.mark.parametrize("size", [16, 33, 224])
def test_share_of_cutmix_is_that_of_the_pixels_that_are_left(size: int) -> None:
    own, other = torch.zeros(1, size, size, dtype=torch.uint8), torch.full((1, size, size), 255, dtype=torch.uint8)
    for step in range(50):
        one = plan(CUTMIX, step)
        assert one.box is not None
        mixed = mix_images(torch.stack([own, other]), make_pairs([1], one.share(size), one.box.place(size)))
        assert float((mixed == 0).double().mean()) == pytest.approx(one.share(size))


@pytest.mark.parametrize("num_ranks", range(1, 9))
@pytest.mark.parametrize("size", range(14))
def test_slices_with_what_they_lack_hold_every_partner(size: int, num_ranks: int) -> None:
    for partners in (np.roll(np.arange(size), -1), np.random.default_rng(size).permutation(size)):
        for rank in range(num_ranks):
            mine = slice_rank(size, rank, num_ranks)
            rows, missing = find_missing(partners, mine)
            held = [*range(mine.start, mine.stop), *missing.tolist()]
            assert [held[row] for row in rows] == partners[mine].tolist()
            assert len(held) == len(set(held))


def test_a_rank_lacks_one_partner_at_most() -> None:
    for rank in range(5):
        assert len(find_missing(plan(MIXUP, 0, size=64).partners, slice_rank(64, rank, 5))[1]) == 1


# pixels


def make_pairs(rows: list[int], lam: float, box: tuple[int, int, int, int] | None = None) -> Pairs:
    count = len(rows)
    return Pairs(
        torch.tensor(rows, dtype=torch.int64),
        torch.zeros(count).long(),
        torch.ones(count),
        torch.full((count,), lam),
        box,
    )


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8))


def test_mixup_is_exact() -> None:
    """Every product and sum fits float32: whole numbers say what it must be, without any rounding."""
    images, rows = noise(6), [1, 2, 3, 4, 5]
    for step in range(100):
        lam = plan(MIXUP, step).lam
        own = round(lam * 65536)
        assert own == lam * 65536
        expected = own * images[:5].long() + (65536 - own) * images[rows].long()
        mixed = mix_images(images, make_pairs(rows, lam))
        assert mixed.dtype == torch.float32
        assert torch.equal((mixed.double() * 65536).long(), expected)


@pytest.mark.parametrize("box", [None, (2, 1, 7, 4)], ids=["mixup", "cutmix"])
def test_a_picture_is_mixed_alike_in_any_batch_and_layout(box: tuple[int, int, int, int] | None) -> None:
    images = noise(9)
    whole = mix_images(images, make_pairs([1, 2, 3, 4, 5, 6, 7, 8], 0.3, box))
    for laid in (images, images.contiguous(memory_format=torch.channels_last)):
        for place in range(8):
            alone = mix_images(laid[place : place + 2], make_pairs([1], 0.3, box))
            assert torch.equal(alone[0], whole[place])


def test_cutmix_takes_the_box_from_the_partner_and_leaves_its_input_alone() -> None:
    images = noise(3)
    before = images.clone()
    mixed = mix_images(images, make_pairs([1, 2], 0.5, (2, 1, 7, 4)))
    expected = images[:2].float()
    expected[:, :, 2:7, 1:4] = images[1:3, :, 2:7, 1:4].float()
    assert torch.equal(mixed, expected)
    assert torch.equal(images, before)


def test_a_lone_picture_mixed_with_itself_stays_as_it_is() -> None:
    image = noise(1)
    for box in (None, (2, 1, 7, 4)):
        assert torch.equal(mix_images(image, make_pairs([0], 0.37, box)), image.float())


def test_an_empty_slice_mixes_to_nothing() -> None:
    for box in (None, (2, 1, 7, 4)):
        mixed = mix_images(noise(0), make_pairs([], 0.5, box))
        assert (tuple(mixed.shape), mixed.dtype) == ((0, 3, 8, 8), torch.float32)


# the stream

MIXED = {
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "both, of half of the steps": {"mixup": 0.2, "cutmix": 1.0, "mix_prob": 0.5},
}


def open_stream(data: Path, rank: int, num_ranks: int, options: dict[str, Any], workers: int = 0) -> TrainStream:
    given = [f"augment.{name}={value}" for name, value in options.items()]
    fixed = [
        f"data={data}",
        "augment.crop=random",
        "augment.policy=strong",
        "batch_size_global=7",
        f"workers={workers}",
    ]
    recipe = resolve_recipe(load_recipe("smoke", [*fixed, *given]))
    ranks = Ranks(rank, num_ranks, torch.device("cpu"))
    return TrainStream(
        open_dataset(data, recipe.cache_options()).split("train"), recipe, PreprocessSpec(size=SIZE), ranks
    )


def run_ranks(data: Path, num_ranks: int, options: dict[str, Any], workers: int = 0) -> list[list[tuple[Any, ...]]]:
    """Return for each step a row a sample: id, label, label and weight of the partner, share, mixed picture."""
    steps: list[list[tuple[Any, ...]]] = []
    for rank in range(num_ranks):
        stream = open_stream(data, rank, num_ranks, options, workers)
        for step, batch in enumerate(stream.iterate(1, 0)):
            steps += [[]] * (step == len(steps))
            steps[step] = [*steps[step], *tell(batch)]
        stream.close()
    return steps


def tell(batch: Batch) -> list[tuple[Any, ...]]:
    assert len(batch) == len(batch.labels) == len(batch.weights) == len(batch.sources)
    if batch.pairs is None:
        rows = zip(batch.ids.tolist(), batch.labels.tolist(), batch.images, strict=True)
        return [(number, label, None, None, None, image.numpy().tobytes()) for number, label, image in rows]
    mixed, pairs = mix_images(batch.images, batch.pairs), batch.pairs
    columns = (batch.ids, batch.labels, pairs.labels, pairs.weights, pairs.lam)
    numbers = zip(*(column.tolist() for column in columns), strict=True)
    return [(*row, image.numpy().tobytes()) for row, image in zip(numbers, mixed, strict=True)]


@pytest.fixture(scope="module", params=MIXED)
def alone(request: pytest.FixtureRequest, dataset_path: Path) -> tuple[dict[str, Any], list[list[tuple[Any, ...]]]]:
    """The options, and an epoch of one rank: 72 samples in steps of 7, the last one of 2."""
    options = MIXED[request.param]
    return options, run_ranks(dataset_path, 1, options)


@pytest.mark.parametrize(("num_ranks", "workers"), [(2, 0), (3, 2), (5, 0)])
def test_mixed_batches_are_the_same_for_every_number_of_ranks_and_workers(
    dataset_path: Path, alone: tuple[dict[str, Any], list[list[tuple[Any, ...]]]], num_ranks: int, workers: int
) -> None:
    """With 5 ranks three have nothing to do in the last step."""
    options, expected = alone
    assert run_ranks(dataset_path, num_ranks, options, workers) == expected


def test_partner_is_the_next_sample_of_the_global_batch(
    alone: tuple[dict[str, Any], list[list[tuple[Any, ...]]]],
) -> None:
    mixed = [step for step in alone[1] if step[0][2] is not None]
    assert 0 < len(mixed) <= len(alone[1]) == 11
    for step in mixed:
        labels = [row[1] for row in step]
        assert [row[2] for row in step] == [*labels[1:], labels[0]]
        assert len({row[4] for row in step}) == 1


def test_some_steps_mix_and_some_do_not_where_half_were_asked_for(
    alone: tuple[dict[str, Any], list[list[tuple[Any, ...]]]],
) -> None:
    kinds = {step[0][2] is None for step in alone[1]}
    assert kinds == ({True, False} if "mix_prob" in alone[0] else {False})


def test_partner_fetched_for_another_rank_has_the_pixels_of_its_own_key(dataset_path: Path) -> None:
    """What rank 0 fetches behind its own samples is what rank 1 has."""
    streams = [open_stream(dataset_path, rank, 2, {"mixup": 0.4}) for rank in range(2)]
    compared = 0
    for first, second in zip(*(stream.iterate(0, 0) for stream in streams), strict=True):
        if first.pairs and len(first.images) > len(first):
            assert torch.equal(first.images[len(first)], second.images[0])
            assert int(first.pairs.labels[-1]) == int(second.labels[0])
            compared += 1
    for stream in streams:
        stream.close()
    assert compared == 11


def test_mixing_changes_neither_the_order_nor_the_pictures_that_it_mixes(dataset_path: Path) -> None:
    plain, mixing = (open_stream(dataset_path, 0, 1, options) for options in ({}, {"mixup": 0.4}))
    for one, other in zip(plain.iterate(0, 0), mixing.iterate(0, 0), strict=True):
        assert (one.ids == other.ids).all()
        assert torch.equal(one.images, other.images)
    plain.close()
    mixing.close()


def test_ledger_records_a_ranks_own_samples_and_no_partner(dataset_path: Path, tmp_path: Path) -> None:
    for rank in range(2):
        stream, ledger = open_stream(dataset_path, rank, 2, {"mixup": 0.4}), Ledger(tmp_path, rank, 0, 0)
        for step, batch in enumerate(stream.iterate(0, 0)):
            ledger.add(batch, 0, step, 7 * step)
        ledger.flush(72)
        stream.close()
    assert sorted(read_ledger(tmp_path)["sample_id"].to_pylist()) == list(range(72))


def test_box_rounds_to_the_pixels_of_any_size() -> None:
    assert CutBox(0.1, 0.0, 0.52, 1.0).place(224) == (22, 0, 116, 224)


# shards that are sorted by class

SORTED = {
    "a shard a class": (10, 1, 300, 8, 64),
    "five shards a class": (10, 5, 60, 8, 64),
    "four lanes": (10, 1, 300, 4, 64),
    "many classes": (50, 1, 40, 8, 64),
    "two classes": (2, 6, 100, 8, 64),
    "a batch of odd size": (10, 1, 300, 8, 13),
}
"""Classes, shards of each, samples of each shard, lanes, batch_size_global."""


def share_same(labels: list[npt.NDArray[np.int64]], lanes: int, batch_size: int, apart: int | None) -> float:
    """The share of samples of three epochs whose partner is of their class; a window is one shard."""
    counts = np.array([len(each) for each in labels])
    order = OrderOptions(0, batch_size, lanes, window_bytes=1)
    sizes, same = ShardSizes(counts, np.full(len(counts), 1 << 20)), 0
    for number in range(3):
        epoch = EpochPlan(sizes, order, number)
        for step in range(epoch.num_steps):
            refs, mix = epoch.step(step), plan_mix(MIXUP, 0, number, step, epoch.step_size(step), apart)
            assert mix is not None
            batch = np.array([labels[shard][row] for shard, row in zip(refs.shards, refs.rows, strict=True)])
            same += int((batch == batch[mix.partners]).sum())
    return same / (3 * int(counts.sum()))


@pytest.mark.parametrize("case", SORTED.values(), ids=SORTED)
def test_partners_of_sorted_shards_are_of_one_class_no_more_often_than_of_shuffled_ones(
    case: tuple[int, int, int, int, int],
) -> None:
    """Neighbours are of one class in 0.44 to 0.94 of the pairs; 1 / classes is what a full shuffle has."""
    num_classes, shards, size, lanes, batch_size = case
    labels = [np.full(size, number) for number in range(num_classes) for _ in range(shards)]
    expected = 1 / num_classes
    assert share_same(labels, lanes, batch_size, None) > expected + 0.3
    assert share_same(labels, lanes, batch_size, lanes) < expected


@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 2, 7, 8, 13, 64])
def test_partners_apart_are_a_permutation_and_of_different_lanes_where_there_are_some(size: int, lanes: int) -> None:
    counts = np.full(4, 50)
    epoch = EpochPlan(ShardSizes(counts, counts), OrderOptions(0, size, lanes), 0)
    for step in range(min(5, epoch.num_steps)):
        mix = plan_mix(MIXUP, 0, 0, step, epoch.step_size(step), lanes)
        assert mix is not None
        assert sorted(mix.partners.tolist()) == list(range(len(mix.partners)))
        if lanes > 1 and len(mix.partners) > lanes:
            longest = -(-len(mix.partners) // lanes)
            apart = (mix.partners - np.arange(len(mix.partners))) % len(mix.partners)
            assert lanes == 2 or (longest <= apart.min() and apart.max() <= len(mix.partners) - longest)


def test_how_a_step_mixes_does_not_depend_on_how_it_pairs() -> None:
    for step in range(20):
        near, far = (plan_mix(BOTH, 0, 0, step, 12, lanes) for lanes in (None, 4))
        assert near is not None
        assert far is not None
        assert (near.lam, near.box) == (far.lam, far.box)


def write_sorted_tars(folder: Path) -> Path:
    """Foreign tars of one class each: four classes of 16 pictures; and as many for validation."""
    image = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(image, "PNG")
    for split in ("train", "val"):
        for number in range(4):
            pairs = {f"{number}{row:02}": (image.getvalue(), str(number).encode()) for row in range(16)}
            files = {
                f"{key}.{end}": data
                for key, both in pairs.items()
                for end, data in zip(("png", "cls"), both, strict=True)
            }
            write_tar(folder / f"{split}-{number:06}.tar", files)
    index_foreign(folder)
    return folder


@pytest.fixture(scope="module")
def sorted_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sorted_tars(tmp_path_factory.mktemp("sorted"))


def count_same(data: Path, *options: str, version: int = VERSION) -> float:
    """The share of samples of an epoch whose partner is of their class."""
    recipe = resolve_recipe(load_recipe("smoke", [f"data={data}", "workers=0", "batch_size_global=16", *options]))
    stream = TrainStream(
        open_dataset(data).split("train"), recipe, PreprocessSpec(size=16), single_rank(), version=version
    )
    batches = [batch for epoch in range(3) for batch in stream.iterate(epoch, 0)]
    stream.close()
    return float(
        np.mean([float((batch.labels == batch.pairs.labels).double().mean()) for batch in batches if batch.pairs])
    )


def test_sorted_foreign_tars_are_paired_across_lanes_and_as_before_in_a_run_that_began_so(sorted_path: Path) -> None:
    """A quarter of the partners of a full shuffle are of the same class."""
    options = ("augment.mixup=0.4", "stream.lanes=4")
    assert count_same(sorted_path, *options, version=1) > 0.5
    assert count_same(sorted_path, *options) < 0.25


def test_one_lane_of_sorted_shards_is_refused_and_each_remedy_helps(sorted_path: Path) -> None:
    options = ("augment.cutmix=1", "stream.lanes=1", "stream.window_bytes=1")
    with pytest.raises(UsageError) as caught:
        count_same(sorted_path, *options)
    size = int(open_dataset(sorted_path).split("train").shard_bytes.sum())
    assert str(caught.value) == (
        f"augment.cutmix pairs pictures of different lanes if shards are sorted by class, like those of {sorted_path}, "
        f"but stream.lanes=1 has only one; set stream.lanes=8, set stream.window_bytes={size}, which shuffles "
        "everything, or pack the pictures again, which mixes the shards"
    )
    assert count_same(sorted_path, *options, "stream.lanes=8") < 0.25
    assert count_same(sorted_path, *options, f"stream.window_bytes={size}") < 0.4
    assert count_same(sorted_path, *options, version=1) > 0.5


def test_shards_as_we_pack_them_are_paired_by_neighbours(dataset_path: Path, multi_path: Path) -> None:
    for path in (dataset_path, multi_path):
        split = open_dataset(path).split("train")
        assert measure_sorting(split.class_counts, split.counts) < 0.03
        assert find_sorted_lanes(split, load_recipe("smoke", [f"data={path}", "augment.mixup=0.4"])) is None


@pytest.mark.parametrize(("num_ranks", "workers"), [(2, 2), (5, 0)])
def test_pairs_across_lanes_are_the_same_for_every_number_of_ranks(
    sorted_path: Path, num_ranks: int, workers: int
) -> None:
    options = {"mixup": 0.2, "cutmix": 1.0}
    assert run_ranks(sorted_path, num_ranks, options, workers) == run_ranks(sorted_path, 1, options)
