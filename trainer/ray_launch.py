"""The Ray Train door: the same ranks as workers of a TorchTrainer, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from typing import Any

# Read by Ray when it is imported. A report would wait for a 2 s poll of the controller.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

from shards.ray_cluster import join_or_start  # isort: skip, it quiets Ray

import ray
import ray.train
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from shards.errors import ShardError, UsageError
from shards.files import write_text
from trainer.job import run_rank
from trainer.loop import Outcome
from trainer.ranks import enter_group
from trainer.recipe import Recipe
from trainer.recipe_file import build_recipe
from trainer.record.logbook import Numbers

MAX_FAILURES = 3
REFUSAL_FILE = "refusal"
REFUSALS: dict[str, type[Exception]] = {"usage": UsageError, "refused": ShardError, "outside": OSError}
COLLECTIVE_TIMEOUT_S = 300


def run_on_ray(recipe: Recipe) -> Outcome:
    """Run all ranks as Ray Train workers; a lost worker restarts them all from the last snapshot.

    Raises:
        UsageError: The cluster cannot hold the ranks.
        ShardError: What a rank refused.
        OSError: What a rank could not do: reach a store, write to a full disk.
    """
    refusal = recipe.run_dir / REFUSAL_FILE
    refusal.unlink(missing_ok=True)
    with connect_ray(recipe.cpus_per_rank, recipe.gpus_per_rank or 0.0, recipe.num_ranks):
        gpus = recipe.gpus_per_rank
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= recipe.num_ranks else 0.0
        try:
            return _fit(_build_trainer(recipe, gpus))
        finally:
            refusal.unlink(missing_ok=True)


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
    started = join_or_start(num_cpus=max(os.cpu_count() or 1, math.ceil(count * cpus)), log_to_driver=False)
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


def _build_trainer(recipe: Recipe, gpus: float) -> TorchTrainer:
    resources = {"CPU": recipe.cpus_per_rank} | ({"GPU": gpus} if gpus else {})
    return TorchTrainer(
        _run_worker,
        train_loop_config=recipe.model_dump(mode="json"),
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
        scaling_config=ScalingConfig(num_workers=recipe.num_ranks, use_gpu=gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(
            name="ray",
            storage_path=str(recipe.run_dir),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _run_worker(config: dict[str, Any]) -> str:
    """Run one rank; return its outcome, or the refusal of an earlier attempt, which no restart would heal.

    A refusal raises, so that Ray ends the ranks that wait for this one, and is kept in a file for the restart.
    """
    recipe = build_recipe(config)
    refusal = recipe.run_dir / REFUSAL_FILE
    if refusal.is_file():
        return refusal.read_text(encoding="utf-8")
    context = ray.train.get_context()
    ranks = enter_group(
        context.get_world_rank(), context.get_world_size(), get_device(), context.get_local_world_size()
    )
    try:
        return run_rank(recipe, ranks, report_to_ray)
    except (UsageError, ShardError, OSError) as err:
        kind = next(name for name, error in REFUSALS.items() if isinstance(err, error))
        write_text(refusal, f"{kind}:{err}")
        raise


def report_to_ray(numbers: Numbers) -> None:
    """Hand an epoch's numbers to Ray Train; the state itself is in the run's folder."""
    ray.train.report(dict(numbers))


def _fit(trainer: TorchTrainer) -> Outcome:
    """Return how the run ended. fit runs in a thread, so that Ctrl-C asks the ranks to save instead of killing them."""
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
    result = results[0]
    if isinstance(result, Exception):
        raise result
    kind, _, sentence = str(result).partition(":")
    if kind in REFUSALS:
        raise REFUSALS[kind](sentence)
    return "interrupted" if kind == "interrupted" else "finished"
