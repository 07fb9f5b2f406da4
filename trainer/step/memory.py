"""Batches that do not fit in memory: find the number of microbatches for a rank's slice."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from shards.errors import UsageError

_CPU_SAYS = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)
"""Messages for running out of memory; the last two are oneDNN's."""


class RankMemoryError(UsageError):
    """Memory ran out on one of several ranks; all must restart from the last snapshot with `parts` microbatches."""

    def __init__(self, message: str, parts: int) -> None:
        super().__init__(message, parts)  # both arguments, for pickling between processes
        self.parts = parts

    def __str__(self) -> str:
        return str(self.args[0])


def is_out_of_memory(err: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a device or on the host."""
    if isinstance(err, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(err, RuntimeError) and any(words in str(err) for words in _CPU_SAYS)


def cut_parts(size: int, parts: int, largest: int | None = None) -> list[slice]:
    """Split a slice into at most `parts` contiguous, non-empty microbatches; an empty slice gives one empty one.

    If `largest`, the size of the step's largest slice, is given, every rank gets as many microbatches as that slice,
    and a smaller slice may have empty ones.

    >>> cut_parts(5, 2), cut_parts(1, 4), cut_parts(0, 4)
    ([slice(0, 2, None), slice(2, 5, None)], [slice(0, 1, None)], [slice(0, 0, None)])
    >>> cut_parts(1, 2, largest=2), cut_parts(1, 4, largest=1)
    ([slice(0, 0, None), slice(0, 1, None)], [slice(0, 1, None)])
    """
    number = max(1, min(parts, size if largest is None else largest))
    return [slice(size * part // number, size * (part + 1) // number) for part in range(number)]


def fit_parts(compute: Callable[[int], None], size: int, first: int = 1) -> int:
    """Return the smallest number of microbatches, of first, 2 * first, 4 * first, ..., that fits a slice of `size`
    samples.

    Args:
        compute: Computes the slice, or one microbatch, with a number of microbatches; raises if memory runs out.
        size: Number of samples in the slice.
        first: Number of microbatches to try first.

    Raises:
        UsageError: A single sample does not fit.

    >>> def three_at_most(parts):
    ...     if 16 / parts > 3:
    ...         raise MemoryError
    >>> fit_parts(three_at_most, 16)
    8
    """
    parts = first
    while not _fits(compute, parts, size):
        release()
        parts *= 2
    return parts


def _fits(compute: Callable[[int], None], parts: int, size: int) -> bool:
    try:
        compute(parts)
    except Exception as err:
        if not is_out_of_memory(err):
            raise
        refuse_single_sample(parts, size, err)
        return False
    return True


def refuse_single_sample(parts: int, size: int, err: BaseException) -> None:
    """Raise if memory ran out although every microbatch has one sample.

    Raises:
        UsageError: It did.
    """
    if parts >= size:
        raise UsageError(
            "memory runs out with a single sample; use a smaller image_size or model, or another device"
        ) from err


def release() -> None:
    """Free memory, so that another size may fit.

    Do not call it while handling the error: its traceback keeps the frames, and so the activations, alive.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def trial(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Context for a trial microbatch, with the optimizer's memory reserved; discards gradients and statistics."""
    kept = copy_buffers(model)
    reserve = [torch.empty_like(p) for p in model.parameters() if p.requires_grad for _ in range(2)]
    model.train()
    try:
        yield
    finally:
        del reserve
        optimizer.zero_grad(set_to_none=True)
        restore_buffers(model, kept)


def copy_buffers(model: nn.Module) -> list[Tensor]:
    """Return copies of the buffers: BatchNorm's statistics."""
    return [buffer.clone() for buffer in model.buffers()]


def restore_buffers(model: nn.Module, kept: list[Tensor]) -> None:
    """Restore the buffers copied by `copy_buffers`."""
    for buffer, old in zip(model.buffers(), kept, strict=True):
        buffer.copy_(old)
