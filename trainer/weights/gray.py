"""A first layer of three channels made one of gray pictures, behind which nothing changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.contract.model.backbone import find_first_convolutions
from trainer.contract.model.model import ModelSpec
from trainer.weights.expectation import Expectation
from trainer.weights.read import Tensors


def narrow_first_layers(
    tensors: Tensors, backbone: nn.Module, spec: ModelSpec, trained: Expectation | None
) -> tuple[Tensors, list[str]]:
    """Return the tensors with the first layers of one channel, and what was done, for people.

    Three channels of one gray picture are normalised each by its own mean and deviation, the one channel by `spec`'s.
    The weights make up for the deviations, and the layer's bias for the means, or the batch normalisation behind it.
    What is left is the border, where padding is black to the one model and the mean colour to the other.

    Args:
        tensors: By the names of the backbone.
        backbone: Built by `spec`, whose pictures have one channel.
        spec: With one mean and one deviation.
        trained: Whose mean and deviation the tensors were trained with; None: those of `spec`, in each channel.
    """
    narrowed, changes = dict(tensors), []
    mean, std = (trained.mean, trained.std) if trained else (spec.mean * 3, spec.std * 3)
    for layer in find_first_convolutions(backbone):
        weight = tensors.get(f"{layer}.weight")
        if weight is None or weight.ndim != 4 or weight.shape[1] != 3 or not weight.is_floating_point():
            continue
        change = f"{layer}.weight summed over its channels"
        if _standardises(backbone.get_submodule(layer)):
            narrowed[f"{layer}.weight"] = weight.sum(dim=1, keepdim=True)
            changes.append(f"{change}, which the layer scales anew: its outputs are not those of three channels")
            continue
        shares = _per_channel([spec.std[0] / own for own in std], weight)
        narrowed[f"{layer}.weight"] = (weight.double() * shares).sum(dim=1, keepdim=True).to(weight.dtype)
        shifts = _per_channel([(spec.mean[0] - own) / dev for own, dev in zip(mean, std, strict=True)], weight)
        shift = (weight.double() * shifts).sum(dim=(1, 2, 3))
        is_kept = _shift_outputs(narrowed, backbone, layer, shift)
        changes.append(change if is_kept else f"{change}, whose means have no bias to go to: outputs are shifted")
    return narrowed, changes


def _per_channel(numbers: Sequence[float], weight: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=weight.device).view(1, -1, 1, 1)


def _standardises(layer: nn.Module) -> bool:
    """Say whether a convolution divides its weights by their own spread, which a sum over channels changes."""
    from timm.layers import ScaledStdConv2d, StdConv2d, StdConv2dSame
    from timm.layers.std_conv import ScaledStdConv2dSame

    return isinstance(layer, (ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame))


def _shift_outputs(tensors: Tensors, backbone: nn.Module, layer: str, shift: Tensor) -> bool:
    """Add float64[O] to what a layer gives, in its bias or in the running mean behind it; False where neither is."""
    if not shift.abs().max() > 0:
        return True
    norm = _find_norm(backbone, layer)
    for name, sign in ((f"{layer}.bias", 1), (f"{norm}.running_mean", -1)):
        if name in tensors and tensors[name].shape == shift.shape:
            tensors[name] = (tensors[name].double() + sign * shift).to(tensors[name].dtype)
            return True
    return False


def _find_norm(backbone: nn.Module, layer: str) -> str | None:
    """Return the name of the batch normalisation right behind a layer."""
    held = [name for name, module in backbone.named_modules() if module._parameters or module._buffers]
    behind = held[held.index(layer) + 1 :][:1]
    found = [name for name in behind if isinstance(backbone.get_submodule(name), nn.modules.batchnorm._BatchNorm)]
    return found[0] if found else None
