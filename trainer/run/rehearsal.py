"""Rehearsal: a few real steps without side effects, to measure a run's memory and step time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from shards.workers.memory import read_free_memory
from trainer.feed.feed import BATCHES_AHEAD, Batch
from trainer.feed.meter import Readings
from trainer.feed.stream import TrainStream
from trainer.loop.build import build_preprocess
from trainer.loop.session import open_engine
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import ResolvedRecipe
from trainer.record.snapshot import count_bytes
from trainer.step.engine import Engine

TIMED_STEPS = 3
PATIENCE_S = 30.0
"""Seconds after which no further step is timed."""
_FEW = 2
"""Number of pictures whose activations are measured, to detect a batch that does not fit before trying it."""


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank needs besides Python and its libraries.

    parameters: Including buffers; gradients: of trained parameters; exchange: DDP's copies of gradients; state: of the
    optimizer; activations: kept for the backward pass of the rank's largest batch; batches: prefetched pictures;
    snapshot: copies of parameters and state during a write.
    """

    parameters: int
    gradients: int
    exchange: int
    state: int
    activations: int
    batches: int
    snapshot: int

    @property
    def on_device(self) -> int:
        """Bytes on the model's device."""
        return self.parameters + self.gradients + self.exchange + self.state + self.activations

    @property
    def on_host(self) -> int:
        """Bytes in the machine's memory, whatever the model's device."""
        return self.batches + self.snapshot


@dataclass(frozen=True)
class Rehearsal:
    """The measurements, as the maximum over the ranks.

    free: Free bytes before the steps, on the device for CUDA; step_s: seconds of a global step; eval_s: seconds per
    picture that a rank evaluates; timed: number of timed steps.
    """

    device: str
    workers: int
    parameters: int
    trained: int
    steps_per_epoch: int
    samples_per_epoch: int
    memory: Memory
    free_device: int
    free_host: int
    step_s: float
    eval_s: float
    timed: int


def rehearse(ranks: Ranks, recipe: ResolvedRecipe, num_ranks: int, least_parts: int, begun: int | None) -> Rehearsal:
    """Measure real steps on real batches; every rank calls it.

    Args:
        ranks: The ranks taking part.
        recipe: The recipe of the run.
        least_parts: Minimum number of microbatches per slice.
        num_ranks: Ranks of the run; if more than take part here, rank 0's slice of each batch stands for all.
        begun: See `open_engine`.

    Raises:
        UsageError: The model or weights cannot be built, or there is too little memory.
        ShardError: A sample cannot be read.
    """
    free = read_free_memory(), _read_free_device(ranks.device)
    dataset = open_dataset(recipe.data, recipe.cache_options(ranks.on_node))
    place = ranks if ranks.num_ranks == num_ranks else replace(ranks, num_ranks=num_ranks)
    preprocess = build_preprocess(recipe, dataset)
    engine, stream = open_engine(recipe, dataset, preprocess, ranks, least_parts, place, begun)
    try:
        release = recipe.freeze_epochs
        if release is not None and release < recipe.epochs:  # unfrozen layers need more of everything
            engine.begin_epoch(release)
        # With progressive resizing, pictures are largest in the last epoch.
        batches = stream.iterate(recipe.epochs - 1 if recipe.augment.progressive else 0, 0)
        first = next(batches)
        largest = -(-min(recipe.batch_size_global, stream.samples_per_epoch) // num_ranks)
        memory = _share_largest(ranks, _measure_memory(engine, ranks, first, largest))
        if ranks.is_first:
            refuse_too_large(memory, ranks, *free)
        ranks.barrier()
        step_s, timed = _time_steps(engine, ranks, first, batches)
        step_s = max(ranks.gather(max(step_s, _spend(stream.read_meter(), stream.workers) * largest)))
        eval_s = max(ranks.gather(_time_evaluation(engine, first, stream)))
    except torch.OutOfMemoryError as err:
        raise UsageError(
            f"a step of {len(first)} pictures does not fit into the memory of {ranks.device}; set a smaller "
            "batch_size_global or image_size, or more num_ranks"
        ) from err
    finally:
        stream.close()
    parameters = list(engine.model.parameters())
    return Rehearsal(
        device=torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "CPU",
        workers=stream.workers,
        parameters=sum(each.numel() for each in parameters),
        trained=sum(each.numel() for each in parameters if each.requires_grad),
        steps_per_epoch=stream.plan(0).num_steps,
        samples_per_epoch=stream.samples_per_epoch,
        memory=memory,
        free_device=free[1] if ranks.device.type == "cuda" else free[0],
        free_host=free[0],
        step_s=step_s,
        eval_s=eval_s,
        timed=timed,
    )


def _measure_memory(engine: Engine, ranks: Ranks, batch: Batch, largest: int) -> Memory:
    """Estimate the memory of a step of `largest` pictures from a step of a few."""
    few = _take(batch, _FEW)
    own = {each.untyped_storage().data_ptr() for each in engine.model.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _step(engine, ranks, few)
    parameters = sum(each.nbytes for each in engine.model.state_dict().values())
    gradients = sum(each.grad.nbytes for each in engine.model.parameters() if each.grad is not None)
    state = count_bytes(engine.state_dict())
    return Memory(
        parameters=parameters,
        gradients=gradients,
        exchange=gradients if ranks.num_ranks > 1 else 0,
        state=state,
        activations=sum(kept.values()) * -(-largest // engine.parts) // max(1, len(few)),
        batches=(BATCHES_AHEAD + 2) * largest * batch.images[:1].nbytes,
        snapshot=parameters + state,
    )


def _share_largest(ranks: Ranks, memory: Memory) -> Memory:
    return max(ranks.gather(memory), key=lambda each: each.on_device)


def refuse_too_large(memory: Memory, ranks: Ranks, free_host: int, free_device: int) -> None:
    """Raise if the run does not fit into the free bytes of the machine and, with CUDA, of the rank's device.

    Raises:
        UsageError: It does not fit.
    """
    on_cuda = ranks.device.type == "cuda"
    host = (memory.on_host + (0 if on_cuda else memory.on_device)) * ranks.on_node
    for needed, free, where in ((host, free_host, "this machine"), (memory.on_device, free_device, str(ranks.device))):
        if needed > free and (on_cuda or where == "this machine"):
            raise UsageError(
                f"the run needs about {needed / 2**30:.1f} GiB of memory, but {where} has {free / 2**30:.1f} GiB free; "
                "set a smaller batch_size_global or image_size, or a smaller model"
            )


def _time_steps(engine: Engine, ranks: Ranks, first: Batch, batches: Iterator[Batch]) -> tuple[float, int]:
    """Return the mean seconds of a step, including waiting for its batch, and the number of timed steps."""
    times: list[float] = []
    batch = first
    while len(times) <= TIMED_STEPS:
        started = time.perf_counter()
        following = next(batches, None) if times else first
        batch = batch if following is None else following  # repeat the last batch of a short epoch
        _step(engine, ranks, batch)
        times.append(time.perf_counter() - started)
        late = torch.tensor([float(sum(times) > PATIENCE_S)], device=ranks.device)
        if float(ranks.sum(late)):  # all ranks together: each step is a collective
            break
    timed = times[1:] or times  # one-time work is done in the first
    return sum(timed) / len(timed), len(timed)


def _step(engine: Engine, ranks: Ranks, batch: Batch) -> None:
    (weight,) = ranks.agree(batch.total_weight)
    float(engine.step(batch, weight, 1.0, 0).losses.sum())  # float() waits for the device


@torch.inference_mode()
def _time_evaluation(engine: Engine, batch: Batch, stream: TrainStream) -> float:
    """Return the seconds per evaluated picture: reading and computing, which overlap on a GPU."""
    model = engine.model.eval()
    images = batch.images[: max(1, len(batch))]
    if len(images) == 0:
        return 0.0
    images = images.to(next(model.parameters()).device)
    model(images).sum().item()
    started = time.perf_counter()
    model(images).sum().item()
    both = (time.perf_counter() - started) / len(images), _spend(stream.read_meter(), stream.workers)
    return sum(both) if images.device.type == "cpu" else max(both)


def _spend(readings: Readings, workers: int) -> float:
    """Return the seconds for feeding a picture with all workers."""
    by_one = readings.seconds["device"]  # in a separate thread besides the workers
    by_all = (sum(readings.seconds.values()) - by_one) / max(1, workers)
    return max(by_one, by_all) / max(1, readings.images)


def _take(batch: Batch, number: int) -> Batch:
    return Batch(
        batch.images[:number], batch.labels[:number], batch.weights[:number], batch.ids[:number], batch.sources[:number]
    )


def _read_free_device(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0
