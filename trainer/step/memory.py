"""Batches that do not fit: in how many parts a rank must compute its slice."""

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
"""The last two are oneDNN's words for it."""


class RankMemoryError(UsageError):
    """Memory ran out on one rank of several; all of them must begin anew from the last snapshot with `parts`."""

    def __init__(self, message: str, parts: int) -> None:
        super().__init__(message, parts)  # both: it crosses processes
        self.parts = parts

    def __str__(self) -> str:
        return str(self.args[0])


def is_out_of_memory(err: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a device or on the host."""
    if isinstance(err, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(err, RuntimeError) and any(words in str(err) for words in _CPU_SAYS)


def cut_parts(size: int, parts: int, largest: int | None = None) -> list[slice]:
    """Return at most `parts` contiguous parts of a slice, none of them empty; of an empty slice the one that it is.

    Where `largest`, the size of the largest slice of a step, is given, every rank gets as many parts as that one has,
    and a smaller slice may have empty ones among them.

    >>> cut_parts(5, 2), cut_parts(1, 4), cut_parts(0, 4)
    ([slice(0, 2, None), slice(2, 5, None)], [slice(0, 1, None)], [slice(0, 0, None)])
    >>> cut_parts(1, 2, largest=2), cut_parts(1, 4, largest=1)
    ([slice(0, 0, None), slice(0, 1, None)], [slice(0, 1, None)])
    """
    number = max(1, min(parts, size if largest is None else largest))
    return [slice(size * part // number, size * (part + 1) // number) for part in range(number)]


def fit_parts(compute: Callable[[int], None], size: int, first: int = 1) -> int:
    """Return the least of first, 2 first, 4 first, ... parts in which a slice of `size` samples can be computed.

    Args:
        compute: Computes the slice, or a part of it, cut into so many parts; raises where memory runs out.
        size: Samples of the slice.
        first: Parts to begin with.

    Raises:
        UsageError: One sample alone does not fit.

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
    """Refuse where memory ran out although every part holds one sample.

    Raises:
        UsageError: It did.
    """
    if parts >= size:
        raise UsageError(
            "memory runs out with a single sample; take a smaller image_size or model, or another device"
        ) from err


def release() -> None:
    """Give memory back, so that another size may find room.

    Not while the error is handled: its traceback holds the frames, and so the activations, of what did not fit.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def trial(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Compute a part in training mode beside the memory that the optimizer will need; gradients and statistics go."""
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
    """Return copies of what is no parameter: BatchNorm's statistics."""
    return [buffer.clone() for buffer in model.buffers()]


def restore_buffers(model: nn.Module, kept: list[Tensor]) -> None:
    """Undo what steps changed since `copy_buffers`."""
    for buffer, old in zip(model.buffers(), kept, strict=True):
        buffer.copy_(old)
