"""A moving average of the weights (EMA), which often evaluates better than the last weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Ema:
    """The average of a model's tensors over steps; non-floating-point tensors are copied.

    Args:
        model: Its current tensors are the initial average.
        decay: Share of the average kept in a step, in [0, 1); early steps keep less, see `decay_at`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average after the step with this number in the run, counted from 0."""
        averages, tensors = [], []
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                averages.append(self._average[name])
                tensors.append(tensor)
            else:
                self._average[name].copy_(tensor)
        torch._foreach_lerp_(averages, tensors, 1 - decay_at(step, self._decay))

    @contextlib.contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged tensors during the block, then restore its own, bit for bit.

        Meanwhile the average holds the model's tensors: do not save or update either.
        """
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, tensor in model.state_dict().items():
            own = tensor.clone()
            tensor.copy_(self._average[name])
            self._average[name].copy_(own)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged tensors by the model's names; they change with the next step."""
        return dict(self._average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state_dict`, from any device."""
        for name, average in self._average.items():
            average.copy_(state[name])


def decay_at(step: int, decay: float) -> float:
    """Return the share of the average kept in step t: (1 + t) / (10 + t), at most `decay`.

    Source: TensorFlow's ExponentialMovingAverage with num_updates.

    >>> [decay_at(step, 0.99) for step in (0, 8, 10_000)]
    [0.1, 0.5, 0.99]
    """
    return min(decay, (1 + step) / (10 + step))
