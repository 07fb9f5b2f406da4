"""Logits with the features that they come from: what every back end gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from trainer.contract.model.features import pool_positions
from trainer.contract.model.head import find_head
from trainer.contract.model.model import Classifier, split_outputs

Compute = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images uint8[B, C, S, S] on the CPU -> logits float32[B, K] and features float32[B, F] there."""


class FeatureClassifier(nn.Module):
    """A classifier that gives the input of its head as well, in evaluation mode.

    It shares the weights of the one that it is made of, and nothing else: hooks of others are not traced with it.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = Classifier(classifier.spec)
        self.classifier.load_state_dict(classifier.state_dict(), assign=True)
        # A list, and a hook that stays: assigning an attribute, or adding the hook in `forward`, cannot be traced.
        self._kept: list[Tensor] = []
        backbone = self.classifier.backbone
        backbone.get_submodule(find_head(backbone)).register_forward_pre_hook(self._keep)
        self.to(classifier.mean.device).eval()

    def _keep(self, head: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._kept.clear()
        self._kept.append(pool_positions(inputs[0], isinstance(head, nn.Conv2d)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits float32[B, K] and features float32[B, F] of images as `Classifier` takes them."""
        logits, _ = split_outputs(self.classifier(images))
        return logits, self._kept.pop().to(logits.dtype)
