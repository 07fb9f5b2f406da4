"""Calibrated probabilities from logits: temperature scaling, then correction for the class shares at deployment."""

from __future__ import annotations

import re

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from shards.errors import UsageError


class PriorShift(BaseModel):
    """Class shares in training and at deployment, in class order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: list[float] = Field(min_length=2)
    """Share of each class in the training data, 0..1; they sum to 1."""
    deploy: list[float] = Field(min_length=2)
    """Share of each class at deployment, 0..1; they sum to 1."""

    @field_validator("train", "deploy")
    @classmethod
    def _are_shares(cls, value: list[float]) -> list[float]:
        if min(value) <= 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError(f"shares are above 0 and sum to 1, got {value}")
        return value


def calibrate(logits: Tensor, temperature: float | None, priors: PriorShift | None) -> Tensor:
    """Return float64[..., K], the logarithms of calibrated probabilities up to a constant per row.

    Args:
        logits: float32[..., K] of the model.
        temperature: T > 0, the divisor of the logits; None means 1.
        priors: If given, p'(k) is proportional to p(k) * deploy(k) / train(k).

    Source: Guo et al. 2017 (On Calibration of Modern Neural Networks, eq. 9); Saerens et al. 2002 (Adjusting the
    Outputs of a Classifier to New a Priori Probabilities, eq. 2.4).

    >>> shift = PriorShift(train=[0.5, 0.5], deploy=[0.75, 0.25])
    >>> torch.softmax(calibrate(torch.zeros(2), None, shift), dim=0)
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    calibrated = logits.double()
    if temperature is not None:
        calibrated = calibrated / temperature
    if priors is not None:
        shares = torch.tensor([priors.train, priors.deploy], dtype=torch.float64)
        calibrated = calibrated + (shares[1].log() - shares[0].log())
    return calibrated


def parse_shares(option: str, text: str, classes: list[str], rest: list[float] | None) -> list[float]:
    """Return the share of each class from `CLASS=SHARE,...`.

    Args:
        option: The option's name, for messages.
        text: CLASS=SHARE,... with shares above 0.
        classes: All class names.
        rest: Shares by which unnamed classes divide the remainder; None: all classes must be named.

    Raises:
        UsageError: Wrong syntax, an unknown or repeated class, or shares that do not sum to 1.

    >>> parse_shares("--deploy-prior", "b=0.5", ["a", "b", "c"], [0.25, 0.5, 0.25])
    [0.25, 0.5, 0.25]
    """
    named = _read_shares(option, text, classes)
    left, unnamed = 1 - sum(named.values()), [name for name in classes if name not in named]
    if unnamed and rest is None:
        raise UsageError(f"{option} gives no share for {', '.join(unnamed)}; give a share for each class")
    if (left <= 1e-9) if unnamed else (abs(left) > 1e-6):
        kept = f"leave something for {', '.join(unnamed)}" if unnamed else "sum to 1"
        raise UsageError(f"{option} {text} sums to {1 - left:g}; the shares must {kept}")
    weights = dict(zip(classes, rest or [], strict=False))
    total = sum(weights[name] for name in unnamed)
    return [named[name] if name in named else left * weights[name] / total for name in classes]


def _read_shares(option: str, text: str, classes: list[str]) -> dict[str, float]:
    named: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.rpartition("=")
        if name not in classes:
            raise UsageError(
                f"{option} takes CLASS=SHARE,... with classes {', '.join(classes)}, got '{part}'; correct the name"
            )
        if name in named:
            raise UsageError(f"{option} names {name} twice; name it once")
        if not re.fullmatch(r"\d*\.?\d+(e-?\d+)?", share) or not 0 < float(share) < 1:
            raise UsageError(f"{option}: the share of {name} lies between 0 and 1, got '{share}'; 0.02 means 2 %")
        named[name] = float(share)
    return named
