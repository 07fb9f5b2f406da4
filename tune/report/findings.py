"""What a sweep found, in numbers: answer, costs, effects of factors, the front of accuracy and speed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from scipy.stats import rankdata

from trainer.contract.intact import WEIGHTS
from trainer.record.logbook import read_metrics
from tune.result.sweep import Sweep
from tune.space.variants import Trial
from tune.trials.table import Row

Floats = npt.NDArray[np.float64]
_LEAST = 5
"""Trials below which nothing is said of importance."""
_BUFFERS = {"running_mean", "running_var", "num_batches_tracked", "mean", "std"}
"""Last parts of the names of tensors that are no weights: statistics of norms, and how pictures are normalised."""


@dataclass(frozen=True)
class Cost:
    """What a variant costs, means over its finished runs. parameters: in millions."""

    parameters: float
    train_s: float
    img_s: float


@dataclass(frozen=True)
class Effect:
    """Mean of the trials with one level of a factor, all at the same epoch; trials: how many they are."""

    factor: str
    level: str
    mean: float
    trials: int


@dataclass(frozen=True)
class Effects:
    """Effects of the levels after `epoch` epochs, which every trial trained that did not fail.

    interactions: Pair of factors -> largest part of a combination's mean that the two factors' own effects do not
    explain; only of pairs of which every combination was tried.
    """

    epoch: int
    levels: list[Effect]
    interactions: dict[str, float]


def ask(sweep: Sweep) -> str:
    """Return the question of a sweep in one sentence."""
    count, base = len(sweep.variants), sweep.variants[0].name
    factors = " x ".join(sweep.space.factors or sweep.space.search)
    return f"Of {count} variants of {sweep.recipe.model} ({factors}), which is better than {base}?"


def answer(sweep: Sweep) -> str:
    """Return the answer in one or two sentences, with no more than the runs show."""
    if sweep.comparison is None:
        best = sweep.table.best
        if best is None:
            return "No trial finished, so there is no answer."
        metric = sweep.table.metric.replace("_", " ")
        return (
            f"Nothing was confirmed: {best.variant} has the best validation {metric} of the screen, {best.value:.4f}, "
            "with one seed a variant, so that differences may be luck."
        )
    rows = sweep.comparison.rows[1:]
    told = [row.sentence for row in rows if row.differs]
    if told:
        return f"{'; '.join(told)}."
    which = rows[0].name if len(rows) == 1 else f"any of {len(rows)} confirmed variants"
    return (
        f"There is no evidence that {which} differs from {sweep.comparison.baseline} in "
        f"{sweep.comparison.metric.replace('_', ' ')} on {sweep.comparison.pictures:,} test pictures."
    )


def list_costs(sweep: Sweep) -> dict[str, Cost]:
    """Return the costs of each variant with a finished run, from its confirming runs if it has some."""
    costs = {}
    for variant in sweep.variants:
        found = find_runs(sweep, variant.name)
        if found:
            folders = [trial.folder for trial, _ in found]
            costs[variant.name] = Cost(
                count_parameters(str(folders[0].bundle / WEIGHTS)) / 1e6,
                float(np.mean([row.train_s for _, row in found])),
                float(np.mean([row.img_s for _, row in found])),
            )
    return costs


def find_runs(sweep: Sweep, variant: str) -> list[tuple[Trial, Row]]:
    """Return the finished runs of a variant: the confirming ones, or else that of the screen."""
    for trials, table in ((sweep.confirm_trials, sweep.confirmed), (sweep.screen_trials, sweep.table)):
        rows = {row.trial: row for row in table.finished} if table else {}
        found = [(trial, rows[trial.name]) for trial in trials if trial.variant.name == variant and trial.name in rows]
        if found:
            return found
    return []


def count_parameters(path: str) -> int:
    """Return the number of weights in a safetensors file, without the statistics of norms."""
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.rpartition(".")[2] not in _BUFFERS]  # noqa: SIM118
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in names)


def measure_effects(sweep: Sweep) -> Effects | None:
    """Return the effects of the levels in the screen; None in a search, or if fewer than two trials trained."""
    found = read_at_one_epoch(sweep)
    if not sweep.space.factors or found is None:
        return None
    epoch, values = found
    effects = [
        Effect(factor, level, float(np.mean(same)), len(same))
        for factor, levels in sweep.space.factors.items()
        for level in levels
        if (same := [value for chosen, value in values if chosen[factor] == level])
    ]
    interactions = {
        f"{one} x {other}": size
        for one, other in itertools.combinations(sweep.space.factors, 2)
        if (size := _interact(values, one, other)) is not None
    }
    return Effects(epoch, effects, interactions)


def measure_importance(sweep: Sweep) -> dict[str, float]:
    """Return for each option of a search the share of the variance of the ranks that it explains alone, 0 to 1.

    Of numbers it is the square of Spearman's correlation; of other values, the share between their groups. Trials are
    compared at the epoch that all have reached. {} if there are fewer than five.
    """
    found = read_at_one_epoch(sweep)
    if found is None or len(found[1]) < _LEAST:
        return {}
    shares = {}
    for option in sweep.space.search:
        pairs = [(chosen[option], value) for chosen, value in found[1] if chosen[option]]
        if len(pairs) >= _LEAST and len({text for text, _ in pairs}) > 1:
            ranks = rankdata([value for _, value in pairs])
            shares[option] = _explain([text for text, _ in pairs], ranks) if np.ptp(ranks) else 0.0
    return shares


def _explain(texts: Sequence[str], ranks: Floats) -> float:
    try:
        numbers = rankdata([float(text) for text in texts])
    except ValueError:
        means = {text: ranks[[each == text for each in texts]].mean() for text in set(texts)}
        return float(np.var([means[text] for text in texts]) / np.var(ranks))
    return float(np.corrcoef(numbers, ranks)[0, 1] ** 2)


def read_at_one_epoch(sweep: Sweep) -> tuple[int, list[tuple[dict[str, str], float]]] | None:
    """Return the last epoch that every trial reached that did not fail, and levels and best value of each by then."""
    metric = f"val/{sweep.table.metric}"
    rows = {
        trial.name: [row[metric] for row in read_metrics(trial.folder.path)]
        for trial in sweep.screen_trials
        if trial.name not in sweep.table.failures
    }
    trained = [(trial, rows[trial.name]) for trial in sweep.screen_trials if rows.get(trial.name)]
    if len(trained) < 2:
        return None
    epoch = min(len(values) for _, values in trained)
    choose = min if sweep.recipe.stop.lower_is_better else max
    return epoch, [(trial.variant.levels, float(choose(each[:epoch]))) for trial, each in trained]


def _interact(values: Sequence[tuple[Mapping[str, str], float]], one: str, other: str) -> float | None:
    rows, columns = (list(dict.fromkeys(chosen[factor] for chosen, _ in values)) for factor in (one, other))
    cells = np.full((len(rows), len(columns)), np.nan)
    for (row, first), (column, second) in itertools.product(enumerate(rows), enumerate(columns)):
        found = [value for chosen, value in values if (chosen[one], chosen[other]) == (first, second)]
        if not found:
            return None
        cells[row, column] = np.mean(found)
    rest = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=0, keepdims=True) + cells.mean()
    return float(np.abs(rest).max())


def find_front(speed: Sequence[float], value: Sequence[float], *, lower_is_better: bool) -> list[int]:
    """Return the positions that no other one beats in both speed and value, the slowest first.

    >>> find_front([1, 2, 3, 4], [0.9, 0.8, 0.85, 0.7], lower_is_better=False)
    [0, 2, 3]
    """
    sign = -1 if lower_is_better else 1
    order = sorted(range(len(speed)), key=lambda place: (-speed[place], -sign * value[place]))
    front: list[int] = []
    for place in order:
        if not front or sign * value[place] > sign * value[front[-1]]:
            front.append(place)
    return front[::-1]
