"""Monitoring during training on Ray: stop requests, added and lost nodes, node removal notices.

Each side has one thread. The command's side posts to the board; rank 0's side turns messages into files in the run
folder, which the loop checks in its next step.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group

from shards.cli.messages import Replay
from shards.cli.progress import LINE_EVERY_S, describe_duration
from shards.files.atomic import write_text
from shards.workers import ray_private
from trainer.record.logbook import PROGRESS
from trainer.record.run_folder import STOP_FILE, RunFolder
from trainer.run.ray.board import Board

TICK_S = 0.3
_NODES_EVERY_S = 2.0
_NOTICE_S = 120.0  # Ray Train's own default if a notice has no time
_LAST_SAVE_S = 4.0  # a snapshot started later may not be complete in time

_LATE_S = 5.0
"""Delay allowed for a line of rank 0 beyond once a minute."""

logger = logging.getLogger(__name__)
progress_logger = logging.getLogger(f"{__name__}.progress")


class CommandSide:
    """Sends stop requests to the ranks and cluster changes to Ray Train; logs the lines of the ranks."""

    def __init__(self, run_dir: Path, is_elastic: bool, board: Board) -> None:
        self._run_dir, self._is_elastic, self._board = run_dir, is_elastic, board
        self._nodes = _list_nodes()
        self._looked_at = self._began = self._heard_at = time.monotonic()
        self._limit_s = LINE_EVERY_S - 2 * TICK_S
        self._replay = Replay()

    def look(self) -> None:
        self.log_lines()
        if (self._run_dir / STOP_FILE).exists():
            self._board.post("stop")
        progress = self._board.read("progress")
        if progress is not None:
            write_text(self._run_dir / PROGRESS, progress)
        if self._is_elastic and time.monotonic() - self._looked_at > _NODES_EVERY_S:
            self._looked_at = time.monotonic()
            self._look_at_nodes()

    def log_lines(self) -> None:
        """Log the lines from ranks, or that none have arrived for long."""
        now = time.monotonic()
        for line in self._board.take_lines():
            self._replay(line)
            self._heard_at, self._limit_s = now, LINE_EVERY_S + _LATE_S
        if now - self._heard_at > self._limit_s:
            self._heard_at = now
            so_far = describe_duration(now - self._began)
            progress_logger.info("ranks are starting on Ray or waiting for resources; %s so far", so_far)

    def _look_at_nodes(self) -> None:
        before, self._nodes = self._nodes, _list_nodes()
        if self._nodes == before:
            return
        if self._nodes - before:  # adding ranks restarts all from the last snapshot: save a new one first
            self._board.post("save")
            time.sleep(TICK_S * 3)
        refresh_view()


class RankSide:
    """Rank 0's side: receives requests of the command, and node removal notices."""

    def __init__(self, folder: RunFolder, board: Board) -> None:
        self._folder, self._board = folder, board
        self._shown = ""
        self._notice: Any = None
        self._save_at = 0.0

    def look(self) -> None:
        if self._board.read("stop") is not None:
            self._folder.stop_file.touch()
        if self._board.read("save") is not None:
            self._board.remove("save")
            self._folder.save_file.touch()
        self._look_for_notice()
        if self._folder.uri:
            self._tell_progress()

    def _look_for_notice(self) -> None:
        """Save at once on a notice, then each time half of the remaining time has passed."""
        notice = ray_private.read_preemption_notice()
        if notice is None:
            return
        now = time.time()
        if notice != self._notice:
            logger.warning("a node of this run will be removed; the state is saved now")
            self._notice, self._save_at = notice, now
            self._deadline = notice.deadline_ms / 1000 if notice.deadline_ms else now + _NOTICE_S
        if now >= self._save_at:
            self._folder.save_file.touch()
            left = self._deadline - now
            self._save_at = now + left / 2 if left / 2 > _LAST_SAVE_S else float("inf")

    def _tell_progress(self) -> None:
        path = self._folder.path / PROGRESS
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text and text != self._shown:
            self._board.post("progress", text)
            self._shown = text


def refresh_view() -> None:
    """Refresh Ray's list of nodes, by which elastic ranks are started."""
    try:
        ray_private.recount_nodes()
    except Exception as err:  # it is refreshed every 20 s anyway
        logger.debug("Ray's view of the cluster was not refreshed: %s", err)


def release_nodes(run_id: str) -> None:
    """Release the resources reserved by a killed attempt of Ray Train, which Ray otherwise keeps for 3 minutes."""
    try:
        ray_private.cancel_reservation(run_id)
    except Exception as err:
        logger.debug("Ray still keeps nodes for an earlier attempt: %s", err)


def name_room() -> str:
    """Return the name of the placement group that this rank is in."""
    group = get_current_placement_group()
    assert group is not None  # Ray Train puts all ranks of a run in one group
    return str(group.id.hex())


def release_room(name: str) -> None:
    """Release the CPUs and GPUs of ranks whose controller died.

    Ray's PlacementGroupCleaner does this, but it ends for good if the cluster's store does not respond in time; then
    the resources are kept until the command ends, and the command waits for them.
    """
    try:
        ray_private.remove_group(name)
    except Exception as err:
        logger.debug("Ray still keeps resources of an earlier attempt: %s", err)


def _list_nodes() -> frozenset[str]:
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
