"""The report of a sweep in W&B, as code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from tune.dashboard.panels import PanelSection
from tune.dashboard.workspace import filter_runs
from tune.report.findings import answer, ask
from tune.result.sweep import Sweep

_LONGEST = 128
"""Letters of a title."""


def make_report(sweep: Sweep, sections: Sequence[PanelSection], entity: str) -> wr.Report:
    """Return the report of a sweep: question, answer, and its panels, each section about runs of its kinds alone.

    With an entity, wandb-workspaces asks the server for the number of the project as soon as the report is turned into
    JSON, and refuses a project that does not exist. Without one it asks nothing; sets of runs then name no project.

    Args:
        sweep: The sweep.
        sections: Its panels.
        entity: User or team that it is saved to; "" if it is not.
    """
    blocks: list[Any] = [wr.P(ask(sweep)), wr.P(answer(sweep)), wr.P(_explain(sweep))]
    for section in sections:
        blocks += [wr.H2(section.title), _make_grid(sweep, section, entity)]
    return wr.Report(
        project=sweep.recipe.track.project,
        entity=entity,
        title=sweep.folder.name[:_LONGEST],
        description=ask(sweep),
        blocks=blocks,
        width="fluid",
    )


def _make_grid(sweep: Sweep, section: PanelSection, entity: str) -> wr.PanelGrid:
    runset = wr.Runset(entity=entity, project=sweep.recipe.track.project, name=", ".join(section.kinds))
    runset._stashed_filters_v2 = filter_runs(sweep.folder.name, section.kinds)
    runset._stashed_filter_string = runset.filters
    return wr.PanelGrid(runsets=[runset], panels=section.panels)


def _explain(sweep: Sweep) -> str:
    said = (
        "Bars and bands of W&B are of single runs: a trial that was stopped early counts with what it had reached. "
        "Intervals that count seeds and pictures as random are in the table of the comparison."
    )
    return said if sweep.comparison is not None else f"{said.partition('.')[0]}. Nothing has been confirmed."
