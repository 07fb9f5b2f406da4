"""Penultimate features: the input of a classifier's head, read during its normal forward pass."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

from trainer.contract.model.head import find_head
from trainer.contract.model.model import Classifier, split_outputs


class FeatureTap:
    """Keep the input of a classifier's head until `take` returns it.

    Several threads may compute at once; each takes the input of its own forward pass.
    """

    def __init__(self, model: Classifier) -> None:
        self._passing = threading.local()
        head = model.backbone.get_submodule(find_head(model.backbone))
        self._handle = head.register_forward_pre_hook(self._keep)

    def _keep(self, head: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._passing.features = pool_positions(inputs[0], isinstance(head, nn.Conv2d))

    def take(self) -> Tensor:
        """Return float32[B, D] of this thread's last forward pass, on the model's device; a second call fails."""
        features: Tensor = self._passing.__dict__.pop("features")
        return features

    def close(self) -> None:
        """Remove the hook from the model."""
        self._handle.remove()


class WithFeatures(nn.Module):
    """Returns logits followed by the head's input: float32[B, K + D]."""

    def __init__(self, model: Classifier, tap: FeatureTap) -> None:
        super().__init__()
        self.model, self.tap = model, tap

    def forward(self, images: Tensor) -> Tensor:
        logits, _ = split_outputs(self.model(images))
        return torch.cat([logits.float(), self.tap.take()], dim=1)


def pool_positions(features: Tensor, channels_first: bool) -> Tensor:
    """Return float32[B, D], the mean over all positions of features [B, D], [B, ..., D], or [B, D, ...].

    >>> import torch
    >>> pool_positions(torch.tensor([[[[1.0, 3.0]]]]), channels_first=True)
    tensor([[2.]])
    """
    positions = tuple(range(2, features.ndim)) if channels_first else tuple(range(1, features.ndim - 1))
    pooled = features.mean(dim=positions) if positions else features
    return pooled.float()
