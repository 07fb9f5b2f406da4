"""Schedules against torch's, at the epochs' starts; their one-word forms; the plateau's state."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from shards.errors import UsageError
from trainer.recipes.file import load_recipe
from trainer.recipes.options.choice import REQUIRED
from trainer.recipes.options.schedule import SCHEDULES, ScheduleOptions
from trainer.step.schedule import PlateauState, scale_lr, watch_metric


def scale(seen: int, total: int = 1000, per_epoch: int = 100, **options: object) -> float:
    return scale_lr(ScheduleOptions.model_validate(options), seen, total, per_epoch)


@pytest.mark.parametrize(("seen", "share"), [(50, 0.25), (100, 0.5), (150, 0.75), (199, 0.995), (200, 1.0)])
@pytest.mark.parametrize("warmup", [{"warmup_frac": 0.2}, {"warmup_epochs": 2}])
def test_warmup_is_linear(warmup: dict[str, float], seen: int, share: float) -> None:
    assert scale(seen, **warmup) == pytest.approx(share)


def test_first_step_of_warmup_takes_one_samples_worth() -> None:
    assert scale(0, warmup_frac=0.2) == scale(1, warmup_frac=0.2) == pytest.approx(1 / 200)


def test_schedule_falls_during_warmup_as_it_would_without() -> None:
    options: dict[str, object] = {"name": "exponential", "gamma": 0.5}
    expected = [0.5 ** (seen // 100) * min(1.0, seen / 300) for seen in (150, 299, 300, 450)]
    assert [scale(seen, warmup_epochs=3, **options) for seen in (150, 299, 300, 450)] == pytest.approx(expected)


# Values for options that have no default; half is one for most.
VALUES_OF = {"milestones": [3, 6], "gamma": 0.9}
# What is added to the table is tested by all that is parametrised with it.
NEEDED: dict[str, dict[str, object]] = {
    name: {option: VALUES_OF.get(option, 0.5) for option, default in row.defaults.items() if default is REQUIRED}
    for name, row in SCHEDULES.items()
}


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_rate_is_at_its_peak_without_warmup(name: str) -> None:
    assert scale(0, name=name, warmup_frac=0, **NEEDED[name]) == 1.0


@pytest.mark.parametrize("final_frac", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("name", ["cosine", "polynomial"])
def test_rate_ends_at_its_final_share(name: str, final_frac: float) -> None:
    assert scale(1000, name=name, final_frac=final_frac) == pytest.approx(final_frac)


def test_cosine_is_half_way_between_peak_and_end_in_the_middle() -> None:
    assert scale(600, name="cosine", warmup_frac=0.2, final_frac=0.5) == pytest.approx(0.75)


@pytest.mark.parametrize("seen", [200, 500, 1000])
def test_constant_stays_at_the_peak_after_warmup(seen: int) -> None:
    assert scale(seen, name="constant", warmup_frac=0.2) == 1.0


@pytest.mark.parametrize(("seen", "share"), [(0, 1.0), (299, 1.0), (300, 0.1), (599, 0.1), (600, 0.01), (999, 0.001)])
def test_step_multiplies_by_gamma_every_step_epochs(seen: int, share: float) -> None:
    assert scale(seen, name="step", warmup_frac=0, step_epochs=3, gamma=0.1) == pytest.approx(share)


SMOOTH: dict[str, tuple[dict[str, object], float]] = {
    "step": ({"step_epochs": 3, "gamma": 0.1}, 0.1 ** (2.5 / 3)),
    "exponential": ({"gamma": 0.9}, 0.9**2.5),
    "natural_exp": ({"gamma": 0.6}, math.exp(-0.6 * 2.5)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_without_staircase_the_rate_falls_within_epochs(name: str) -> None:
    options, share = SMOOTH[name]
    assert scale(250, name=name, warmup_frac=0, staircase=False, **options) == pytest.approx(share)
    assert scale(250, name=name, warmup_frac=0, **options) == scale(200, name=name, warmup_frac=0, **options)


def test_natural_exponential_is_the_tutorials() -> None:
    """lr = 3e-4 * exp(-0.6 * epoch), with the same rate for all steps of an epoch."""
    rates = [3e-4 * scale(seen, name="natural_exp", gamma=0.6, warmup_frac=0) for seen in (0, 99, 100, 250)]
    assert rates == pytest.approx([3e-4, 3e-4, 3e-4 * math.exp(-0.6), 3e-4 * math.exp(-1.2)])


def follow(build: Callable[[torch.optim.Optimizer], theirs.LRScheduler], steps: int) -> list[float]:
    """Rates of torch's schedule from a peak of 1, one for each time that it is asked."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


EPOCHS = 70
PEERS: dict[str, tuple[dict[str, object], Callable[[torch.optim.Optimizer], theirs.LRScheduler]]] = {
    "step": ({"step_epochs": 20, "gamma": 0.1}, lambda o: theirs.StepLR(o, 20, 0.1)),
    "multistep": ({"milestones": [30, 60], "gamma": 0.1}, lambda o: theirs.MultiStepLR(o, [30, 60], 0.1)),
    "cosine": ({"final_frac": 0.01}, lambda o: theirs.CosineAnnealingLR(o, EPOCHS, 0.01)),
    "sgdr, growing": (
        {"first_epochs": 5, "mult": 2, "final_frac": 0.01},
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 5, 2, 0.01),
    ),
    "sgdr, even": ({"first_epochs": 7, "mult": 1}, lambda o: theirs.CosineAnnealingWarmRestarts(o, 7)),
    "exponential": ({"gamma": 0.9}, lambda o: theirs.ExponentialLR(o, 0.9)),
    "natural_exp": ({"gamma": 0.06}, lambda o: theirs.LambdaLR(o, lambda epoch: math.exp(-0.06 * epoch))),
    "polynomial": ({"power": 0.9}, lambda o: theirs.PolynomialLR(o, EPOCHS, 0.9)),
    # torch counts the steps between first and last rate, one fewer than all.
    "one_cycle": (
        {"warmup_epochs": 21},
        lambda o: theirs.OneCycleLR(o, 1.0, total_steps=EPOCHS + 1, pct_start=22 / (EPOCHS + 1), cycle_momentum=False),
    ),
}


@pytest.mark.parametrize("case", PEERS)
def test_rate_at_each_epochs_start_is_torchs(case: str) -> None:
    options, build = PEERS[case]
    options = {"name": case.partition(",")[0], "warmup_frac": 0, **options}
    ours = [scale(epoch * 37, EPOCHS * 37, 37, **options) for epoch in range(EPOCHS)]
    assert ours == pytest.approx(follow(build, EPOCHS), rel=1e-9, abs=1e-12)


VALUES = {
    "accuracy": [0.5, 0.6, 0.6, 0.59, 0.6, 0.6, 0.61, 0.61, 0.61, 0.61, 0.61, 0.61, 0.61, 0.61, 0.61, 0.7, 0.1],
    "log_loss": [1.0, 0.9, 0.8999999, 0.95, math.nan, 0.91, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.6, 0.65],
    "below zero": [-1.0, -1.00001, -0.9, -0.8, -0.8, -0.8, -0.8, -0.8, -0.8],
}


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("values", VALUES)
def test_plateau_falls_when_torchs_does(values: str, patience: int) -> None:
    lower = values == "log_loss"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = theirs.ReduceLROnPlateau(optimizer, "min" if lower else "max", 0.5, patience, min_lr=0.01)
    options = ScheduleOptions(name="plateau", factor=0.5, patience=patience, final_frac=0.01, warmup_frac=0)
    state = PlateauState()
    for value in VALUES[values]:
        peer.step(value)
        state = watch_metric(options, state, value, lower_is_better=lower)
        assert scale_lr(options, 50, 100, 10, state) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_plateau_state_goes_through_json_unchanged() -> None:
    options, state = ScheduleOptions(name="plateau", patience=1), PlateauState()
    for value in (0.1, 0.1, 0.1, 0.3, 0.2):
        assert PlateauState.model_validate_json(state.model_dump_json()) == state
        state = watch_metric(options, state, value, lower_is_better=False)
    assert state == PlateauState(best=0.3, epochs_without_better=1, share=0.1)


ONE_WORD: dict[str, dict[str, object]] = {
    "default-0.5-3": {"name": "plateau", "factor": 0.5, "patience": 3, "threshold": 1e-4, "final_frac": 0.0},
    "step-20-0.1": {"name": "step", "step_epochs": 20.0, "gamma": 0.1, "staircase": True},
    "step-20-1e-1": {"name": "step", "step_epochs": 20.0, "gamma": 0.1, "staircase": True},
    "SGDR-5-2": {"name": "sgdr", "first_epochs": 5.0, "mult": 2, "final_frac": 0.0},
    "sgdr-5-2": {"name": "sgdr", "first_epochs": 5.0, "mult": 2, "final_frac": 0.0},
    "multi-30,60-0.1": {"name": "multistep", "milestones": [30.0, 60.0], "gamma": 0.1},
    "multi-30-.1": {"name": "multistep", "milestones": [30.0], "gamma": 0.1},
    "cosine": {"name": "cosine", "final_frac": 0.0, "warmup_frac": 0.1},
}


@pytest.mark.parametrize("word", ONE_WORD)
def test_schedule_in_one_word_is_resolved_to_its_options(word: str) -> None:
    recipe = load_recipe("smoke", ["data=x", f"schedule={word}"])
    shown = {name: value for name, value in recipe.model_dump()["schedule"].items() if value is not None}
    assert shown == {"warmup_frac": 0.0} | ONE_WORD[word]
    assert ScheduleOptions.model_validate(recipe.model_dump(mode="json")["schedule"]) == recipe.schedule


FORMS = (
    "use step-20-0.1 (step: step_epochs, gamma), multi-30,60-0.1 (multistep: milestones, gamma), "
    f"SGDR-5-2 (sgdr: first_epochs, mult), default-0.5-3 (plateau: factor, patience), or one of {', '.join(SCHEDULES)}"
)


def list_users(option: str) -> str:
    return " or ".join(name for name, row in SCHEDULES.items() if option in row.uses)


REFUSED = {
    "schedule=stpe-20-0.1": f"schedule: no schedule 'stpe-20-0.1': {FORMS}, got 'stpe-20-0.1'",
    "schedule=step-20": f"schedule: no schedule 'step-20': {FORMS}, got 'step-20'",
    "schedule=step-0-0.1": "schedule.step_epochs: input should be greater than 0, got '0'",
    "schedule=step-20-2": "schedule: step multiplies by gamma, which must be below 1, got 2",
    "schedule=multi-60,30-0.1": "schedule: milestones must be ascending epochs above 0, got [60.0, 30.0]",
    "schedule={name: multistep, milestones: []}": "schedule: milestones must be ascending epochs above 0, got []",
    "schedule.name=multistep": "schedule: multistep needs milestones, got none; give it a value",
    "schedule.name=natural_exp": "schedule: natural_exp needs gamma, got none; give it a value",
    "schedule.power=2": (
        f"schedule: cosine does not use power, got power=2; leave it out (null), or use {list_users('power')}"
    ),
    "schedule.gamma=0.5": (
        f"schedule: cosine does not use gamma, got gamma=0.5; leave it out (null), or use {list_users('gamma')}"
    ),
    "schedule={warmup_frac: 0.2, warmup_epochs: 2}": (
        "schedule: the warm-up is set twice, got warmup_frac=0.2 and warmup_epochs=2; set one of them to null"
    ),
}


@pytest.mark.parametrize("option", REFUSED)
def test_schedule_that_means_nothing_is_refused(option: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("smoke", ["data=x", option])
    assert str(caught.value) == REFUSED[option]


def test_null_takes_back_what_another_schedule_used() -> None:
    recipe = load_recipe("smoke", ["data=x", "schedule={name: step, gamma: 0.5}", "schedule.name=cosine",
                                   "schedule.gamma=null"])  # fmt: skip
    assert recipe.schedule == ScheduleOptions(name="cosine")


@pytest.mark.parametrize("name", [name for name, row in SCHEDULES.items() if row.form])
def test_example_of_a_form_in_one_word_is_read_as_its_schedule(name: str) -> None:
    form = SCHEDULES[name].form
    assert form is not None
    options = ScheduleOptions.model_validate(form.example)
    assert (options.name, options.warmup_frac) == (name, 0)
    assert set(form.options) <= set(SCHEDULES[name].defaults)


@pytest.mark.parametrize(("name", "share"), [("cosine", 0.1), ("one_cycle", 0.3)])
def test_warmup_that_is_not_given_is_the_schedules_own(name: str, share: float) -> None:
    assert ScheduleOptions.model_validate({"name": name}).warmup_frac == share
    assert ScheduleOptions.model_validate({"name": name, "warmup_epochs": 2}).warmup_frac == 0


@pytest.mark.parametrize("before", sorted(NEEDED))
@pytest.mark.parametrize("after", ["constant", "cosine", "step", "one_cycle", "plateau"])
def test_resolved_recipe_can_be_given_another_schedule(before: str, after: str) -> None:
    """As a sweep does; what the old one needs must be taken back."""
    resolved = ScheduleOptions.model_validate({"name": before, **NEEDED[before]})
    changes = {"name": after, **dict.fromkeys(NEEDED[before])}
    whole = ScheduleOptions.model_validate(resolved.model_dump(mode="json") | changes)
    given = ScheduleOptions.model_validate(resolved.model_dump(mode="json", exclude_unset=True) | changes)
    assert given == ScheduleOptions.model_validate({"name": after})
    assert whole.name == after


@st.composite
def draw_options(draw: st.DrawFn) -> ScheduleOptions:
    name = draw(st.sampled_from(sorted(NEEDED)))
    pool: dict[str, st.SearchStrategy[object]] = {
        "gamma": st.floats(0.001, 0.999),
        "step_epochs": st.floats(0.01, 100),
        "milestones": st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True).map(sorted),
        "staircase": st.booleans(),
        "first_epochs": st.floats(0.1, 30),
        "mult": st.integers(1, 3),
        "start_div": st.floats(1, 100),
        "end_div": st.floats(1, 1e5),
        "power": st.floats(0.1, 4),
        "final_frac": st.floats(0, 1),
    }
    used = {
        option for option, value in ScheduleOptions.model_validate({"name": name, **NEEDED[name]}) if value is not None
    }
    values = {option: draw(pool[option]) for option in pool if option in used}
    warmup = draw(st.sampled_from(["warmup_frac", "warmup_epochs"]))
    share = draw(st.floats(0, 0.999) if warmup == "warmup_frac" else st.floats(0.01, 60))
    return ScheduleOptions.model_validate({"name": name, warmup: share, **values})


@given(options=draw_options(), epochs=st.integers(1, 50), per_epoch=st.integers(1, 10_000), data=st.data())
def test_rate_is_always_a_share_of_the_peak(
    options: ScheduleOptions, epochs: int, per_epoch: int, data: st.DataObject
) -> None:
    seen = data.draw(st.integers(0, epochs * per_epoch))
    share = data.draw(st.floats(0, 1))
    assert 0 <= scale_lr(options, seen, epochs * per_epoch, per_epoch, PlateauState(share=share)) <= 1


@given(options=draw_options(), epochs=st.integers(1, 20), per_epoch=st.integers(1, 1000), data=st.data())
def test_rate_does_not_depend_on_what_was_asked_before(
    options: ScheduleOptions, epochs: int, per_epoch: int, data: st.DataObject
) -> None:
    """A resumed run, whose options went through the recipe's file, asks from the middle."""
    total = epochs * per_epoch
    places = data.draw(st.lists(st.integers(0, total), min_size=1, max_size=5))
    again = ScheduleOptions.model_validate(options.model_dump(mode="json"))
    forwards = {seen: scale_lr(options, seen, total, per_epoch) for seen in sorted(places)}
    assert {seen: scale_lr(again, seen, total, per_epoch) for seen in sorted(places, reverse=True)} == forwards


@given(share=st.floats(0, 0.999), total=st.integers(1, 100_000), data=st.data())
def test_rate_never_falls_during_warmup(share: float, total: int, data: st.DataObject) -> None:
    last = int(share * total)
    earlier = data.draw(st.integers(0, last))
    later = data.draw(st.integers(earlier, last))
    constant = ScheduleOptions(name="constant", warmup_frac=share)
    assert scale_lr(constant, earlier, total, total) <= scale_lr(constant, later, total, total)


@given(patience=st.integers(0, 4), values=st.lists(st.floats(-10, 10), max_size=40))
def test_plateau_share_never_rises_and_is_a_function_of_the_values(patience: int, values: list[float]) -> None:
    options = ScheduleOptions(name="plateau", factor=0.5, patience=patience, final_frac=0.1)
    state = PlateauState()
    for value in values:
        after = watch_metric(options, state, value, lower_is_better=True)
        assert after == watch_metric(options, state, value, lower_is_better=True)
        assert 0.1 <= after.share <= state.share
        state = after
