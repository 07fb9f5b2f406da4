"""Run the ranks as workers of Ray's TorchTrainer, on this machine or a cluster."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Ray reads these on import and passes them to its controller and workers; values set by the user are kept.
# A report waits for the controller's next poll, by default 2 s.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# A start of the ranks waits this long for resources, by default 60 s. The first start after the loss of a node often
# waits in vain, because Ray still counts that node; existing resources are found at once.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
# Interval for checking for node removal notices, by default 5 s; a spot machine may give only 30 s notice.
os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")

from shards.workers.ray_cluster import join_or_start  # isort: skip, it quiets Ray

import ray
import ray.train
from ray.exceptions import RayActorError
from ray.train import (
    ControllerError,
    FailureConfig,
    LoggingConfig,
    PreemptionError,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer, get_device

from shards.cli.messages import handing_on, read_level
from shards.errors import ShardError, UsageError
from shards.workers.openmp import count_cpus
from shards.workers.ray_meters import open_ray_meters
from shards.workers.ray_private import build_trainer, make_torch_config, unwrap_failure
from trainer.loop.loop import Outcome
from trainer.ranks.ranks import enter_group
from trainer.ranks.watching import watching
from trainer.recipes.recipe import Recipe, ResolvedRecipe
from trainer.record.logbook import Numbers
from trainer.record.room import explaining_stop
from trainer.record.run_folder import RunFolder
from trainer.run.job import run_rank
from trainer.run.ray.board import Board, Outbox
from trainer.run.ray.refusal import is_final, post_refusal, read_refusal
from trainer.run.ray.watch import TICK_S, CommandSide, RankSide, name_room, release_nodes, release_room
from trainer.step.memory import RankMemoryError

COLLECTIVE_TIMEOUT_S = 300
RAY_FOLDER = "ray"
_YOUNG_S = 10.0

logger = logging.getLogger(__name__)
progress_logger = logging.getLogger(f"{__name__}.progress")


def run_on_ray(recipe: ResolvedRecipe, folder: RunFolder) -> Outcome:
    """Run all ranks as Ray Train workers; a lost worker restarts them all from the last snapshot.

    Raises:
        UsageError: The cluster has too few resources, more failures occurred than the recipe allows, or a disk is full.
        ShardError: Raised by a rank.
        OSError: Raised by a rank, for example if a store cannot be reached.
    """
    with connect_ray(recipe.cpus_per_rank, recipe.gpus_per_rank or 0.0, recipe.least_ranks):
        gpus = recipe.gpus_per_rank
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= recipe.least_ranks else 0.0
        board = Board(str(folder))
        _release_earlier(board)
        board.remove()
        side = CommandSide(folder.path, recipe.is_elastic, board)
        try:
            # Ray Train writes its own files to the run folder.
            with explaining_stop(folder), watching(side.look, "cluster", TICK_S):
                progress_logger.info("starting %s ranks on Ray", recipe.num_ranks)
                return _fit(recipe, folder, gpus, board)
        finally:
            with contextlib.suppress(Exception):  # if the cluster is gone
                side.log_lines()
            board.remove()


@contextlib.contextmanager
def connect_ray(cpus: float, gpus: float, count: int) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or run one on this machine during the block.

    Args:
        cpus: CPUs of each process.
        gpus: GPUs of each process.
        count: Number of processes at the same time.

    Raises:
        UsageError: There are too few resources; Ray itself would wait forever.
        ConnectionError: RAY_ADDRESS names a cluster that does not respond.
    """
    # A machine with fewer cores than requested still runs the processes, more slowly.
    started = join_or_start(num_cpus=max(count_cpus(), math.ceil(count * cpus)), log_to_driver=False)
    try:
        _refuse_too_small({"CPU": cpus, "GPU": gpus}, count)
        yield
    finally:
        if started:
            ray.shutdown()


def _refuse_too_small(each: dict[str, float], count: int) -> None:
    resources = ray.cluster_resources()
    for kind, amount in each.items():
        if amount * count > resources.get(kind, 0):
            raise UsageError(
                f"{count} processes with {amount:g} {kind} each need {amount * count:g} {kind}, the Ray cluster has "
                f"{resources.get(kind, 0):g}; use fewer processes or less {kind} each, or add nodes"
            )


def _build_trainer(recipe: Recipe, folder: RunFolder, gpus: float) -> TorchTrainer:
    resources = {"CPU": recipe.cpus_per_rank} | ({"GPU": gpus} if gpus else {})
    limits, elastic = recipe.ray, (recipe.least_ranks, recipe.most_ranks)
    # The state of a run is in its snapshots. Files that Ray Train wrote in an earlier start can only cause harm: a file
    # truncated by a kill would make every later start fail.
    shutil.rmtree(folder.path / RAY_FOLDER, ignore_errors=True)
    return build_trainer(
        functools.partial(is_final, str(folder)),
        _run_worker,
        train_loop_config={"recipe": recipe.model_dump(mode="json"), "level": read_level()},
        torch_config=make_torch_config(COLLECTIVE_TIMEOUT_S),
        scaling_config=ScalingConfig(
            num_workers=elastic if recipe.is_elastic else recipe.most_ranks,
            use_gpu=gpus > 0,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=limits.resize_s,
        ),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=str(folder.path),
            failure_config=FailureConfig(
                max_failures=limits.max_failures,
                max_preemption_failures=limits.max_preemptions,
                controller_failure_limit=limits.max_start_failures,
                preemption_grace_s=limits.preemption_grace_s,
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _run_worker(config: dict[str, Any]) -> str:
    """Run one rank; return its outcome, or the final error of an earlier attempt if Ray has started another.

    A final error is posted to the board and raised, so that Ray ends the ranks waiting for this one.
    """
    recipe, level = ResolvedRecipe.model_validate(config["recipe"]), config["level"]
    folder = RunFolder.of(recipe)
    board = Board(str(folder))
    refusal = board.read("refusal")
    if refusal is not None:
        return refusal
    context = ray.train.get_context()
    ranks = enter_group(
        context.get_world_rank(), context.get_world_size(), get_device(), context.get_local_world_size()
    )
    try:
        if ranks.is_first:
            board.post("room", name_room())
        with (
            _handing_on(board, level if ranks.is_first else max(level, logging.WARNING)),
            _listening(folder, board) if ranks.is_first else contextlib.nullcontext(),
        ):
            return run_rank(recipe, ranks, report_to_ray, open_ray_meters)
    except RankMemoryError:
        raise  # not final: a restart may fix it, and counts as a failure
    except (UsageError, ShardError, OSError) as err:
        post_refusal(board, err)
        raise


@contextlib.contextmanager
def _handing_on(board: Board, level: int) -> Iterator[None]:
    """Forward this rank's log to the command, independent of Ray's handling of worker output."""
    outbox = Outbox(board)
    try:
        with handing_on(outbox.add, level), watching(outbox.post, "outbox", TICK_S):
            yield
    finally:
        with contextlib.suppress(Exception):  # if the cluster is gone, there is no command to log it
            outbox.post()


@contextlib.contextmanager
def _listening(folder: RunFolder, board: Board) -> Iterator[None]:
    """Let rank 0 receive requests during the block."""
    _remove_old_request(folder.stop_file, board)
    with watching(RankSide(folder, board).look, "requests", TICK_S):
        yield


def _remove_old_request(path: Path, board: Board) -> None:
    """Remove a stop request that an earlier start left on another machine than the command's."""
    with contextlib.suppress(FileNotFoundError):
        # A request of this start is on the board within a second; a newer file may be about to be posted.
        if board.read("stop") is None and time.time() - path.stat().st_mtime > _YOUNG_S:
            path.unlink()


def report_to_ray(numbers: Numbers) -> None:
    """Report an epoch's numbers to Ray Train; the state itself is in the run folder."""
    ray.train.report(dict(numbers))


def release_killed(folder: RunFolder) -> None:
    """Release what a run had reserved whose controller was killed; Ray keeps some of it for minutes."""
    _release_earlier(Board(str(folder)))


def _release_earlier(board: Board) -> None:
    """Release the nodes of a killed attempt, and the resources of its ranks."""
    attempt, room = board.read("attempt"), board.read("room")
    if attempt is not None:
        release_nodes(attempt)
    if room is not None:
        release_room(room)
        board.remove("room")


def _fit(recipe: Recipe, folder: RunFolder, gpus: float, board: Board) -> Outcome:
    """Return the outcome; if Ray Train's controller dies, restart from the last snapshot."""
    deaths = 0
    while True:
        trainer = _build_trainer(recipe, folder, gpus)
        board.post("attempt", trainer.train_run_context.run_id)
        result = _fit_in_thread(trainer)
        if not _is_death(result) or board.read("refusal") is not None:
            break
        deaths += 1
        if 0 <= recipe.ray.max_controller_failures < deaths:
            raise UsageError(
                f"Ray Train's controller died {deaths} times, but ray.max_controller_failures allows "
                f"{recipe.ray.max_controller_failures}; check for a lack of memory on this machine. The same command "
                "resumes from the last snapshot"
            ) from result
        logger.warning("Ray Train's controller died; the run resumes from its last snapshot")
        _release_earlier(board)
    if isinstance(result, Exception):
        raise read_refusal(board.read("refusal")) or _explain(result, recipe) from result
    refusal = read_refusal(str(result))
    if refusal is not None:
        raise refusal
    return "interrupted" if result == "interrupted" else "finished"


def _is_death(result: Any) -> bool:
    """Return whether Ray Train's controller died, or gave up because a worker died during the start."""
    if isinstance(result, ControllerError):
        return isinstance(result.controller_failure, RayActorError)
    return isinstance(result, RayActorError)


def _fit_in_thread(trainer: TorchTrainer) -> Any:
    """Return rank 0's result, or the error. It runs in a thread, so that Ctrl-C can make the ranks save."""
    results: list[Any] = []

    def fit() -> None:
        try:
            results.append(trainer.fit().return_value)
        except Exception as err:
            results.append(err)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)  # a plain join would block the signal handler
    return results[0]


def _explain(err: Exception, recipe: Recipe) -> Exception:
    """Return an error about too many failures; other errors are bugs and are returned unchanged."""
    failures = (
        [unwrap_failure(each) for each in err.worker_failures.values()] if isinstance(err, WorkerGroupError) else []
    )
    if any(isinstance(each, RankMemoryError) for each in failures):
        what = f"memory ran out, or a worker was lost, more than ray.max_failures={recipe.ray.max_failures} times"
    elif any(isinstance(each, RayActorError) for each in failures):
        what = f"a worker or its node was lost more than ray.max_failures={recipe.ray.max_failures} times"
    elif isinstance(err, PreemptionError):
        what = f"nodes were removed more than ray.max_preemptions={recipe.ray.max_preemptions} times"
    elif isinstance(err, ControllerError) and recipe.ray.max_start_failures >= 0:
        what = f"the ranks found no room more than ray.max_start_failures={recipe.ray.max_start_failures} times"
    else:
        return err
    return UsageError(f"{what}; the same command resumes from the last snapshot, or raise that option")
