"""`--dry-run`: check everything that a run needs, and print its plan. Nothing stays on disk."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from shards.cli.messages import collecting_notes
from shards.cli.progress import describe_duration
from shards.dataset.dataset import Dataset
from shards.dataset.positive import describe_default
from shards.files.job_folder import refuse_job_folder
from shards.files.sizes import format_size
from shards.storage.shown import show_location
from shards.workers.openmp import count_cpus
from trainer.contract.task import make_task
from trainer.evaluate.positive import find_positive
from trainer.ranks.machine import read_free_disk, refuse_too_many_ranks
from trainer.ranks.processes import run_processes
from trainer.recipes.recipe import Recipe, ResolvedRecipe
from trainer.record.room import refuse_small_disk
from trainer.record.run_folder import RunFolder
from trainer.record.steps import count_steps
from trainer.record.store.standing import Standing, look_up
from trainer.run.launch import choose_launch, open_data
from trainer.run.rehearsal import Rehearsal, rehearse
from trainer.weights.resolve import resolve_recipe


@dataclass(frozen=True)
class Plan:
    """The plan of a run; bytes and seconds. batch_size_rank: smallest and largest slice of a full step."""

    run: str
    state: str
    data: dict[str, Any]
    model: dict[str, Any]
    launch: str
    num_ranks: int
    device: str
    workers_per_rank: int
    batch_size_global: int
    batch_size_rank: tuple[int, int]
    steps_per_epoch: int
    steps_done: int
    steps_total: int
    memory: dict[str, int]
    storage: dict[str, Any]
    time: dict[str, float]
    wandb: str
    tensorboard: bool
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)


def plan_run(recipe: Recipe) -> Plan:
    """Check data, folder, ranks, model and memory, take a few steps in memory, and return the plan of the run.

    The first shards of a remote dataset stay in the cache for the run.

    Raises:
        UsageError: Like the run itself; or too little memory, disk, CPUs or GPUs.
        ShardError: Like the run itself.
        OSError: Like the run itself; or a folder is not writable.
    """
    with collecting_notes() as notes:
        plan = _plan(resolve_recipe(recipe))
    return replace(plan, notes=plan.notes + notes)


def _plan(recipe: ResolvedRecipe) -> Plan:
    recipe, dataset = open_data(recipe)
    folder = RunFolder.of(recipe)
    refuse_job_folder(folder.path)
    standing = look_up(recipe, folder)
    read_free_disk(folder.path)  # raises before any step if it is not writable
    on_cluster = _check_ranks(recipe)
    here = 1 if on_cluster else recipe.least_ranks
    rehearsal = run_processes(rehearse, (recipe, recipe.least_ranks, folder.read_parts(), standing.begun), here)
    room = refuse_small_disk(recipe, folder, rehearsal.memory.snapshot, rehearsal.memory.parameters)
    notes = _note(recipe, rehearsal, on_cluster)
    return _make_plan(recipe, folder, dataset, rehearsal, standing, room, notes)


def _check_ranks(recipe: Recipe) -> bool:
    """Return whether the ranks would run on a cluster; raises if it has too few resources."""
    if choose_launch(recipe) == "ray" and os.environ.get("RAY_ADDRESS"):
        from trainer.run.ray.launch import connect_ray  # the only way in for Ray

        with connect_ray(recipe.cpus_per_rank, recipe.gpus_per_rank or 0.0, recipe.least_ranks):
            return True
    refuse_too_many_ranks(recipe.least_ranks, torch.cuda.device_count())
    return False


def _note(recipe: Recipe, rehearsal: Rehearsal, on_cluster: bool) -> list[str]:
    notes = []
    cpus = count_cpus()
    if on_cluster:
        notes.append("steps were timed on this machine with one rank; the cluster's speed and communication differ")
    elif rehearsal.device == "CPU" and recipe.least_ranks > cpus:
        notes.append(f"{recipe.least_ranks} ranks share {cpus} CPUs: they take turns")
    if recipe.stream.decode == "device" and rehearsal.device == "CPU":
        notes.append(
            "stream.decode=device: torch finds no GPU here, so one thread per rank decodes on the CPU; "
            "stream.decode=faithful uses all loader threads"
        )
    if recipe.least_ranks > recipe.batch_size_global:
        notes.append(
            f"batch_size_global={recipe.batch_size_global} leaves some of {recipe.least_ranks} ranks without work"
        )
    return notes


def _make_plan(
    recipe: Recipe,
    folder: RunFolder,
    dataset: Dataset,
    rehearsal: Rehearsal,
    standing: Standing,
    room: dict[str, int],
    notes: list[str],
) -> Plan:
    per_epoch, ranks = rehearsal.steps_per_epoch, recipe.least_ranks
    total = per_epoch * recipe.epochs
    done = count_steps(standing.samples_seen, rehearsal.samples_per_epoch, recipe.batch_size_global)
    full = min(recipe.batch_size_global, rehearsal.samples_per_epoch)
    parts = {name: dataset.split(name) for name in dataset.manifest.splits}
    return Plan(
        run=str(folder),
        state="finished" if standing.is_finished else "goes on" if done else "new",
        data={
            "location": show_location(recipe.data),
            "fingerprint": dataset.fingerprint(),
            "classes": dataset.classes,
            "task": dataset.manifest.task,
            "positive": _describe_positive(recipe, dataset),
            "samples": {name: part.num_samples for name, part in parts.items()},
            "shards": {name: len(part.counts) for name, part in parts.items()},
            "lanes": recipe.stream.lanes,
            "samples_per_epoch": rehearsal.samples_per_epoch,
        },
        model={
            "name": recipe.model,
            "weights": recipe.weights,
            "parameters": rehearsal.parameters,
            "trained": rehearsal.trained,
        },
        launch=choose_launch(recipe),
        num_ranks=ranks,
        device=rehearsal.device,
        workers_per_rank=rehearsal.workers,
        batch_size_global=recipe.batch_size_global,
        batch_size_rank=(full // ranks, -(-full // ranks)),
        steps_per_epoch=per_epoch,
        steps_done=done,
        steps_total=total,
        memory=_list_memory(rehearsal),
        storage={"folder": str(folder.path), **room},
        time=_estimate_time(recipe, dataset, rehearsal, 0 if standing.is_finished else total - done),
        wandb=recipe.track.choose_wandb_mode(),
        tensorboard=recipe.track.tensorboard,
        notes=notes,
    )


def _describe_positive(recipe: Recipe, dataset: Dataset) -> str | None:
    """Return the positive class and who set it, in words; None if there is none."""
    named = find_positive(recipe, dataset)
    if named is not None:
        return f"{named.name}, set by the {named.said_by}"
    if make_task(dataset.manifest.task).find_positive(dataset.classes) is None:
        return None
    return f"{describe_default(dataset.classes)}; positive=CLASS chooses another"


def _list_memory(rehearsal: Rehearsal) -> dict[str, int]:
    memory = rehearsal.memory
    on_device = memory.on_device + (memory.on_host if rehearsal.device == "CPU" else 0)
    return {**asdict(memory), "needed_per_rank": on_device, "free": rehearsal.free_device}


def _estimate_time(recipe: Recipe, dataset: Dataset, rehearsal: Rehearsal, steps: int) -> dict[str, float]:
    """Return seconds for a step, an epoch with validation, and all `steps` that are left."""
    picture_s = rehearsal.eval_s / recipe.least_ranks
    val_s = dataset.split("val").num_samples * picture_s
    end_s = sum(dataset.split(part).num_samples for part in recipe.evaluate_on) * picture_s
    epoch_s = rehearsal.steps_per_epoch * rehearsal.step_s + val_s
    left_s = steps * rehearsal.step_s + steps / rehearsal.steps_per_epoch * val_s + (end_s if steps else 0.0)
    return {"timed_steps": rehearsal.timed, "step_s": rehearsal.step_s, "epoch_s": epoch_s, "left_s": left_s}


def describe(plan: Plan) -> str:
    """Return the plan as lines of text."""
    samples = ", ".join(f"{count:,} {name}" for name, count in plan.data["samples"].items())
    least, most = plan.batch_size_rank
    rank_batch = f"{most:,}" if least == most else f"{least:,} or {most:,}"
    held = {name: size for name, size in plan.memory.items() if name not in ("needed_per_rank", "free")}
    lines = {
        "run": f"{plan.run} ({plan.state})",
        "data": f"{plan.data['location']}: {samples}; {len(plan.data['classes'])} classes, {plan.data['task']}",
        **({"positive": plan.data["positive"]} if plan.data["positive"] else {}),
        "order": f"{plan.data['shards']['train']:,} shards in {plan.data['lanes']} lanes",
        "model": f"{plan.model['name']}, {plan.model['parameters'] / 1e6:.2f} M parameters, "
        f"{plan.model['trained'] / 1e6:.2f} M of them trained; weights {plan.model['weights']}",
        "ranks": f"{plan.num_ranks} by {plan.launch} on {plan.device}, {plan.workers_per_rank} loader threads each",
        "batch": f"{plan.batch_size_global:,} over all ranks, {rank_batch} per rank",
        "steps": f"{plan.steps_per_epoch:,} per epoch, {plan.steps_total:,} in total, {plan.steps_done:,} done",
        "memory": f"{format_size(plan.memory['needed_per_rank'])} per rank of {format_size(plan.memory['free'])} free ("
        + ", ".join(f"{name} {format_size(size)}" for name, size in held.items())
        + ")",
        "disk": f"{format_size(plan.storage['needed'])} of {format_size(plan.storage['free'])} free",
        "time": f"about {describe_duration(plan.time['left_s'])}, an epoch {describe_duration(plan.time['epoch_s'])}: "
        f"an estimate from {plan.time['timed_steps']} steps of {plan.time['step_s']:.3g} s",
        "W&B": plan.wandb + ("; TensorBoard too" if plan.tensorboard else ""),
    }
    text = [f"{name:<10}{line}" for name, line in lines.items()]
    return "\n".join([*text, *(f"note: {note}" for note in plan.notes), "all checks passed; nothing was written"])
