"""Check an operation: apply it to noise twice, with different states of the process-wide generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from trainer.feed.augment.library import Change, brief
from trainer.feed.augment.seeding import SampleKey

_DRAWS = 16
"""Number of tries, so that an operation with probability 1/4 goes unapplied in one check of a hundred."""
_SHARED = (
    "draws from a generator shared by all threads, so that a sample's pixels would depend on other samples; "
    "use another operation"
)


def probe_input(change: Change, channels: int, size: int, disturb: Callable[[int], None]) -> None:
    """Try an operation on the model's input, whose shape must not change.

    Args:
        change: One operation.
        channels: Channels of the picture.
        size: Side of the picture, pixels.
        disturb: Changes the state of the process-wide generators of the operation's library.

    Raises:
        ValueError: The operation cannot be used; the message continues a sentence after its name.
    """
    _probe(change, (channels, size, size), disturb, keeps_sides=True)


def probe_decoded(change: Change, channels: int, size: int, disturb: Callable[[int], None]) -> None:
    """Try an operation on decoded pictures, first larger than the input, then of a photograph's size; raises like
    `probe_input`.

    A failure on the smaller picture only counts if the larger fails too: a crop may be larger than the input.
    """
    try:
        _probe(change, (channels, size + size // 2, 2 * size), disturb, keeps_sides=False)
    except ValueError:
        with contextlib.suppress(ValueError):
            return _probe(change, (channels, 2400, 3200), disturb, keeps_sides=False)
        raise


def _probe(change: Change, shape: tuple[int, int, int], disturb: Callable[[int], None], *, keeps_sides: bool) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    with _kept_settings():
        first = _draw(change, image, disturb, 1)
        again = _draw(change, image, disturb, 2)
    for changed, other in zip(first, again, strict=True):
        _refuse_odd(changed, image, keeps_sides)
        if not torch.equal(changed, other):
            raise ValueError(_SHARED)


def _draw(change: Change, image: Tensor, disturb: Callable[[int], None], number: int) -> list[Tensor]:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    disturb(number)
    before = _read_generators()
    try:
        changed = [change(image, SampleKey(0, 0, sample)) for sample in range(_DRAWS)]
    except Exception as err:
        raise ValueError(f"cannot change a picture of {tuple(image.shape)} ({brief(err)})") from err
    if _read_generators() != before:
        raise ValueError(_SHARED)
    return changed


def _refuse_odd(changed: object, image: Tensor, keeps_sides: bool) -> None:
    if not isinstance(changed, Tensor) or changed.dtype != torch.uint8:
        kind = changed.dtype if isinstance(changed, Tensor) else type(changed).__name__
        raise ValueError(
            f"returns {kind}, but must return a uint8 tensor; remove this operation: the model normalises its input"
        )
    if changed.ndim != 3 or changed.shape[0] != image.shape[0]:
        raise ValueError(
            f"makes a picture of {tuple(changed.shape)} from {tuple(image.shape)}; channels must not change"
        )
    if keeps_sides and changed.shape != image.shape:
        raise ValueError(
            f"makes the model's input {tuple(changed.shape)} instead of {tuple(image.shape)}; add `when: before`, "
            "which applies it to the decoded picture, or set its size to the input's"
        )


def _read_generators() -> tuple[str, str, bytes]:
    return str(random.getstate()), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()


@contextlib.contextmanager
def _kept_settings() -> Iterator[None]:
    """Use one torch thread, as the feed does, and restore it and the process-wide generators at the end."""
    threads = torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
