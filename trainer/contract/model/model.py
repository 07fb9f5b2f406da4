"""The classifier: a backbone by name with a head for K classes, and normalisation as buffers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from trainer.contract.model.backbone import build_backbone, load_tensors
from trainer.contract.model.head import find_head as find_head
from trainer.contract.model.head import find_heads as find_heads

Outputs = Tensor | tuple[Tensor, ...]

AUX_WEIGHTS: Final = {"inception_v3": 0.4, "googlenet": 0.3}
"""Weight of each auxiliary head's loss.

Source: Szegedy et al. 2015 (Rethinking the Inception Architecture; 0.4 is from its reference code) and 2014 (Going
Deeper with Convolutions, section 5: 0.3).
"""


class ModelSpec(BaseModel):
    """The facts needed to build the module for a weights file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """A torchvision builder such as `resnet18`, or `timm/NAME`; never an alias."""
    num_classes: int = Field(ge=2)
    in_channels: Literal[1, 3] = 3
    """Channels of the first convolution."""
    mean: tuple[float, ...] = Field(default_factory=lambda data: (0.0,) * data["in_channels"])
    """Mean of each channel, on the scale 0..1; that of the pretrained weights if there are any."""
    std: tuple[float, ...] = Field(default_factory=lambda data: (1.0,) * data["in_channels"])
    """Standard deviation of each channel, on the scale 0..1."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout before the head; None: the architecture's default."""
    image_size: int | None = Field(default=None, gt=0)
    """Input side that the model is built for, pixels; None: any size, or the architecture's default."""

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> ModelSpec:
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise ValueError(
                f"mean and std have a number for each channel of the model, got {len(self.mean)} and {len(self.std)} "
                f"for {self.in_channels}"
            )
        return self


class Classifier(nn.Module):
    """Normalisation followed by a backbone; takes pictures as `preprocess` gives them."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.aux_weight = AUX_WEIGHTS.get(spec.name, 0.0)
        """Weight of each auxiliary head's loss in training; 0 for models without auxiliary heads."""
        self.backbone = build_backbone(
            spec.name, spec.num_classes, spec.in_channels, spec.image_size, dropout=spec.dropout
        )
        mean, std = self.make_normalisation(spec)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        for parameter in self.parameters():
            if parameter.dim() == 4:  # `self.to(memory_format=)` fails on a 3d convolution's 5 (lambda layers)
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def make_normalisation(spec: ModelSpec) -> tuple[Tensor, Tensor]:
        """Return mean and std as buffers float32[1, C, 1, 1], for pictures in 0..255."""
        mean, std = (torch.tensor(numbers).mul(255).view(1, -1, 1, 1) for numbers in (spec.mean, spec.std))
        return mean, std

    def forward(self, images: Tensor) -> Outputs:
        """Return float32[B, K] logits of images uint8 or float32[B, C, S, S] in 0..255, C in {1, 3}.

        Two dimensions are features float32[B, D], the input of the head, which alone is then computed.

        One channel is repeated if the backbone takes three. In training mode a model with auxiliary heads returns a
        tuple of the logits and those of each auxiliary head; `split_outputs` handles both forms.
        """
        if images.ndim == 2:
            logits: Tensor = self.backbone.get_submodule(self._head)(images.to(self.mean.dtype))
            return logits.to(self.mean.dtype)
        normal = (images.to(self.mean.dtype) - self.mean) / self.std
        # The line above broadcasts gray pictures to three channels against mean[1, 3, 1, 1].
        outputs: Outputs = self.backbone(normal.contiguous(memory_format=torch.channels_last))
        if isinstance(outputs, Tensor):
            return outputs.to(self.mean.dtype)
        return tuple(output.to(self.mean.dtype) for output in outputs if output is not None)

    @cached_property
    def _head(self) -> str:
        return find_head(self.backbone)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load as torch does, treating tensors without a layer version as in the current version."""
        if strict and not assign and not hasattr(state_dict, "_metadata"):
            return load_tensors(self, dict(state_dict))
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


def split_outputs(outputs: Outputs) -> tuple[Tensor, list[Tensor]]:
    """Return the logits, and the logits of each auxiliary head, which is [] in evaluation and for models without them.

    >>> split_outputs(torch.zeros(2, 3))[1]
    []
    """
    if isinstance(outputs, Tensor):
        return outputs, []
    return outputs[0], list(outputs[1:])
