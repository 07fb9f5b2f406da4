"""How often an epoch shows each sample: expected counts are exact, and every count is one of the two next to them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import UsageError
from shards.order import draws
from shards.order.draws import DrawOptions, Repeats, count_draws

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60)


def count(
    labels: list[int],
    order: Literal["plain", "balanced", "weighted"],
    *,
    weights: npt.NDArray[np.float64] | None = None,
    epoch: int = 0,
    seed: int = 0,
    fraction: float = 1.0,
) -> Repeats:
    given = np.ones(len(labels)) if weights is None else weights
    repeats = count_draws(
        DrawOptions(seed, order, fraction),
        epoch,
        lambda: np.array(labels, dtype=np.int32),
        lambda: given.astype(np.float32),
    )
    assert repeats is not None
    return repeats


def test_plain_order_asks_for_neither_labels_nor_weights() -> None:
    def refuse() -> npt.NDArray[np.int32]:
        raise AssertionError

    assert count_draws(DrawOptions(0), 3, refuse, lambda: np.zeros(0, np.float32)) is None


@given(LABELS, st.integers(0, 1000), st.integers(0, 50))
def test_balanced_order_shows_each_class_equally_often_to_the_draw(labels: list[int], seed: int, epoch: int) -> None:
    repeats = count(labels, "balanced", seed=seed, epoch=epoch)
    shown = [int(repeats[np.array(labels) == label].sum()) for label in set(labels)]
    assert sum(shown) == len(labels)
    assert max(shown) - min(shown) <= 1


@given(LABELS, st.integers(0, 1000))
def test_samples_of_one_class_are_shown_equally_often_to_the_draw(labels: list[int], seed: int) -> None:
    repeats = count(labels, "balanced", seed=seed)
    for label in set(labels):
        members = repeats[np.array(labels) == label]
        assert int(members.max()) - int(members.min()) <= 1


@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=60), st.integers(0, 1000))
def test_weighted_count_is_the_expected_one_rounded_down_or_up(weights: list[float], seed: int) -> None:
    values = np.array(weights, dtype=np.float32).astype(np.float64)
    if values.sum() == 0:
        return
    repeats = count([0] * len(weights), "weighted", weights=values, seed=seed)
    expected = len(weights) * values / values.sum()
    assert repeats.sum() == len(weights)
    assert (repeats >= np.floor(expected - 1e-6)).all()
    assert (repeats <= np.ceil(expected + 1e-6)).all()


@pytest.mark.parametrize("order", ["balanced", "weighted"])
def test_mean_count_over_epochs_is_the_expected_one(order: Literal["balanced", "weighted"]) -> None:
    """The mean of 3,000 epochs is within 5 standard errors of the exact value; counts vary by at most 1/2 a draw."""
    labels = [0] * 50 + [1] * 7 + [2] * 3
    weights = np.random.default_rng(1).random(60).astype(np.float32).astype(np.float64)
    mean = np.mean([count(labels, order, weights=weights, epoch=epoch) for epoch in range(3000)], axis=0)
    balanced = np.array([20 / 50] * 50 + [20 / 7] * 7 + [20 / 3] * 3)
    expected = balanced if order == "balanced" else 60 * weights / weights.sum()
    assert np.abs(mean - expected).max() < 5 * 0.5 / np.sqrt(3000)


def test_sample_without_weight_is_never_shown() -> None:
    weights = np.array([0.0, 1.0, 2.0, 0.0])
    assert {tuple(count([0] * 4, "weighted", weights=weights, epoch=epoch)[[0, 3]]) for epoch in range(200)} == {(0, 0)}


def test_epochs_draw_anew_and_the_same_epoch_draws_the_same() -> None:
    labels = [0] * 30 + [1] * 5
    first, again, other = (count(labels, "balanced", epoch=epoch).tolist() for epoch in (0, 0, 1))
    assert first == again
    assert first != other


def test_which_samples_of_a_large_class_are_shown_together_is_drawn_anew() -> None:
    """10 of 40 in each epoch: a fixed order of the class would know only as many sets as its draws lie apart."""
    labels = [0] * 40 + [1, 2, 3]
    shown = {tuple(np.flatnonzero(count(labels, "balanced", epoch=epoch)[:40]).tolist()) for epoch in range(200)}
    assert len(shown) > 150


def test_many_chunks_are_drawn_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, weights = [0, 1] * 500, np.random.default_rng(0).random(1000)
    whole = [count(labels, order, weights=weights).tolist() for order in ("balanced", "weighted")]
    monkeypatch.setattr(draws, "_CHUNK", 7)
    assert [count(labels, order, weights=weights).tolist() for order in ("balanced", "weighted")] == whole


@given(LABELS, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_smaller_fraction_is_part_of_a_larger_one(labels: list[int], one: float, other: float) -> None:
    small, large = (count(labels, "plain", fraction=fraction) for fraction in sorted((one, other)))
    assert (small <= large).all()


@given(LABELS, st.floats(0.01, 0.99))
def test_fraction_takes_its_share_of_every_class_and_at_least_one(labels: list[int], fraction: float) -> None:
    taken = count(labels, "plain", fraction=fraction)
    assert set(taken.tolist()) <= {0, 1}
    for label in set(labels):
        size = labels.count(label)
        assert taken[np.array(labels) == label].sum() == max(1, round(size * fraction))


def test_fraction_is_the_same_in_every_epoch_and_another_for_another_seed() -> None:
    labels = [0, 1] * 50
    assert (count(labels, "plain", fraction=0.3, epoch=0) == count(labels, "plain", fraction=0.3, epoch=5)).all()
    assert (count(labels, "plain", fraction=0.3) != count(labels, "plain", fraction=0.3, seed=1)).any()


@pytest.mark.parametrize("order", ["balanced", "weighted"])
def test_order_of_a_fraction_shows_its_samples_alone(order: Literal["balanced", "weighted"]) -> None:
    labels = [0] * 40 + [1] * 10
    part = count(labels, "plain", fraction=0.5)
    shown = count(labels, order, fraction=0.5)
    assert shown.sum() == part.sum()
    assert not shown[part == 0].any()


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_that_cannot_be_drawn_by_are_refused(weights: list[float]) -> None:
    with pytest.raises(
        UsageError, match=r"^stream\.order=weighted draws samples by their weights, which must be finite"
    ):
        count([0, 0], "weighted", weights=np.array(weights))
