"""The panels of a sweep's dashboard, in sections, for its workspace and its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr

from trainer.record.track.wandb_session import CELL_CHART, CELL_COLUMNS
from tune.dashboard.keys import COMPARISON, FIGURES, SCREEN, SPEED, WAIT, name_best, name_confusion, name_metric
from tune.dashboard.run import JOB_TYPE, add_confusions
from tune.report.page import FIGURES as DRAWN
from tune.result.sweep import Sweep
from tune.space.variants import VARIANT, name_factor

TRIAL, CONFIRM = "trial", "confirm"
_MOST_RUNS = 500
"""Runs in a chart; W&B shows no more."""
_WIDE, _HALF = wr.Layout(w=24, h=10), wr.Layout(w=12, h=8)


@dataclass(frozen=True)
class PanelSection:
    """Some panels with a title; kinds: job_types of the runs that they are about."""

    title: str
    kinds: tuple[str, ...]
    panels: list[Any]


def list_sections(sweep: Sweep) -> list[PanelSection]:
    """Return the sections of a sweep's dashboard, what was found first; those without content are left out."""
    metric = name_metric(sweep)
    decided = CONFIRM if sweep.comparison is not None else TRIAL
    names = [COMPARISON, SCREEN] if sweep.comparison is not None else [SCREEN]
    tables = [wr.WeavePanelSummaryTable(table_name=name, layout=_WIDE) for name in names]
    figures = sorted(f"{FIGURES}/{path.stem}" for path in (sweep.folder / DRAWN).glob("*.png"))
    sections = [
        PanelSection("Tables", (JOB_TYPE,), tables),
        PanelSection("Variants", (decided,), draw_variants(metric)),
        PanelSection("Factors", (TRIAL,), draw_factors(sweep, metric)),
        PanelSection("Accuracy and speed", (TRIAL, CONFIRM), [draw_speed(metric)]),
        PanelSection("Options", (TRIAL,), draw_options(sweep, metric)),
        PanelSection("Waiting for data", (TRIAL, CONFIRM), draw_feed()),
        PanelSection("Confusion matrices on the test split", (JOB_TYPE,), draw_confusions(sweep)),
        PanelSection("Figures", (JOB_TYPE,), [wr.MediaBrowser(media_keys=figures, layout=_WIDE)] if figures else []),
    ]
    return [section for section in sections if section.panels]


def draw_variants(metric: str) -> list[Any]:
    """Return the validation metric of each variant: over epochs, and its best, means over seeds."""
    line = _draw_line(metric, f"{metric} by variant: mean and standard deviation over seeds")
    return [line, _draw_bars(metric, VARIANT, "by variant: mean and standard error over seeds")]


def draw_factors(sweep: Sweep, metric: str) -> list[Any]:
    """Return bars with intervals for each factor of an ablation; a search has none."""
    return [
        _draw_bars(metric, name_factor(factor), f"by {factor}: mean and standard error over trials")
        for factor in sweep.space.factors
    ]


def draw_speed(metric: str) -> Any:
    """Return the best validation metric of each run against its pictures a second."""
    x, y = wr.SummaryMetric(SPEED), wr.SummaryMetric(name_best(metric))
    return wr.ScatterPlot(title=f"{metric} against pictures/s", x=x, y=y, layout=_WIDE)


def draw_options(sweep: Sweep, metric: str) -> list[Any]:
    """Return parallel coordinates, importance and the comparer of runs."""
    # Factors are in the config by their levels, options of a search by their values, which are numbers.
    names = [name_factor(factor) for factor in sweep.space.factors] or list(sweep.space.search)
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(name)) for name in names]
    columns.append(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(name_best(metric)), display_name=metric))
    return [
        wr.ParallelCoordinatesPlot(title="Options and result", columns=columns, layout=_WIDE),
        wr.ParameterImportancePlot(with_respect_to=name_best(metric), layout=_HALF),
        wr.RunComparer(diff_only="split", layout=_WIDE),
    ]


def draw_feed() -> list[Any]:
    """Return the share of waiting for data, and pictures a second, over epochs."""
    return [_draw_line(WAIT, "share of waiting for data"), _draw_line(SPEED, "pictures/s")]


def draw_confusions(sweep: Sweep) -> list[Any]:
    """Return a confusion matrix for each variant, side by side.

    Each has a table of its own in the last run: a chart of one table takes its rows from all runs that are shown.
    """
    columns = {name: name for name in CELL_COLUMNS}
    return [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": f"{name_confusion(variant)}_table"}},
            chart_name=CELL_CHART,
            chart_fields=columns,
            chart_strings={"title": variant},
            layout=_HALF,
        )
        for variant in add_confusions(sweep)
    ]


def _draw_line(key: str, title: str) -> Any:
    return wr.LinePlot(
        title=title,
        x="epoch",
        y=[key],
        groupby=wr.Config(VARIANT),
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=_MOST_RUNS,
        layout=_HALF,
    )


def _draw_bars(metric: str, group: str, title: str) -> Any:
    return wr.BarPlot(
        title=f"best {metric} {title}",
        metrics=[name_best(metric)],
        groupby=wr.Config(group),
        groupby_aggfunc="mean",
        groupby_rangefunc="stderr",
        max_runs_to_show=_MOST_RUNS,
        max_bars_to_show=_MOST_RUNS,
        layout=_HALF,
    )
