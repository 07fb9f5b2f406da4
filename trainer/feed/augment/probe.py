"""Whether an operation may change training pictures: tried on noise, twice, under other process-wide generators."""

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
"""Enough that an operation of probability 1/4 is left out by one try in a hundred."""
_SHARED = (
    "draws from a generator that all threads share, so that a sample's pixels would depend on the others; "
    "take another operation"
)


def probe_input(change: Change, channels: int, size: int, disturb: Callable[[int], None]) -> None:
    """Try an operation on the model's input, whose shape must stay.

    Args:
        change: One operation.
        channels: Of the picture.
        size: Its side, pixels.
        disturb: Moves the process-wide generators of the operation's library.

    Raises:
        ValueError: It cannot change training pictures; in words that go on from the operation's name.
    """
    _probe(change, (channels, size, size), disturb, keeps_sides=True)


def probe_decoded(change: Change, channels: int, size: int, disturb: Callable[[int], None]) -> None:
    """Try an operation on decoded pictures, some larger than the input and then a photograph's size; raises as above.

    One that fails on the smaller is told when it fails on the larger too: a crop may be larger than the input.
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
        raise ValueError(f"gives {kind} where pictures are uint8; leave it out, the model normalises")
    if changed.ndim != 3 or changed.shape[0] != image.shape[0]:
        raise ValueError(f"makes a picture of {tuple(changed.shape)} out of {tuple(image.shape)}; channels must stay")
    if keeps_sides and changed.shape != image.shape:
        raise ValueError(
            f"makes the model's input {tuple(changed.shape)} instead of {tuple(image.shape)}; add `when: before`, "
            "which applies it to the decoded picture, or give it the input's size"
        )


def _read_generators() -> tuple[str, str, bytes]:
    return str(random.getstate()), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()


@contextlib.contextmanager
def _kept_settings() -> Iterator[None]:
    """Compute in one thread, as the feed does, and put that and the process-wide generators back at the end."""
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
