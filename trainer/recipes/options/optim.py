"""The optimizer."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, field_validator

from trainer.recipes.options.choice import ChoiceSection, Uses, settle

_ADAM: Final = {"betas": (0.9, 0.999), "eps": 1e-8}
_USES: Final[Uses] = {
    "sgd": {"weight_decay": 1e-4, "momentum": 0.9},
    "adam": {"weight_decay": 0.0, **_ADAM},
    "adamw": {"weight_decay": 0.05, **_ADAM},
    "adabelief": {"weight_decay": 0.05, **_ADAM, "eps": 1e-16},
    "radam": {"weight_decay": 0.05, **_ADAM},
    "ranger": {"weight_decay": 0.05, **_ADAM, "lookahead_steps": 6, "lookahead_share": 0.5},
    "lamb": {"weight_decay": 0.05, **_ADAM, "eps": 1e-6},
    "lion": {"weight_decay": 0.05, "betas": (0.9, 0.99)},
    "muon": {"weight_decay": 0.05, "momentum": 0.95, **_ADAM},
}


class OptimOptions(ChoiceSection):
    """The optimizer; options below that it does not use are null."""

    name: Literal["sgd", "adam", "adamw", "adabelief", "radam", "ranger", "lamb", "lion", "muon"] = "adamw"
    """sgd is with Nesterov momentum, ranger is radam with lookahead, muon is for matrices and filters (the head apart)
    and leaves the rest to adamw. lion wants about a tenth of adamw's peak_lr."""
    peak_lr: float = Field(default=1e-3, gt=0)
    """Learning rate after warm-up."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Not applied to biases, norms and other tensors of one dimension. Part of the gradient for sgd (default 1e-4) and
    adam (0), apart from it for the others (0.05)."""
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """sgd (0.9) and muon (0.95)."""
    betas: tuple[float, float] | None = None
    """What averages keep of gradient and square, each in [0, 1): 0.9 and 0.999, for lion 0.9 and 0.99. Not for sgd."""
    eps: float | None = Field(default=None, gt=0)
    """Added to the divisor: 1e-8, for lamb 1e-6, for adabelief 1e-16; not for sgd and lion."""
    lookahead_steps: int | None = Field(default=None, ge=1)
    """ranger: steps (6) after which the weights are drawn back to the slow ones."""
    lookahead_share: float | None = Field(default=None, gt=0, le=1)
    """ranger: how far (0.5) the slow weights go towards the fast ones."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer's rate is this share of that of the layer above it; the head has peak_lr. 1 has one rate for all."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest gradient norm; None does not clip."""

    @classmethod
    def _settle(cls, values: dict[str, Any]) -> dict[str, Any]:
        return settle(values, values.get("name", cls.model_fields["name"].default), _USES)

    @field_validator("betas")
    @classmethod
    def _are_shares(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not all(0 <= beta < 1 for beta in value):
            raise ValueError("each beta is at least 0 and below 1")
        return value
