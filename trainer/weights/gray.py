"""Convert a first layer from three channels to one gray channel, with equivalent outputs."""

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
    """Return the tensors with one-channel first layers, and a description of the changes.

    For a gray picture, three channels are normalised by different means and deviations, the one channel by those of
    `spec`. The weights compensate for the deviations; the layer's bias, or the batch normalisation after it, for the
    means. Only the border differs: padding is black for one model and the mean colour for the other.

    Args:
        tensors: Tensors by the backbone's names.
        backbone: Built from `spec`, with one input channel.
        spec: Has one mean and one deviation.
        trained: Mean and deviation that the weights were trained with; None: those of `spec`, in each channel.
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
            changes.append(f"{change}, but the layer rescales its weights: outputs change")
            continue
        shares = _per_channel([spec.std[0] / own for own in std], weight)
        narrowed[f"{layer}.weight"] = (weight.double() * shares).sum(dim=1, keepdim=True).to(weight.dtype)
        shifts = _per_channel([(spec.mean[0] - own) / dev for own, dev in zip(mean, std, strict=True)], weight)
        shift = (weight.double() * shifts).sum(dim=(1, 2, 3))
        is_kept = _shift_outputs(narrowed, backbone, layer, shift)
        changes.append(change if is_kept else f"{change}, but no bias can absorb the means: outputs are shifted")
    return narrowed, changes


def _per_channel(numbers: Sequence[float], weight: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=weight.device).view(1, -1, 1, 1)


def _standardises(layer: nn.Module) -> bool:
    """Return whether a convolution divides its weights by their deviation, which a sum over channels changes."""
    from timm.layers import ScaledStdConv2d, StdConv2d, StdConv2dSame
    from timm.layers.std_conv import ScaledStdConv2dSame

    return isinstance(layer, (ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame))


def _shift_outputs(tensors: Tensors, backbone: nn.Module, layer: str, shift: Tensor) -> bool:
    """Add float64[O] to a layer's output, through its bias or the running mean after it; False if it has neither."""
    if not shift.abs().max() > 0:
        return True
    norm = _find_norm(backbone, layer)
    for name, sign in ((f"{layer}.bias", 1), (f"{norm}.running_mean", -1)):
        if name in tensors and tensors[name].shape == shift.shape:
            tensors[name] = (tensors[name].double() + sign * shift).to(tensors[name].dtype)
            return True
    return False


def _find_norm(backbone: nn.Module, layer: str) -> str | None:
    """Return the name of the batch normalisation right after a layer."""
    held = [name for name, module in backbone.named_modules() if module._parameters or module._buffers]
    behind = held[held.index(layer) + 1 :][:1]
    found = [name for name in behind if isinstance(backbone.get_submodule(name), nn.modules.batchnorm._BatchNorm)]
    return found[0] if found else None
