"""Names that people type: models, and what the libraries call them; back ends; formats. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

from shards.errors import UsageError

TIMM_PREFIX: Final = "timm/"

BackendName = Literal["eager", "bf16", "compiled", "compiled-bf16", "onnx", "openvino", "openvino-bf16"]
BACKENDS: Final[tuple[BackendName, ...]] = get_args(BackendName)
"""Ways to compute a bundle's model."""
AUTO: Final = "auto"
"""The back end that was chosen for this kind of CPU, or eager."""
ExportKind = Literal["onnx", "torch-export", "torchscript"]
EXPORT_KINDS: Final[tuple[ExportKind, ...]] = get_args(ExportKind)

ALIASES: Final = {
    "mobilenetv3": "mobilenet_v3_large",
    "shufflenetv2": "shufflenet_v2_x1_0",
    "adv-efficientnet-b2": "timm/tf_efficientnet_b2.ap_in1k",  # AdvProp: x*2-1, which its metadata says
    "se_resnext50_32x4d": "timm/seresnext50_32x4d",
    "xception": "timm/legacy_xception",  # Chollet's, 0.5/0.5
    "convnext": "convnext_base",
    "convnext-tiny": "convnext_tiny",
    "EN-B0": "efficientnet_b0",
}
"""Names that tutorials use, and the models that they mean."""


def resolve_alias(name: str) -> str:
    """Return the library's name of a model, which is `name` itself where it is no alias.

    >>> resolve_alias("convnext-tiny"), resolve_alias("resnet18")
    ('convnext_tiny', 'resnet18')
    """
    return ALIASES.get(name, name)


def unknown_model(name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that no library has; it suggests near ones."""
    from shards.cli.sentences import suggest  # late: a replica needs it for no request

    names = ": names are torchvision builders (resnet18) or timm/NAME"
    hint = suggest(name, [*known, *ALIASES], before=": ", otherwise=names, most=3)
    return UsageError(f"no model '{name}'{hint}; `python -m trainer.models` lists all")
