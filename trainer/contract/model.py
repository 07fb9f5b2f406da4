"""The classifier: a backbone by name with a head for K classes, and normalisation as buffers."""

from __future__ import annotations

import difflib
from typing import Literal

import timm
import torch
import torchvision.models
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from shards.errors import UsageError

TIMM_PREFIX = "timm/"
_WITH_AUXILIARY_HEADS = {"googlenet", "inception_v3"}


class ModelSpec(BaseModel):
    """What must be known to build the module that a weights file fits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """A torchvision builder such as `resnet18`, or `timm/NAME`."""
    num_classes: int = Field(ge=2)
    in_channels: Literal[1, 3] = 3
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Per channel, on the scale 0..1; of the pretrained weights where there are any."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Per channel, on the scale 0..1."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the head; only models with that option take it."""


class Classifier(nn.Module):
    """A backbone behind its own normalisation; takes pictures as they come from geometry."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = build_backbone(spec)
        self.register_buffer("mean", torch.tensor(spec.mean).mul(255).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).mul(255).view(1, -1, 1, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Return float32[B, K] logits of images uint8 or float32[B, C, S, S] in 0..255, C in {1, 3}.

        One channel is repeated where the backbone takes three.
        """
        normal = (images.to(self.mean.dtype) - self.mean) / self.std
        # Gray pictures broadcast to three channels against mean[1, 3, 1, 1] in the line above.
        logits: Tensor = self.backbone(normal.contiguous(memory_format=torch.channels_last))
        return logits.to(self.mean.dtype)


def build_backbone(spec: ModelSpec) -> nn.Module:
    """Return the untrained backbone with a head for `spec.num_classes`.

    Raises:
        UsageError: No such model, or the model refuses an option.
    """
    try:
        if spec.name.startswith(TIMM_PREFIX):
            name = spec.name.removeprefix(TIMM_PREFIX)
            if not timm.is_model(name):
                raise _unknown(spec.name, [TIMM_PREFIX + known for known in timm.list_models()])
            timm_model: nn.Module = timm.create_model(
                name, num_classes=spec.num_classes, in_chans=spec.in_channels, drop_rate=spec.dropout
            )
            return timm_model
        if spec.name not in torchvision.models.list_models(module=torchvision.models):
            raise _unknown(spec.name, torchvision.models.list_models(module=torchvision.models))
        if spec.in_channels != 3:
            raise UsageError(f"{spec.name} takes 3 channels, got 1; set preprocess.channels=3, or take a timm/ model")
        options: dict[str, object] = {"dropout": spec.dropout} if spec.dropout else {}
        if spec.name in _WITH_AUXILIARY_HEADS:
            options |= {"aux_logits": False, "init_weights": True}
        model: nn.Module = torchvision.models.get_model(
            spec.name, weights=None, num_classes=spec.num_classes, **options
        )
        return model
    except TypeError as err:
        raise UsageError(f"{spec.name} cannot be built with dropout={spec.dropout:g}: {err}") from err


def find_head(backbone: nn.Module) -> str:
    """Return the name of the module that maps features to classes.

    >>> find_head(torchvision.models.get_model("squeezenet1_1", weights=None, num_classes=2))
    'classifier.1'
    """
    cfg = getattr(backbone, "default_cfg", None)
    if cfg is not None:  # timm says it
        return str(cfg["classifier"])
    layers = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return layers[-1]


def _unknown(name: str, known: list[str]) -> UsageError:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "names are torchvision builders (resnet18) or timm/NAME"
    return UsageError(f"no model '{name}': {hint}")
