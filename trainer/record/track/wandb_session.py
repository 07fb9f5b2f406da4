"""A run in Weights & Biases from its start to its end, whatever is logged in between."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.files.atomic import write_text
from trainer.recipes.place import show_locations

RUN_ID = "wandb-id"
"""File in the folder of a run with its W&B id."""
OFFLINE_RUNS = "wandb/offline-run-*"
"""Pattern, in the folder of a run, of what `wandb sync` uploads; each start of the run adds a folder."""
_DATA_DIR = "WANDB_DATA_DIR"


@dataclass(frozen=True)
class Heading:
    """What W&B lists a run by."""

    project: str
    group: str | None
    job_type: str
    name: str
    tags: Sequence[str] = ()


class WandbSession:
    """A run that has been started; `run` and `wandb` are W&B's own. Any method may raise anything.

    Args:
        run_dir: Folder of the run, which exists; W&B's files and the run's id are stored in it.
        heading: What it is listed by.
        config: Its config.
        mode: online or offline.
    """

    def __init__(self, run_dir: Path, heading: Heading, config: Mapping[str, Any], mode: Any) -> None:
        import wandb  # late: it takes seconds, and most processes never track

        self.wandb: Any = wandb
        self._data_dir_is_ours = _DATA_DIR not in os.environ
        if self._data_dir_is_ours:
            # Tables for `wandb sync` are stored here, not in the home folder of a node that may disappear.
            os.environ[_DATA_DIR] = str(run_dir / "wandb" / "data")
        try:
            self.run: Any = self._begin(run_dir, heading, config, mode)
        except Exception:
            self._end_service()  # it would reject the same run id on a retry
            self._forget_data_dir()
            raise

    def _begin(self, run_dir: Path, heading: Heading, config: Mapping[str, Any], mode: Any) -> Any:
        from wandb.sdk.lib.import_hooks import unregister_all_post_import_hooks

        with _hiding_keys_of_command():
            run = self.wandb.init(
                project=heading.project,
                group=heading.group,
                job_type=heading.job_type,
                name=heading.name,
                tags=list(heading.tags),
                id=claim_run_id(run_dir, heading.name),
                resume="allow" if mode == "online" else None,
                mode=mode,
                dir=run_dir,
                config=dict(config),
                settings=self.wandb.Settings(console="off", silent=True),
            )
        # W&B's import hooks report imported libraries to its service; if that has died, imports would fail.
        unregister_all_post_import_hooks()
        return run

    def close(self, exit_code: int = 0) -> None:
        """End the run; W&B shows one whose exit code is not 0 as failed."""
        try:
            self.run.finish(exit_code=exit_code)
        except Exception:
            self._end_service()  # a dead service would otherwise cause a traceback when Python exits
            raise
        finally:
            self._forget_data_dir()

    def draw_cells(self, rows: list[Any]) -> Any:
        """Return W&B's chart of a confusion matrix with rows (actual, predicted, count)."""
        columns = list(CELL_COLUMNS)
        table = self.wandb.Table(columns=columns, data=rows)
        texts = {"title": "Confusion matrix"}
        return self.wandb.plot_table(CELL_CHART, table, {name: name for name in columns}, texts)

    def _end_service(self) -> None:
        with contextlib.suppress(Exception):
            self.wandb.teardown()

    def _forget_data_dir(self) -> None:
        if self._data_dir_is_ours:
            os.environ.pop(_DATA_DIR, None)


CELL_CHART = "wandb/confusion_matrix/v1"
"""W&B's chart of a confusion matrix."""
CELL_COLUMNS = ("Actual", "Predicted", "nPredictions")
"""Columns of the table that it is drawn from."""


@contextlib.contextmanager
def _hiding_keys_of_command() -> Iterator[None]:
    """Hide keys in the command line, which W&B records."""
    words = sys.argv
    sys.argv = show_locations(words)
    try:
        yield
    finally:
        sys.argv = words


def claim_run_id(run_dir: Path, name: str) -> str:
    """Return the run's W&B id, created at its first start and reused at every restart."""
    path = run_dir / RUN_ID
    if not path.is_file():
        # Random, because a run deleted and started again under the same name is a new run for the server.
        write_text(path, f"{re.sub('[^A-Za-z0-9._=-]', '-', name)[:100]}-{secrets.token_hex(4)}")
    return path.read_text(encoding="utf-8")
