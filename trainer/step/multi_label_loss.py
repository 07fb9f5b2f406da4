"""The loss for several labels per picture: each class is a separate yes/no question."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from shards.cli.table import load_builder
from shards.errors import UsageError
from trainer.recipes.options.choice import select_taken
from trainer.recipes.options.loss import LOSSES, LossOptions
from trainer.step.loss import ByClass, Loss, PerSample, weigh_classes


class MultiLabelLoss(Loss):
    """The loss for several labels per picture; every sample has weight 1, and class weights are applied inside."""

    def blank_labels(self, size: int, num_classes: int, /) -> Tensor:
        """Return placeholder labels float32[size, num_classes]."""
        return torch.zeros(size, num_classes)


def build_multi_label_loss(
    options: LossOptions, class_counts: npt.NDArray[np.int64], num_samples: int, classes: list[str]
) -> MultiLabelLoss:
    """Return the loss of a recipe for a dataset with several labels per sample.

    Args:
        options: The recipe's loss options, whose loss supports several labels.
        class_counts: int64[K], samples of each class in the training split.
        num_samples: Number of samples in the training split.
        classes: Class names.

    Raises:
        UsageError: Weights do not fit the classes, or a class whose weight depends on its number of samples has none of
            them or all.
    """
    row = LOSSES[options.name]
    weights = weigh_positives(options, class_counts, num_samples, classes)
    positive_weights = None if weights is None else ByClass(weights)
    return MultiLabelLoss(load_builder(row.several)(positive_weights, **select_taken(options, row)), None)


def build_each(positive_weights: ByClass | None, label_smoothing: float) -> PerSample:
    """Return the mean over classes of each class's binary cross-entropy.

    Labels are float32[n, K], 1 for present classes and 0 for others. Smoothing s turns them into 1 - s / 2 and s / 2,
    because each question has two answers, whatever the number of classes.

    Source: the weights are `pos_weight` of torch's BCEWithLogitsLoss, the smoothing Keras's BinaryCrossentropy.
    """

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        targets = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
        weights = None if positive_weights is None else positive_weights.on(logits.device)
        return binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=weights).mean(1)

    return compute


def weigh_positives(
    options: LossOptions, class_counts: npt.NDArray[np.int64], num_samples: int, classes: list[str]
) -> npt.NDArray[np.float64] | None:
    """Return float64[K], the weight of each class where it is present, relative to 1 where it is not; None if all are
    1.

    Source: balanced is the number of samples without the class over that of those with it, as the documentation of
    torch's BCEWithLogitsLoss advises: presence and absence of the class then have equal total weight.

    >>> weigh_positives(LossOptions(name="bce", class_weights="balanced"), np.array([1, 5]), 10, ["rain", "sun"])
    array([9., 1.])
    """
    if options.class_weights != "balanced":
        return weigh_classes(options, class_counts, classes)
    for name, count in zip(classes, class_counts.tolist(), strict=True):
        if count in (0, num_samples):
            raise UsageError(
                f"class '{name}' has {count:,} of {num_samples:,} samples in the training split, so that "
                "loss.class_weights=balanced has no weight for it; give a number for each class"
            )
    return (num_samples - class_counts) / class_counts
