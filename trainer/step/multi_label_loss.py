"""The loss of pictures of any number of labels: each class is a question of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from shards.errors import UsageError
from trainer.recipes.options.loss import LossOptions
from trainer.step.loss import Loss, weigh_classes


class MultiLabelLoss(Loss):
    """Binary cross-entropy of each class, its mean over classes; every sample weighs 1.

    Args:
        options: Of the recipe.
        positive_weights: float32[K], factor of a class's loss where it is there; None where each is 1.
    """

    def __init__(self, options: LossOptions, positive_weights: Tensor | None) -> None:
        super().__init__(options, None, None)
        self._smoothing = options.label_smoothing or 0.0
        self._positive_weights = positive_weights

    def per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return float32[n], the losses of logits float32[n, K].

        labels: float32[n, K], 1 for each class that is there and 0 for the others. Smoothing s takes them to 1 - s / 2
        and s / 2: each question has two answers, whatever the number of classes.

        Source: the weights are `pos_weight` of torch's BCEWithLogitsLoss, the smoothing Keras's BinaryCrossentropy.
        """
        targets = labels.to(logits.dtype) * (1 - self._smoothing) + self._smoothing / 2
        if self._positive_weights is not None:
            self._positive_weights = self._positive_weights.to(logits.device)
        losses = binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=self._positive_weights)
        return losses.mean(1)

    def blank_labels(self, size: int, num_classes: int, /) -> Tensor:
        """Return float32[size, num_classes]; else as that of one label."""
        return torch.zeros(size, num_classes)


def build_multi_label_loss(
    options: LossOptions, class_counts: npt.NDArray[np.int64], num_samples: int, classes: list[str]
) -> MultiLabelLoss:
    """Return the loss of a recipe for a dataset of several labels a sample.

    Args:
        options: Of the recipe; name=bce.
        class_counts: int64[K], samples of each class in the training part.
        num_samples: All samples of the training part.
        classes: Their names.

    Raises:
        UsageError: Weights that do not fit the classes, or a class that no sample has, or every one, whose weight goes
            by their number.
    """
    weights = weigh_positives(options, class_counts, num_samples, classes)
    return MultiLabelLoss(options, None if weights is None else torch.from_numpy(weights).float())


def weigh_positives(
    options: LossOptions, class_counts: npt.NDArray[np.int64], num_samples: int, classes: list[str]
) -> npt.NDArray[np.float64] | None:
    """Return float64[K], what a class counts where it is there, against 1 where it is not; None where all weigh 1.

    Source: balanced is the number of samples without the class over that of those with it, as the documentation of
    torch's BCEWithLogitsLoss advises: the class then counts as much where it is as where it is not.

    >>> weigh_positives(LossOptions(name="bce", class_weights="balanced"), np.array([1, 5]), 10, ["rain", "sun"])
    array([9., 1.])
    """
    if options.class_weights != "balanced":
        return weigh_classes(options, class_counts, classes)
    for name, count in zip(classes, class_counts.tolist(), strict=True):
        if count in (0, num_samples):
            raise UsageError(
                f"class '{name}' has {count:,} of {num_samples:,} samples in the training part, so that "
                "loss.class_weights=balanced has no weight for it; give a number for each class"
            )
    return (num_samples - class_counts) / class_counts
