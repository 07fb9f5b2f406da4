"""The optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from shards.cli.table import Row, Table
from trainer.recipes.options.choice import ChoiceSection, list_uses, settle


@dataclass(frozen=True)
class OptimizerRow(Row):
    """An optimizer. Its builder takes parameter groups, a learning rate, and options by keyword."""

    weight_decay: float = 0.05
    """Default of weight_decay, which parameter groups carry."""
    decoupled: bool = True
    """Whether decay acts on the weights (decoupled); otherwise it is added to the gradient."""
    group_flags: Mapping[str, Literal["wide", "hidden"]] = field(default_factory=dict)
    """Key that the optimizer expects in a parameter group -> where it is True: for tensors of two dimensions or more,
    or for matrices and filters between input and head."""

    @property
    def uses(self) -> Mapping[str, Any]:
        return {"weight_decay": self.weight_decay, **self.defaults}

    @property
    def help(self) -> str:
        return self.summary if self.decoupled else f"{self.summary}, with decay added to the gradient"


_BETAS: Final = {"betas": (0.9, 0.999)}
_ADAM: Final = {**_BETAS, "eps": 1e-8}

OPTIMIZERS: Final = Table(
    "optimizers",
    OptimizerRow(
        "sgd", "gradient descent with Nesterov momentum",
        "trainer.step.optimizers:build_sgd", {"momentum": 0.9}, weight_decay=1e-4, decoupled=False,
    ),
    OptimizerRow("adam", "Adam", "trainer.step.optimizers:build_adam", _ADAM, weight_decay=0.0, decoupled=False),
    OptimizerRow("adamw", "Adam with decoupled decay", "trainer.step.optimizers:build_adamw", _ADAM),
    OptimizerRow(
        "adabelief", "Adam scaled by the gradient's deviation from its average",
        "trainer.step.optimizers:build_adabelief", {**_BETAS, "eps": 1e-16},
    ),
    OptimizerRow("radam", "Adam with a rectified start", "trainer.step.optimizers:build_radam", _ADAM),
    OptimizerRow(
        "ranger", "radam with lookahead",
        "trainer.step.ranger:build_ranger", {**_ADAM, "lookahead_steps": 6, "lookahead_share": 0.5},
    ),
    OptimizerRow(
        "lamb", "Adam with a trust ratio for each tensor, for large batches",
        "trainer.step.lamb:build_lamb", {**_BETAS, "eps": 1e-6}, group_flags={"always_adapt": "wide"},
    ),
    OptimizerRow(
        "lion", "steps by the sign of an average; needs about a tenth of adamw's peak_lr",
        "trainer.step.optimizers:build_lion", {"betas": (0.9, 0.99)},
    ),
    OptimizerRow(
        "muon", "orthogonal steps for matrices and filters (except the head), adamw for the rest",
        "trainer.step.muon:build_muon", {"momentum": 0.95, **_ADAM}, group_flags={"use_muon": "hidden"},
    ),
)  # fmt: skip


class OptimOptions(ChoiceSection):
    """The optimizer; options that the chosen one does not use are null."""

    name: Annotated[str, BeforeValidator(OPTIMIZERS.check)] = "adamw"
    """Name of the optimizer."""
    peak_lr: float = Field(default=1e-3, gt=0)
    """Learning rate at the end of warm-up, the highest of the run."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Weight decay; not applied to biases, norms and other tensors of one dimension."""
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Share of the gradient's running average that is kept at each step."""
    betas: tuple[float, float] | None = None
    """Shares of the running averages of the gradient and of its square that are kept at each step; at least 0, below
    1."""
    eps: float | None = Field(default=None, gt=0)
    """Small number added to the divisor to avoid division by zero."""
    lookahead_steps: int | None = Field(default=None, ge=1)
    """Steps between two updates of the slow weights (lookahead)."""
    lookahead_share: float | None = Field(default=None, gt=0, le=1)
    """Share of the distance by which slow weights move towards the fast ones (lookahead)."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of each layer divided by that of the next layer; the head has peak_lr. 1: one rate for all
    layers."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest gradient norm; larger gradients are clipped to it. None: no clipping."""

    @classmethod
    def _settle(cls, values: dict[str, Any]) -> dict[str, Any]:
        return settle(values, values.get("name", cls.model_fields["name"].default), list_uses(OPTIMIZERS))

    @field_validator("betas")
    @classmethod
    def _are_shares(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not all(0 <= beta < 1 for beta in value):
            raise ValueError("each beta must be at least 0 and below 1")
        return value
