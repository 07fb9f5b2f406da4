"""Backbones by name: torchvision's builders and timm's models, with a head for K classes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import torch
import torchvision.models
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shards.errors import UsageError
from trainer.contract.model.head import replace_heads
from trainer.contract.model.names import TIMM_PREFIX, resolve_alias, unknown_model

Module = TypeVar("Module", bound=nn.Module)

OWN_CLASSES: Final = 1000
"""Outputs of the original head, before it is replaced."""
_INITIALISED = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}
_BOTTLENECKS = ("resnet50", "resnet101", "resnet152", "resnext", "wide_resnet")
"""ResNets whose residual branches start at zero.

By torchvision's default an untrained one has 2,048 features whose squares are six times as large, and a head on them
diverges at the learning rates of its recipes. Smaller ResNets with 512 features need no zero start and learn faster.
Source: Goyal et al. 2017, Accurate, Large Minibatch SGD, 5.1.
"""


def build_backbone(
    name: str,
    num_classes: int | None,
    in_channels: int = 3,
    image_size: int | None = None,
    dropout: float | None = None,
) -> nn.Module:
    """Return an untrained backbone.

    Args:
        name: A torchvision builder, `timm/NAME`, or an alias.
        num_classes: Outputs of the head; None keeps the head of the architecture, with `OWN_CLASSES` outputs.
        in_channels: 1 or 3; for 1 the first convolution takes one channel.
        image_size: Side of the input, pixels; None: the architecture's default.
        dropout: Dropout before the head; None: the architecture's default.

    Raises:
        UsageError: No such model, or the model cannot be built for that size.
    """
    name = resolve_alias(name)
    build = _find_builder(name)
    options = _size_options(name, image_size) if image_size else {}
    try:
        backbone = build(in_channels, options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as err:
        if not options:
            raise
        raise UsageError(
            f"{name} cannot be built for pictures of {image_size} pixels ({one_line(err)}); "
            f"use its own size, {own_size(name)}"
        ) from err
    if num_classes is not None:
        replace_heads(backbone, num_classes, dropout)
    return backbone


def _find_builder(name: str) -> Callable[[int, dict[str, Any]], nn.Module]:
    if name.startswith(TIMM_PREFIX):
        check_timm_name(name)
        return functools.partial(_build_timm, name.removeprefix(TIMM_PREFIX))
    if name not in list_torchvision():
        raise unknown_model(name, list_torchvision())
    return functools.partial(_build_torchvision, name)


def list_torchvision() -> list[str]:
    """Return the names of torchvision's classification builders."""
    return [str(name) for name in torchvision.models.list_models(module=torchvision.models)]


def check_timm_name(name: str) -> None:
    """Refuse a `timm/NAME[.TAG]` that timm does not have.

    Raises:
        UsageError: No such model, a tag that it does not have, or a name that timm has retired.
    """
    import timm  # here and below: half a second that models of torchvision need not wait for

    bare = name.removeprefix(TIMM_PREFIX)
    old_names = timm.models.get_deprecated_models()
    if bare in old_names:
        raise UsageError(f"timm has renamed {bare} to {old_names[bare]}; write model={TIMM_PREFIX}{old_names[bare]}")
    architecture, _, tag = bare.partition(".")
    if not timm.is_model(architecture) or architecture in old_names:
        raise unknown_model(name, [TIMM_PREFIX + known for known in timm.list_models()])
    if tag and bare not in timm.list_pretrained():
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        raise UsageError(
            f"timm has no weights '{tag}' of {architecture}; it has {', '.join(tags) or 'none'}, "
            f"or write {TIMM_PREFIX}{architecture} without a tag"
        )


def find_timm_cfg(name: str) -> Any:
    """Return timm's metadata of `timm/NAME[.TAG]`, None if it has none; raises UsageError for an unknown tag."""
    import timm

    bare = name.removeprefix(TIMM_PREFIX)
    if "." in bare:
        check_timm_name(name)
    return timm.get_pretrained_cfg(bare)


def _build_timm(name: str, in_channels: int, options: dict[str, Any]) -> nn.Module:
    import timm

    # 1,000 even if the published model has no head: replacing the head needs one.
    model: nn.Module = timm.create_model(name, num_classes=OWN_CLASSES, in_chans=in_channels, **options)
    return model


def _build_torchvision(name: str, in_channels: int, options: dict[str, Any]) -> nn.Module:
    options = options | _INITIALISED.get(name, {})
    if name.startswith(_BOTTLENECKS):
        options["zero_init_residual"] = True
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    if in_channels != 3:
        for first in find_first_convolutions(model):
            parent, _, last = first.rpartition(".")
            setattr(model.get_submodule(parent), last, _narrow(model.get_submodule(first), in_channels))
    return model


def find_first_convolutions(backbone: nn.Module) -> list[str]:
    """Return the names of the convolutions that take the picture."""
    cfg = getattr(backbone, "pretrained_cfg", None)
    if cfg is None:
        return [next(name for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d))]
    said = cfg.get("first_conv") or ()
    return [said] if isinstance(said, str) else list(said)


def _narrow(old: nn.Module, in_channels: int) -> nn.Conv2d:
    """Return the convolution `old` for fewer channels, with weights that keep the variance of its outputs."""
    assert isinstance(old, nn.Conv2d)
    shape: Any = {name: getattr(old, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    new = nn.Conv2d(in_channels, old.out_channels, **shape, bias=old.bias is not None, device=old.weight.device)
    with torch.no_grad():
        # With a third of the inputs, weights are scaled by the root of 3, as in the usual initialisations.
        new.weight.copy_(old.weight[:, :in_channels] * (old.in_channels / in_channels) ** 0.5)
        if old.bias is not None:
            new.bias = old.bias
    return new


def _size_options(name: str, size: int) -> dict[str, Any]:
    """Return the options that build a model of fixed input size for another size."""
    if name.startswith("vit_"):
        return {"image_size": size}
    if name.startswith("maxvit_"):
        return {"input_size": (size, size)}
    if name.startswith(TIMM_PREFIX) and is_size_fixed(name):
        return {"img_size": size}
    return {}


def is_size_fixed(name: str) -> bool:
    """Return whether a model has a fixed input size."""
    if not name.startswith(TIMM_PREFIX):
        return name.startswith(("vit_", "maxvit_"))
    cfg = find_timm_cfg(name)
    return bool(cfg and cfg.fixed_input_size)


def own_size(name: str) -> int:
    """Return the side of the model's default input, pixels."""
    if name.startswith(TIMM_PREFIX):
        cfg = find_timm_cfg(name)
        return int(cfg.input_size[-1]) if cfg else 224
    weights = torchvision.models.get_model_weights(name).DEFAULT
    return int(weights.transforms().crop_size[0])


_DRAWS: Final = {
    getattr(torch.Tensor, name)
    for name in ("normal_", "uniform_", "fill_", "zero_", "mul_", "add_", "sub_", "div_", "clamp_", "erfinv_")
}


class _EmptyOnMeta(TorchFunctionMode):
    """Put every `torch.empty`, which layers use to allocate weights, on the meta device.

    `with torch.device("meta")` affects all constructors, and then models that compute their widths with tensors
    (torchvision's regnets) fail.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func in _DRAWS and args[0].is_meta:  # nothing to fill; skipping it halves the time
            return args[0]
        if func is torch.empty and options.get("device") is None:
            options["device"] = "meta"
        return func(*args, **options)


def build_without_memory(build: Callable[[], Module]) -> Module:
    """Return the module that `build` makes, on the meta device: shapes without memory for weights."""
    try:
        with _EmptyOnMeta():
            return build().to("meta")
    except (RuntimeError, UsageError):  # timm's hybrid models run a forward pass in their constructors
        with torch.device("meta"):
            return build()


def one_line(err: BaseException) -> str:
    """Return the first line of an error."""
    return (str(err).splitlines() or [type(err).__name__])[0][:200]


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], strict: bool = True) -> None:
    """Load tensors by name, treating them as in the current layout of their layers.

    safetensors does not store layer versions, and mnasnet rejects tensors without a version.
    """
    content = module.state_dict()
    metadata = content._metadata  # type: ignore[attr-defined]
    content.clear()
    content.update(tensors)
    content._metadata = metadata  # type: ignore[attr-defined]
    module.load_state_dict(content, strict=strict)
