"""The workspace of a sweep in W&B, as code."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import wandb_workspaces.workspaces as ws

from tune.dashboard.panels import PanelSection
from tune.dashboard.run import JOB_TYPE
from tune.result.sweep import Sweep

KINDS = ("trial", "confirm", "eval", JOB_TYPE)
"""job_types of a sweep's runs."""
_MOST_RUNS = 500
"""Runs in a panel; W&B shows no more."""


def make_workspace(sweep: Sweep, sections: Sequence[PanelSection], entity: str) -> ws.Workspace:
    """Return the workspace of a sweep; it needs no server before it is saved.

    It shows all runs of the sweep in all panels, because a workspace has one set of runs.

    Args:
        sweep: The sweep.
        sections: Its panels.
        entity: User or team that it is saved to; "" if it is not.
    """
    workspace = ws.Workspace(
        entity=entity,
        project=sweep.recipe.track.project,
        name=name_view(sweep.folder.name),
        sections=[ws.Section(name=each.title, panels=each.panels, is_open=True) for each in sections],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=_MOST_RUNS),
    )
    workspace._stashed_filters_v2 = filter_runs(sweep.folder.name, KINDS)
    workspace._stashed_filter_string = workspace.runset_settings.filters
    return workspace


def name_view(name: str) -> str:
    """Return a name as workspaces may have one: without symbols, which wandb-workspaces takes for emojis.

    >>> name_view("lr=0.1 ☂")
    'lr-0.1 -'
    """
    return "".join("-" if unicodedata.category(letter) in ("So", "Sk", "Sm", "Sc", "Cs") else letter for letter in name)


def filter_runs(group: str, kinds: Sequence[str]) -> dict[str, Any]:
    """Return W&B's filter for runs of some job_types in a group.

    wandb-workspaces 0.4.13 keeps filters as texts in which it doubles each `=`, `<` and `>`, those of values as well:
    the group `rate=1` would be looked for as `rate==1`. What a workspace or report was loaded with is kept as it is.
    """
    leaves = [("group", "=", group), ("jobType", "IN", list(kinds))]
    filters = [
        {"key": {"section": "run", "name": name}, "op": op, "value": value, "disabled": False}
        for name, op, value in leaves
    ]
    return {"filterFormat": "filterV2", "filters": [filters[0], filters[1] | {"connector": "AND"}]}
