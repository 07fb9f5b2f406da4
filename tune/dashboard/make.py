"""The whole dashboard of a sweep: its last run, and workspace and report, as files or in W&B."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.files.atomic import write_json
from trainer.evaluate.extras import describe_error
from tune.dashboard.run import track_report
from tune.dashboard.tracked import FOLDER, check_tracked, link_runs, spell_upload
from tune.result.sweep import Sweep

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

WORKSPACE, REPORT = "workspace.json", "report.json"
_SAVED = "saved.json"
"""File with the ids of the saved workspace and report, which are saved again under them."""


@dataclass(frozen=True)
class Dashboard:
    """What was made.

    workspace, report: Files with the specs. local: Folder with the trials' runs, for `wandb leet`. urls: Of workspace
    and report in W&B; [] offline. upload: The command line that uploads the runs and makes the dashboard in W&B; None
    online.
    """

    workspace: Path
    report: Path
    local: Path
    urls: list[str]
    upload: str | None


def make_dashboard(sweep: Sweep) -> Dashboard:
    """Track the last run of a sweep, write the specs of its workspace and report, and online, save both in W&B.

    Made again, run, workspace and report are replaced.

    Raises:
        UsageError: The sweep was not tracked, or tracking is disabled.
        ConnectionError: W&B did not take it.
    """
    mode = check_tracked(sweep)
    if mode == "online":
        try:
            return _save(sweep, track_report(sweep, mode))
        except Exception as err:  # of W&B's client, which has many
            raise ConnectionError(
                f"W&B did not take the dashboard of {sweep.folder} ({describe_error(err)}); run the command again, or "
                "with WANDB_MODE=offline for files to upload later"
            ) from err
    track_report(sweep, mode)
    workspace, report = _build(sweep, "")
    return Dashboard(*_write(sweep, workspace, report), link_runs(sweep.folder), [], spell_upload(sweep.folder))


def _build(sweep: Sweep, entity: str) -> tuple[ws.Workspace, wr.Report]:
    from tune.dashboard.panels import list_sections  # late: wandb_workspaces takes a second, sweeps end without it
    from tune.dashboard.report import make_report
    from tune.dashboard.workspace import make_workspace

    return make_workspace(sweep, list_sections(sweep), entity), make_report(sweep, list_sections(sweep), entity)


def _save(sweep: Sweep, entity: str) -> Dashboard:
    """Save workspace and report in W&B, under the ids that an earlier call got."""
    workspace, report = _build(sweep, entity)
    path = sweep.folder / FOLDER / _SAVED
    ids: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if ids.get("entity") != entity:
        ids = {"entity": entity}
    workspace._internal_name, workspace._internal_id = ids.get("workspace_name", ""), ids.get("workspace", "")
    report.id = ids.get("report", "")
    files = _write(sweep, workspace, report)
    workspace.save()
    ids |= {"workspace_name": workspace._internal_name, "workspace": workspace._internal_id}
    write_json(path, ids)  # at once: if the report fails, the next call must not make a second workspace
    report.save()
    write_json(path, ids | {"report": report.id})
    return Dashboard(*files, link_runs(sweep.folder), [workspace.url, report.url], None)


def _write(sweep: Sweep, workspace: ws.Workspace, report: wr.Report) -> tuple[Path, Path]:
    """Write what the server gets, and return the paths."""
    view, page, project = workspace._to_model(), report._to_model(), sweep.recipe.track.project
    folder = sweep.folder / FOLDER
    write_json(folder / WORKSPACE, {"name": workspace.name, "project": project, "spec": _dump(view.spec)})
    write_json(folder / REPORT, {"name": report.title, "project": project, "spec": _dump(page.spec)})
    return folder / WORKSPACE, folder / REPORT


def _dump(spec: Any) -> Any:
    return json.loads(spec.model_dump_json(by_alias=True, exclude_none=True))
