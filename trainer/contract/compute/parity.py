"""Parity: how closely another back end reproduces the bundle's own logits."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from shards.errors import ShardError
from trainer.contract.probes import OTHER_BACK_END, check_logits


class Parity(BaseModel):
    """How far logits differ from the expected ones on a set of pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pictures: int
    max_dp: float
    """Largest difference of a softmax probability, 0..1."""
    top1_agreement: float
    """Share of pictures that get the same label, 0..1."""
    max_logit: float
    """Largest difference of a logit, relative to the largest logit."""

    def __str__(self) -> str:
        return (
            f"max |dp| {self.max_dp:.1e}, top-1 agreement {self.top1_agreement:.2%}, "
            f"logits within {self.max_logit:.1e} of the largest, on {self.pictures:,} pictures"
        )


def compare(actual: Tensor, expected: Tensor) -> Parity:
    """Return the parity of logits float32[N, K] with the expected ones.

    Raises:
        ShardError: A logit is not finite.

    >>> import torch
    >>> compare(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 2.0]])).max_logit
    0.5
    """
    if not bool(actual.isfinite().all() and expected.isfinite().all()):
        raise ShardError("logits are not finite and cannot be compared; the weights overflow")
    scale = max(float(expected.abs().max()), 1e-6)
    return Parity(
        pictures=len(expected),
        max_dp=float((actual.double().softmax(1) - expected.double().softmax(1)).abs().max()),
        top1_agreement=float((actual.argmax(1) == expected.argmax(1)).double().mean()),
        max_logit=float((actual - expected).abs().max()) / scale,
    )


def require_parity(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> Parity:
    """Return the parity if it is within the limits.

    Args:
        actual: Logits float32[N, K] of the other back end.
        expected: Logits float32[N, K] of the bundle's own model.
        tolerance: Largest |dp| allowed.
        what: Names the back end and the pictures in the message.

    Raises:
        ShardError: A probability differs by more than `tolerance`, or a logit by more than the limit for back ends.
    """
    parity = compare(actual, expected)
    if not parity.max_dp <= tolerance:
        raise ShardError(f"{what} differs from the bundle: {parity}; the limit of |dp| is {tolerance:g}")
    check_logits(actual, expected, OTHER_BACK_END)
    return parity
