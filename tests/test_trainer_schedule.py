from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.options.optim import ScheduleOptions
from trainer.step.schedule import scale_lr


def scale(seen: int, total: int = 1000, per_epoch: int = 100, **options: object) -> float:
    return scale_lr(ScheduleOptions.model_validate(options), seen, total, per_epoch)


@pytest.mark.parametrize(("seen", "share"), [(50, 0.25), (100, 0.5), (150, 0.75), (199, 0.995), (200, 1.0)])
def test_warmup_is_linear(seen: int, share: float) -> None:
    assert scale(seen, warmup_frac=0.2) == pytest.approx(share)


def test_first_step_of_warmup_takes_one_samples_worth() -> None:
    assert scale(0, warmup_frac=0.2) == scale(1, warmup_frac=0.2) == pytest.approx(1 / 200)


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
def test_rate_is_at_its_peak_without_warmup(name: str) -> None:
    assert scale(0, name=name, warmup_frac=0) == 1.0


@pytest.mark.parametrize("final_frac", [0.0, 0.1, 1.0])
def test_cosine_ends_at_its_final_share(final_frac: float) -> None:
    assert scale(1000, name="cosine", final_frac=final_frac) == pytest.approx(final_frac)


def test_cosine_is_half_way_between_peak_and_end_in_the_middle() -> None:
    assert scale(600, name="cosine", warmup_frac=0.2, final_frac=0.5) == pytest.approx(0.75)


@pytest.mark.parametrize("seen", [200, 500, 1000])
def test_constant_stays_at_the_peak_after_warmup(seen: int) -> None:
    assert scale(seen, name="constant", warmup_frac=0.2) == 1.0


@pytest.mark.parametrize(("seen", "share"), [(0, 1.0), (299, 1.0), (300, 0.1), (599, 0.1), (600, 0.01), (999, 0.001)])
def test_step_multiplies_by_gamma_every_step_epochs(seen: int, share: float) -> None:
    assert scale(seen, name="step", warmup_frac=0, step_epochs=3, gamma=0.1) == pytest.approx(share)


OPTIONS = st.builds(
    ScheduleOptions,
    name=st.sampled_from(["constant", "cosine", "step"]),
    warmup_frac=st.floats(0, 0.999),
    final_frac=st.floats(0, 1),
    step_epochs=st.floats(0.01, 100),
    gamma=st.floats(0.001, 0.999),
)


@given(options=OPTIONS, epochs=st.integers(1, 50), per_epoch=st.integers(1, 10_000), data=st.data())
def test_rate_is_always_a_share_of_the_peak(
    options: ScheduleOptions, epochs: int, per_epoch: int, data: st.DataObject
) -> None:
    seen = data.draw(st.integers(0, epochs * per_epoch))
    assert 0 <= scale_lr(options, seen, epochs * per_epoch, per_epoch) <= 1


@given(options=OPTIONS, total=st.integers(1, 100_000), data=st.data())
def test_rate_never_falls_during_warmup(options: ScheduleOptions, total: int, data: st.DataObject) -> None:
    last = int(options.warmup_frac * total)
    earlier = data.draw(st.integers(0, last))
    later = data.draw(st.integers(earlier, last))
    before_the_fall = ScheduleOptions(name="constant", warmup_frac=options.warmup_frac)
    assert scale_lr(before_the_fall, earlier, total, total) <= scale_lr(before_the_fall, later, total, total)
