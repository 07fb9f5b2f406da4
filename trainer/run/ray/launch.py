"""The Ray Train door: the same ranks as workers of a TorchTrainer, on this machine or on a cluster."""

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

# Read by Ray when it is imported, and carried to its controller and workers; what the user has set stays.
# A report would wait for the controller's next look, by default 2 s.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# A start of the ranks waits so long for room, by default 60 s. The first after the loss of a node often waits in vain,
# because it counts on that node; room that is there is found in no time.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
# Notices that a node will be taken away are looked for so often, by default every 5 s; a spot machine may have 30.
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
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from shards.cli.messages import handing_on, read_level
from shards.errors import ShardError, UsageError
from shards.workers.openmp import count_cpus
from shards.workers.ray_private import build_trainer, unwrap_failure
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
        UsageError: The cluster cannot hold the ranks, more was lost than the recipe allows, or a disk is full.
        ShardError: What a rank refused.
        OSError: What a rank could not do: reach a store.
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
            # Ray Train keeps files of its own in the run's folder.
            with explaining_stop(folder), watching(side.look, "cluster", TICK_S):
                progress_logger.info("starting %s ranks on Ray", recipe.num_ranks)
                return _fit(recipe, folder, gpus, board)
        finally:
            with contextlib.suppress(Exception):  # of a cluster that is gone
                side.log_lines()
            board.remove()


@contextlib.contextmanager
def connect_ray(cpus: float, gpus: float, count: int) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or start one on this machine and end it.

    Args:
        cpus: CPUs of each process that must find room.
        gpus: GPUs of each.
        count: Processes that must find room at once.

    Raises:
        UsageError: There is no room; Ray itself would wait for ever.
        ConnectionError: RAY_ADDRESS names a cluster that does not answer.
    """
    # A machine with fewer cores than asked for still runs the processes, more slowly.
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
                f"{resources.get(kind, 0):g}; ask for fewer processes or less {kind} for each, or add nodes"
            )


def _build_trainer(recipe: Recipe, folder: RunFolder, gpus: float) -> TorchTrainer:
    resources = {"CPU": recipe.cpus_per_rank} | ({"GPU": gpus} if gpus else {})
    limits, elastic = recipe.ray, (recipe.least_ranks, recipe.most_ranks)
    # The state of a run is in its snapshots. What Ray Train has written of an earlier start can only be in the way:
    # a file that was cut by a kill would end every later start.
    shutil.rmtree(folder.path / RAY_FOLDER, ignore_errors=True)
    return build_trainer(
        functools.partial(is_final, str(folder)),
        _run_worker,
        train_loop_config={"recipe": recipe.model_dump(mode="json"), "level": read_level()},
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
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
    """Run one rank; return its outcome, or the refusal of an earlier attempt, should Ray have started another.

    A refusal raises, so that Ray ends the ranks that wait for this one, and is on the board by then.
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
            return run_rank(recipe, ranks, report_to_ray)
    except RankMemoryError:
        raise  # no refusal: the restart heals it, and counts as a failure
    except (UsageError, ShardError, OSError) as err:
        post_refusal(board, err)
        raise


@contextlib.contextmanager
def _handing_on(board: Board, level: int) -> Iterator[None]:
    """Have what this rank logs logged by the command, whatever Ray does with the output of workers."""
    outbox = Outbox(board)
    try:
        with handing_on(outbox.add, level), watching(outbox.post, "outbox", TICK_S):
            yield
    finally:
        with contextlib.suppress(Exception):  # of a cluster that is gone: it has nobody to log it
            outbox.post()


@contextlib.contextmanager
def _listening(folder: RunFolder, board: Board) -> Iterator[None]:
    """Let rank 0 hear what is wanted of it while the block runs."""
    _remove_old_request(folder.stop_file, board)
    with watching(RankSide(folder, board).look, "requests", TICK_S):
        yield


def _remove_old_request(path: Path, board: Board) -> None:
    """Remove a wish to stop that an earlier start has left on a machine that is not the command's."""
    with contextlib.suppress(FileNotFoundError):
        # One of this start is on the board within a second; a younger file may be on its way there.
        if board.read("stop") is None and time.time() - path.stat().st_mtime > _YOUNG_S:
            path.unlink()


def report_to_ray(numbers: Numbers) -> None:
    """Hand an epoch's numbers to Ray Train; the state itself is in the run's folder."""
    ray.train.report(dict(numbers))


def _release_earlier(board: Board) -> None:
    """Let go of the nodes of an attempt that was killed, and of the room that its ranks had."""
    attempt, room = board.read("attempt"), board.read("room")
    if attempt is not None:
        release_nodes(attempt)
    if room is not None:
        release_room(room)
        board.remove("room")


def _fit(recipe: Recipe, folder: RunFolder, gpus: float, board: Board) -> Outcome:
    """Return how the run ended; when Ray Train's controller dies, begin anew from the last snapshot."""
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
                f"Ray Train's controller died {deaths} times, ray.max_controller_failures allows "
                f"{recipe.ray.max_controller_failures}; look for a lack of memory on this machine. The same command "
                "goes on from the last snapshot"
            ) from result
        logger.warning("Ray Train's controller died; the run goes on from its last snapshot")
        _release_earlier(board)
    if isinstance(result, Exception):
        raise read_refusal(board.read("refusal")) or _explain(result, recipe) from result
    refusal = read_refusal(str(result))
    if refusal is not None:
        raise refusal
    return "interrupted" if result == "interrupted" else "finished"


def _is_death(result: Any) -> bool:
    """Say whether Ray Train's controller died, or gave up because a worker died while the ranks were starting."""
    if isinstance(result, ControllerError):
        return isinstance(result.controller_failure, RayActorError)
    return isinstance(result, RayActorError)


def _fit_in_thread(trainer: TorchTrainer) -> Any:
    """Return what rank 0 returned, or the error. A thread, so that Ctrl-C asks the ranks to save."""
    results: list[Any] = []

    def fit() -> None:
        try:
            results.append(trainer.fit().return_value)
        except Exception as err:
            results.append(err)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)  # a bare join would not let the signal handler run
    return results[0]


def _explain(err: Exception, recipe: Recipe) -> Exception:
    """Return the sentence for what was lost too often; any other error is a fault of ours and stays as it is."""
    failures = (
        [unwrap_failure(each) for each in err.worker_failures.values()] if isinstance(err, WorkerGroupError) else []
    )
    if any(isinstance(each, RankMemoryError) for each in failures):
        what = f"memory ran out, or a worker was lost, more than ray.max_failures={recipe.ray.max_failures} times"
    elif any(isinstance(each, RayActorError) for each in failures):
        what = f"a worker or its node was lost more than ray.max_failures={recipe.ray.max_failures} times"
    elif isinstance(err, PreemptionError):
        what = f"nodes were taken away more than ray.max_preemptions={recipe.ray.max_preemptions} times"
    elif isinstance(err, ControllerError) and recipe.ray.max_start_failures >= 0:
        what = f"the ranks found no room more than ray.max_start_failures={recipe.ray.max_start_failures} times"
    else:
        return err
    return UsageError(f"{what}; the same command goes on from the last snapshot, or raise that option")
