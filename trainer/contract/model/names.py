"""Names that users type: models and their library names, back ends, export formats. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from pydantic import BeforeValidator

from shards.cli.table import Row, Table
from shards.errors import UsageError

TIMM_PREFIX: Final = "timm/"


@dataclass(frozen=True)
class BackendRow(Row):
    """A back end. Its builder takes the model and its device, or a file, and `defaults`."""

    of_a_file: bool = False
    """Whether it runs the bundle's ONNX file, on the CPU."""
    library: str = ""
    """Module of an optional library that it needs."""
    extra: str = ""
    """The extra of this package that installs the library."""
    half: bool = False
    """Whether it computes in 16 bits, for which the parity tolerance is wider."""
    missing: str = ""
    """Function that returns why a device lacks it, to follow the name in a sentence, or None if it is available."""


BACKENDS: Final = Table(
    "back ends",
    BackendRow(
        "eager", "PyTorch",
        "trainer.contract.compute.backends:build_torch", {"compiled": False, "bf16": False},
    ),
    BackendRow(
        "bf16", "PyTorch under bfloat16 autocast",
        "trainer.contract.compute.backends:build_torch", {"compiled": False, "bf16": True}, half=True,
    ),
    BackendRow(
        "compiled", "torch.compile",
        "trainer.contract.compute.backends:build_torch", {"compiled": True, "bf16": False},
        missing="trainer.contract.compute.backends:find_no_compiler",
    ),
    BackendRow(
        "compiled-bf16", "torch.compile under bfloat16 autocast",
        "trainer.contract.compute.backends:build_torch", {"compiled": True, "bf16": True}, half=True,
        missing="trainer.contract.compute.backends:find_no_compiler",
    ),
    BackendRow(
        "onnx", "ONNX Runtime",
        "trainer.contract.compute.onnx_backend:open_onnx",
        of_a_file=True, library="onnxruntime", extra="onnx",
    ),
    BackendRow(
        "openvino", "OpenVINO",
        "trainer.contract.compute.openvino_backend:open_openvino", {"bf16": False},
        of_a_file=True, library="openvino", extra="openvino",
    ),
    BackendRow(
        "openvino-bf16", "OpenVINO in bfloat16",
        "trainer.contract.compute.openvino_backend:open_openvino", {"bf16": True}, half=True,
        of_a_file=True, library="openvino", extra="openvino",
        missing="trainer.contract.compute.openvino_backend:find_no_bf16",
    ),
)  # fmt: skip
"""Ways to compute a bundle's model."""
BackendName = Annotated[str, BeforeValidator(BACKENDS.check)]
EXPORTS: Final = "exports"
"""Folder of a bundle for exported files."""
AUTO: Final = "auto"
"""The name for the back end recorded for this kind of CPU, or eager if there is none."""


def check_backend(name: object) -> str:
    """Return the name of a back end, or `auto`; raises ValueError like `Table.check`."""
    return BACKENDS.check(name, AUTO)


ExportKind = Literal["onnx", "torch-export", "torchscript"]
EXPORT_KINDS: Final[tuple[ExportKind, ...]] = get_args(ExportKind)

ALIASES: Final = {
    "mobilenetv3": "mobilenet_v3_large",
    "shufflenetv2": "shufflenet_v2_x1_0",
    "adv-efficientnet-b2": "timm/tf_efficientnet_b2.ap_in1k",  # AdvProp: normalises by x*2-1, as in its metadata
    "se_resnext50_32x4d": "timm/seresnext50_32x4d",
    "xception": "timm/legacy_xception",  # Chollet's, 0.5/0.5
    "convnext": "convnext_base",
    "convnext-tiny": "convnext_tiny",
    "EN-B0": "efficientnet_b0",
}
"""Aliases from tutorials, and the models they stand for."""


def resolve_alias(name: str) -> str:
    """Return the library's name of a model: `name` itself if it is not an alias.

    >>> resolve_alias("convnext-tiny"), resolve_alias("resnet18")
    ('convnext_tiny', 'resnet18')
    """
    return ALIASES.get(name, name)


def unknown_model(name: str, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown model name; it suggests similar ones."""
    from shards.cli.sentences import suggest  # late: a replica needs it for no request

    names = ": names are torchvision builders (resnet18) or timm/NAME"
    hint = suggest(name, [*known, *ALIASES], before=": ", otherwise=names, most=3)
    return UsageError(f"no model '{name}'{hint}; `python -m trainer.models` lists all")
