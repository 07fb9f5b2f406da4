"""Losses: the loss of a sample, and the weight of its class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, log_softmax, one_hot

from shards.cli.sentences import suggest
from shards.cli.table import load_builder
from shards.errors import UsageError
from trainer.recipes.options.choice import select_taken
from trainer.recipes.options.loss import LOSSES, LossOptions

PerSample = Callable[[Tensor, Tensor], Tensor]
"""Logits float32[n, K] and labels in the task's form -> unweighted losses float32[n]."""


class ByClass:
    """A number for each class, float32[K], cached on the last device used."""

    def __init__(self, numbers: npt.NDArray[np.float64]) -> None:
        self._numbers = torch.from_numpy(numbers).float()

    def on(self, device: torch.device) -> Tensor:
        self._numbers = self._numbers.to(device)
        return self._numbers


class Loss:
    """The loss of each sample, and the weight of its class; the caller takes the mean over samples.

    Args:
        per_sample: Function for the unweighted losses.
        class_weights: None if each class has weight 1.
    """

    def __init__(self, per_sample: PerSample, class_weights: ByClass | None) -> None:
        self.per_sample = per_sample
        self._class_weights = class_weights

    def blank_labels(self, size: int, _num_classes: int, /) -> Tensor:
        """Return placeholder labels int64[size], in the form of `per_sample`, for a trial step that tests memory."""
        return torch.zeros(size, dtype=torch.int64)

    def weigh(self, labels: Tensor) -> Tensor:
        """Return float32[n], the class weight of each sample."""
        if self._class_weights is None:
            return torch.ones(len(labels), device=labels.device)
        return self._class_weights.on(labels.device)[labels]


def build_loss(options: LossOptions, class_counts: npt.NDArray[np.int64], classes: list[str]) -> Loss:
    """Return the loss of a recipe for a dataset.

    Args:
        options: The recipe's loss options.
        class_counts: int64[K], samples of each class in the training split.
        classes: Class names.

    Raises:
        UsageError: Weights do not fit the classes, or a class without samples has a weight that depends on their
            number.
    """
    row = LOSSES[options.name]
    weights = weigh_classes(options, class_counts, classes)
    per_sample = load_builder(row.builder)(classes, **select_taken(options, row))
    return Loss(per_sample, None if weights is None else ByClass(weights))


def weigh_classes(
    options: LossOptions, class_counts: npt.NDArray[np.int64], classes: list[str]
) -> npt.NDArray[np.float64] | None:
    """Return float64[K], the weight of each class; None if all are 1.

    Source: balanced is scikit-learn's N / (K * n_c); effective is Cui et al. 2019, equation 5: (1 - beta) /
    (1 - beta ** n_c), scaled to a mean of 1.

    >>> weigh_classes(LossOptions(class_weights="balanced"), np.array([1, 3]), ["ants", "bees"])
    array([2.        , 0.66666667])
    """
    given = options.class_weights
    if given == "none":
        return None
    if isinstance(given, dict):
        return _weigh_by_name(given, classes)
    if isinstance(given, list):
        return _weigh_in_order(given, classes, "loss.class_weights")
    for name, count in zip(classes, class_counts, strict=True):
        if count == 0:
            raise UsageError(
                f"class '{name}' has 0 samples in the training split, so that loss.class_weights={given} has no weight "
                "for it; give a number for each class"
            )
    if given == "balanced":
        return np.asarray(class_counts.sum() / (len(classes) * class_counts))
    beta = options.effective_beta
    assert beta is not None  # LossOptions fills it in
    weights = (1 - beta) / -np.expm1(class_counts * np.log(beta))
    return np.asarray(weights * (len(classes) / weights.sum()))


def _weigh_by_name(given: dict[str, float], classes: list[str]) -> npt.NDArray[np.float64]:
    for name in given:
        if name not in classes:
            hint = suggest(name, classes, otherwise=f"; they are {_list_some(classes)}")
            raise UsageError(f"loss.class_weights names '{name}', which is not a class of the dataset{hint}")
    weights = np.array([given.get(name, 1.0) for name in classes])
    if not weights.any():
        raise UsageError(
            "loss.class_weights is 0 for every class, so that nothing is learned; set the weight of at least one class"
        )
    return weights


def _weigh_in_order(given: list[float], classes: list[str], option: str) -> npt.NDArray[np.float64]:
    if len(given) != len(classes):
        raise UsageError(
            f"{option} has {len(given)} numbers for {len(classes)} classes; give one for each of "
            f"{_list_some(classes)}, in this order"
        )
    return np.array(given)


def _list_some(classes: list[str]) -> str:
    return ", ".join(classes[:10]) + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")


# builders


def build_cross_entropy(_classes: list[str], label_smoothing: float) -> PerSample:
    return partial(cross_entropy, reduction="none", label_smoothing=label_smoothing)


def build_focal(classes: list[str], focal_gamma: float, focal_alpha: float | list[float] | None) -> PerSample:
    """Return the focal loss; `focal_alpha` multiplies the losses of each class.

    Raises:
        UsageError: The factors do not fit the classes.
    """
    if focal_alpha is None:
        return partial(compute_focal, gamma=focal_gamma)
    given = [1 - focal_alpha, focal_alpha] if isinstance(focal_alpha, float) else focal_alpha
    alpha = ByClass(_weigh_in_order(given, classes, "loss.focal_alpha"))
    return lambda logits, labels: compute_focal(logits, labels, focal_gamma) * alpha.on(labels.device)[labels]


def build_one_vs_all(_classes: list[str], label_smoothing: float) -> PerSample:
    return partial(compute_one_vs_all, smoothing=label_smoothing)


def compute_focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Return float32[n], -(1 - p) ** gamma * log(p), where p is the softmax probability of the label.

    Source: Lin et al. 2017, Focal Loss, equation 4, with softmax instead of sigmoid.
    """
    log_p = log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    # The clamp stops the gradient at p = 1, where a power below 1 has no finite one.
    missing = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    return -(missing**gamma) * log_p


def compute_one_vs_all(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return float32[n], the mean over classes of each class's binary cross-entropy against the others.

    labels: int64[n]. With smoothing, the targets are smoothing / K, plus 1 - smoothing for the label.

    Source: Wightman et al. 2021, ResNet strikes back, section 3.1; smoothed as in timm.
    """
    num_classes = logits.shape[1]
    targets = one_hot(labels, num_classes).to(logits.dtype) * (1 - smoothing) + smoothing / num_classes
    return binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
