"""The output of every back end: logits and the features they are computed from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from trainer.contract.model.features import pool_positions
from trainer.contract.model.head import find_head
from trainer.contract.model.model import Classifier, split_outputs

Compute = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images uint8[B, C, S, S] on the CPU -> logits float32[B, K] and features float32[B, F] on the CPU."""


class FeatureClassifier(nn.Module):
    """A classifier that also returns the input of its head, in evaluation mode.

    It shares only the weights of the given classifier, so that other hooks on that classifier are not traced.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = Classifier(classifier.spec)
        self.classifier.load_state_dict(classifier.state_dict(), assign=True)
        # A list and a permanent hook: tracing supports neither attribute assignment nor adding a hook in `forward`.
        self._kept: list[Tensor] = []
        backbone = self.classifier.backbone
        backbone.get_submodule(find_head(backbone)).register_forward_pre_hook(self._keep)
        self.to(classifier.mean.device).eval()

    def _keep(self, head: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._kept.clear()
        self._kept.append(pool_positions(inputs[0], isinstance(head, nn.Conv2d)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits float32[B, K] and features float32[B, F] for images as `Classifier` takes them."""
        logits, _ = split_outputs(self.classifier(images))
        return logits, self._kept.pop().to(logits.dtype)
