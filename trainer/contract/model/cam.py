"""Class activation maps for any backbone: which places in a picture speak for a class."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.contract.model.model import Classifier, split_outputs

Method = Literal["layer", "grad"]


@dataclass(frozen=True)
class _Seen:
    """Output of a module: features [B, ...], and their layout: channels first, channels last, or a sequence of tokens.

    prefix: How many tokens are not places in the picture, None if unknown.
    """

    features: Tensor
    layout: Literal["BCHW", "BHWC", "BNC"]
    prefix: int | None = None

    def to_maps(self, values: Tensor) -> Tensor:
        """Return values of the features' shape as [B, C, H, W], without tokens that are not places in the picture."""
        if self.layout == "BCHW":
            return values
        if self.layout == "BHWC":
            return values.permute(0, 3, 1, 2)
        side = _find_side(values.shape[1], self.prefix)
        patches = values[:, values.shape[1] - side * side :]  # class tokens and registers come first
        return patches.transpose(1, 2).unflatten(2, (side, side))


def _find_side(tokens: int, prefix: int | None) -> int:
    """Return the side of the square grid of places in a number of tokens.

    If the prefix is unknown or does not leave a square, the largest possible square is taken. That is right unless the
    grid is small, because there are few class tokens and registers.

    >>> _find_side(197, 1), _find_side(2 * 2 + 5, 5), _find_side(49, None)
    (14, 2, 7)
    """
    places = tokens - (prefix or 0)
    side = isqrt(max(places, 0))
    return side if places > 0 and side * side == places else isqrt(tokens)


def _count_prefix(backbone: nn.Module) -> int | None:
    """Return how many tokens precede those of places: timm's models state it, torchvision's have one."""
    for module in backbone.modules():
        number = getattr(module, "num_prefix_tokens", 1 if hasattr(module, "class_token") else None)
        if isinstance(number, int):
            return number
    return None


def explain(model: Classifier, images: Tensor, classes: Tensor, method: Method = "layer") -> Tensor:
    """Return float32[B, S, S], 0..1: how much each place speaks for a class; the maximum of each picture is 1.

    The features are those of the last layer that still has places and that affects the answer: the last feature maps of
    a convolutional network, the tokens that enter the last attention of a vision transformer. If nothing speaks for the
    class, a picture's map is 0 throughout.

    Args:
        model: In evaluation mode; the gradients of its weights are not changed.
        images: uint8 or float32[B, C, S, S] in 0..255.
        classes: int64[B], the class to explain, one per picture.
    method: layer weighs each place of each channel by its own gradient, where that is positive; grad weighs each
        channel by its mean gradient, which is coarser.

    Source: Jiang et al. 2021, LayerCAM; Selvaraju et al. 2017, Grad-CAM, which is Zhou et al.'s CAM for a linear head
    behind average pooling.
    """
    with torch.inference_mode(False), torch.enable_grad():
        seen, logits = _watch(model, images.clone())
        score = logits.gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(score, [each.features for each in seen], allow_unused=True)
    for each, gradient in zip(reversed(seen), reversed(gradients), strict=True):
        # Place tokens after the last block of a transformer are unused: only the class token is read.
        if gradient is None or not bool(each.to_maps(gradient).any()):
            continue
        maps = _weigh(each.to_maps(each.features.detach()), each.to_maps(gradient), method)
        return _scale(maps, images.shape[-1])
    return torch.zeros((len(images), *images.shape[-2:]), device=images.device)


def _watch(model: Classifier, images: Tensor) -> tuple[list[_Seen], Tensor]:
    """Return the module outputs that have places, in computation order, and the logits float32[B, K]."""
    seen: list[_Seen] = []
    prefix = _count_prefix(model.backbone)

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        layout = _find_layout(output) if isinstance(output, Tensor) and output.requires_grad else None
        if layout:
            seen.append(_Seen(output, layout, prefix))

    handles = [module.register_forward_hook(keep) for module in model.backbone.modules()]
    try:
        # requires_grad on the picture lets gradients reach the features through frozen weights.
        logits, _ = split_outputs(model(images.float().requires_grad_()))
    finally:
        for handle in handles:
            handle.remove()
    return seen, logits


def _find_layout(output: Tensor) -> Literal["BCHW", "BHWC", "BNC"] | None:
    """Return the layout of places in a module's output; None if it has none."""
    if output.ndim == 3 and output.shape[1] >= 4:
        return "BNC"
    if output.ndim != 4:
        return None
    if output.shape[2] == output.shape[3] > 1:
        return "BCHW"
    return "BHWC" if output.shape[1] == output.shape[2] > 1 else None


def _weigh(features: Tensor, gradients: Tensor, method: Method) -> Tensor:
    """Return float32[B, H, W], how much each place speaks for the class."""
    if method == "layer":
        # For non-negative features, as in the paper, this is relu(gradient) * feature.
        return (gradients * features).clamp(min=0).sum(dim=1).float()
    return (gradients.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).clamp(min=0).float()


def _scale(maps: Tensor, side: int) -> Tensor:
    """Return float32[B, S, S]: maps enlarged and scaled to a maximum of 1."""
    large = functional.interpolate(maps[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    return large / large.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(large.dtype).tiny)
