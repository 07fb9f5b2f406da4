"""What is heard beside training on Ray: the command's wish to stop, nodes that come and go, a node's last minutes.

Each side has one thread. The command's side speaks through the board; the side of rank 0 turns what it hears into
files in the run's folder, which the loop obeys in its next step.
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
_NOTICE_S = 120.0  # Ray Train's own guess where a notice names no time
_LAST_SAVE_S = 4.0  # a snapshot that is begun later may not be whole in time

_LATE_S = 5.0
"""By which a line of rank 0 may come later than once a minute, on its way."""

logger = logging.getLogger(__name__)
progress_logger = logging.getLogger(f"{__name__}.progress")


class CommandSide:
    """Tells the ranks when the user wants to stop, and Ray Train when the cluster has changed; logs what ranks say."""

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
        """Log what ranks have handed on, and that nothing came for long."""
        now = time.monotonic()
        for line in self._board.take_lines():
            self._replay(line)
            self._heard_at, self._limit_s = now, LINE_EVERY_S + _LATE_S
        if now - self._heard_at > self._limit_s:
            self._heard_at = now
            so_far = describe_duration(now - self._began)
            progress_logger.info("ranks are being started on Ray, or wait for room there; %s so far", so_far)

    def _look_at_nodes(self) -> None:
        before, self._nodes = self._nodes, _list_nodes()
        if self._nodes == before:
            return
        if self._nodes - before:  # ranks are added by starting all of them from the last snapshot: make it a new one
            self._board.post("save")
            time.sleep(TICK_S * 3)
        refresh_view()


class RankSide:
    """Rank 0 hears the command, and a notice that one of its nodes will be taken away."""

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
        """Save at once on a notice, then each time that half of what is left has passed."""
        notice = ray_private.read_preemption_notice()
        if notice is None:
            return
        now = time.time()
        if notice != self._notice:
            logger.warning("a node of this run will be taken away; its state is saved now")
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
    """Have Ray's record of which nodes there are made anew; elastic ranks are started by it."""
    try:
        ray_private.recount_nodes()
    except Exception as err:  # it is made anew every 20 s in any case
        logger.debug("Ray's view of the cluster was not made anew: %s", err)


def release_nodes(run_id: str) -> None:
    """Have Ray forget what an attempt of Ray Train that was killed has reserved; else that is kept for 3 minutes."""
    try:
        ray_private.cancel_reservation(run_id)
    except Exception as err:
        logger.debug("Ray still keeps nodes for an earlier attempt: %s", err)


def name_room() -> str:
    """Return the name of the placement group that this rank is in."""
    group = get_current_placement_group()
    assert group is not None  # Ray Train puts all ranks of a run into one
    return str(group.id.hex())


def release_room(name: str) -> None:
    """Have Ray give back the CPUs and GPUs of ranks whose controller died.

    Ray has a process for that, its PlacementGroupCleaner, which ends for good when the cluster's store does not answer
    it in time; what the ranks had is then kept until the command ends, and the command waits for it.
    """
    try:
        ray_private.remove_group(name)
    except Exception as err:
        logger.debug("Ray still keeps the room of an earlier attempt: %s", err)


def _list_nodes() -> frozenset[str]:
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
