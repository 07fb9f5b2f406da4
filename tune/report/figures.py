"""Figures about a sweep: differences with intervals, learning curves, effects, accuracy against speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.evaluate.figures.figures import new_figure, save_figure
from trainer.evaluate.figures.fonts import apply_fonts, letter_texts
from trainer.record.logbook import read_metrics
from tune.report.findings import Effects, Floats, find_front, list_costs, read_at_one_epoch
from tune.result.sweep import Sweep
from tune.trials.table import FINISHED, STOPPED

DIFFERENCES, CURVES, EFFECTS, SPEED = "differences.png", "curves.png", "effects.png", "speed.png"
PARALLEL = "parallel.png"
_GRAY, _INK, _BLUE = "#9aa4ae", "#1b1f24", "#0b5cad"
_TICKS = 10
"""Most values of an option that its axis names."""
_NAMED = 12
"""Most trials that the legend of the curves names."""


def draw_differences(sweep: Sweep, path: Path) -> None:
    """Draw the paired difference of each confirmed variant to the baseline, with its 95 % interval."""
    assert sweep.comparison is not None
    rows = [row for row in sweep.comparison.rows if row.difference is not None]
    families, spell = letter_texts([row.name for row in rows])
    with apply_fonts(families):
        figure = new_figure(8, 1.3 + 0.5 * len(rows))
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            assert row.difference is not None
            assert row.difference_interval is not None
            low, high = row.difference_interval
            colour = _BLUE if row.differs else _GRAY
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot(row.difference, place, "o", color=colour)
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [spell(row.name) for row in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        name = sweep.comparison.metric.replace("_", " ")
        axes.set_xlabel(f"difference of {name} to {spell(sweep.comparison.baseline)}, 95 %", fontsize=8)
        axes.grid(axis="x", alpha=0.3)
        save_figure(figure, path)


def draw_curves(sweep: Sweep, path: Path) -> None:
    """Draw the validation metric of every trial of the screen by epoch; a cross is where one was stopped."""
    metric = f"val/{sweep.table.metric}"
    families, spell = letter_texts([row.variant for row in sweep.table.rows])
    with apply_fonts(families):
        figure = new_figure(9, 4.2 + (0.22 * min(_NAMED, len(sweep.table.rows))))
        axes = figure.add_subplot()
        folders = {trial.name: trial.folder.path for trial in sweep.screen_trials}
        for place, row in enumerate(sweep.table.rows):
            values = [each[metric] for each in read_metrics(folders[row.trial])]
            finished = row.status == FINISHED
            label = spell(row.variant) if place < _NAMED else None
            colour = None if finished else _GRAY
            axes.plot(range(1, len(values) + 1), values, marker=".", alpha=0.9, label=label, color=colour)
            if row.status == STOPPED:
                axes.plot(len(values), values[-1], "x", color=_INK)
        axes.set_xlabel("epoch (x: stopped early)")
        axes.set_ylabel(f"validation {sweep.table.metric.replace('_', ' ')}")
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)
        figure.legend(fontsize=7, loc="outside lower left", ncols=2)
        save_figure(figure, path)


def draw_effects(effects: Effects, metric: str, path: Path) -> None:
    """Draw the mean of each level of each factor."""
    factors = list(dict.fromkeys(each.factor for each in effects.levels))
    families, spell = letter_texts([word for each in effects.levels for word in (each.factor, each.level)])
    with apply_fonts(families):
        figure = new_figure(min(14.0, 2.2 + 2.4 * len(factors)), 3.4)
        panels = np.atleast_1d(figure.subplots(1, len(factors), sharey=True))
        for axes, factor in zip(panels, factors, strict=True):
            levels = [each for each in effects.levels if each.factor == factor]
            axes.plot(range(len(levels)), [each.mean for each in levels], "o-", color=_BLUE)
            axes.set_xticks(
                range(len(levels)), [spell(each.level) for each in levels], fontsize=7, rotation=30, ha="right"
            )
            axes.set_title(spell(factor), fontsize=9)
            axes.grid(alpha=0.3)
            axes.margins(x=0.2)
        panels[0].set_ylabel(f"validation {metric.replace('_', ' ')},\nepoch {effects.epoch}", fontsize=8)
        save_figure(figure, path)


def draw_parallel(sweep: Sweep, path: Path) -> None:
    """Draw each trial of a search as a line through its options to its validation metric; dark lines are better.

    All trials are judged at the epoch that every one of them reached. A trial without an option passes below its axis.
    """
    found = read_at_one_epoch(sweep)
    assert found is not None  # checked by the caller
    epoch, trials = found
    values = np.array([value for _, value in trials])
    columns = {option: [chosen[option] for chosen, _ in trials] for option in sweep.space.search}
    order = np.argsort(-values if sweep.recipe.stop.lower_is_better else values)
    ranks = np.empty(len(order))
    ranks[order] = np.linspace(0.12, 1.0, len(order))
    metric = f"validation {sweep.table.metric.replace('_', ' ')}, epoch {epoch}"
    families, spell = letter_texts([*columns, *(text for texts in columns.values() for text in texts)])
    with apply_fonts(families):
        figure = new_figure(min(14.0, 3.0 + 2.0 * len(columns)), 4.4)
        axes = figure.add_subplot()
        search = sweep.space.search
        places = [place_values(texts, log=search[name].loguniform is not None) for name, texts in columns.items()]
        places.append(_spread(values))
        for number in order.tolist():
            heights = [heights[number] for heights, _ in places]
            axes.plot(range(len(places)), heights, color=_BLUE, alpha=float(ranks[number]), linewidth=1.2)
        for at, (_, ticks) in enumerate(places):
            axes.axvline(at, color=_INK, linewidth=0.8)
            for text, height in ticks.items():
                axes.annotate(
                    spell(text),
                    (at, height),
                    fontsize=7,
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5},
                )
        axes.set_xticks(range(len(places)), [*map(spell, columns), metric], fontsize=8)
        axes.set_yticks([])
        axes.margins(x=0.08, y=0.06)
        for side in axes.spines.values():
            side.set_visible(False)
        save_figure(figure, path)


Placed = tuple[Floats, dict[str, float]]
"""Height of each trial on an axis, 0..1, and the ticks there: text -> height."""


def place_values(texts: Sequence[str], *, log: bool) -> Placed:
    """Return where the values of an option are on its axis; numbers by size, words in order of their first use."""
    given = [text for text in texts if text]
    try:
        numbers = {text: np.log10(float(text)) if log else float(text) for text in given}
    except ValueError:
        numbers = {text: float(place) for place, text in enumerate(dict.fromkeys(given))}
    low, high = min(numbers.values()), max(numbers.values())
    heights = {text: (number - low) / ((high - low) or 1.0) for text, number in numbers.items()}
    # Ten words at most are all named; of numbers the ends and the middle are.
    ticks = (
        heights
        if len(heights) <= _TICKS
        else {text: heights[text] for text in _thin(sorted(heights, key=heights.__getitem__))}
    )
    return np.array([heights.get(text, -0.08) for text in texts]), ticks


def _spread(values: Floats) -> Placed:
    low, high = float(values.min()), float(values.max())
    return (values - low) / ((high - low) or 1.0), {f"{low:.4f}": 0.0, f"{high:.4f}": 1.0}


def _thin(texts: Sequence[str]) -> list[str]:
    return [texts[round(place)] for place in np.linspace(0, len(texts) - 1, 5)]


def draw_speed(sweep: Sweep, path: Path) -> None:
    """Draw the validation metric of each finished variant against its pictures a second in training."""
    costs = list_costs(sweep)
    table = sweep.confirmed or sweep.table
    means = {
        name: float(np.mean(found))
        for name in costs
        if (found := [row.value for row in table.finished if row.variant == name])
    }
    names = list(means)
    speeds, values = [costs[name].img_s for name in names], [means[name] for name in names]
    families, spell = letter_texts(names)
    with apply_fonts(families):
        figure = new_figure(8, 4.4)
        axes = figure.add_subplot()
        axes.plot(speeds, values, "o", color=_BLUE)
        front = find_front(speeds, values, lower_is_better=sweep.recipe.stop.lower_is_better)
        axes.plot([speeds[place] for place in front], [values[place] for place in front], color=_GRAY, zorder=0)
        middle = (min(speeds) + max(speeds)) / 2
        for place, name in enumerate(names):
            side, shift = ("left", 4) if speeds[place] <= middle else ("right", -4)  # names stay within the figure
            axes.annotate(
                spell(name),
                (speeds[place], values[place]),
                fontsize=7,
                xytext=(shift, 4),
                textcoords="offset points",
                ha=side,
            )
        axes.set_xlabel("pictures a second in training (line: no variant is better in both)", fontsize=8)
        axes.set_ylabel(f"validation {table.metric.replace('_', ' ')}", fontsize=8)
        axes.grid(alpha=0.3)
        axes.margins(0.15)
        save_figure(figure, path)
