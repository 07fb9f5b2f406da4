"""Exports: the metadata beside an exported file, which describes how to use it without this program."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_file
from shards.files.versioned import read_page
from trainer.contract.compute.parity import Parity
from trainer.contract.decision.decision import Decision
from trainer.contract.model.model import ModelSpec
from trainer.contract.model.names import EXPORTS, ExportKind
from trainer.contract.preprocess import PreprocessSpec

ENDINGS: Final[dict[ExportKind, str]] = {"onnx": ".onnx", "torch-export": ".pt2", "torchscript": ".pt"}
INPUT, OUTPUTS = "images", ("logits", "features")
BESIDE: Final = frozenset({"file", "sha256", "script", "detector", "parity"})
"""Fields that only the metadata beside the file has."""


class TensorFacts(BaseModel):
    """An input or output of the exported file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: str
    shape: list[str | int]
    """A name stands for a dimension of any size."""
    meaning: str


class ExportPage(BaseModel):
    """The content of `FILE.json` beside an exported file; all but `BESIDE` also stands in the file itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["shardline-export"] = "shardline-export"
    version: Literal[1] = 1
    kind: ExportKind
    bundle: str
    """Fingerprint of the bundle."""
    weights_sha256: str
    """Version of the bundle format."""
    dataset: str | None
    recipe: str | None
    model: ModelSpec
    classes: list[str]
    """Class names in the order of the logits."""
    display_names: list[str]
    decision: Decision
    """With the rule that is applied, see `Decision.state_rule`."""
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]
    preprocess: PreprocessSpec
    steps: list[str]
    """The preprocessing in words, with details that no field has."""
    answer_steps: list[str] = []
    """How to turn the outputs into the endpoint's answer, in words; empty in exports of earlier versions."""
    versions: dict[str, str]
    """Versions of the libraries that made it."""
    file: str = ""
    sha256: str = ""
    """sha256 of the exported file."""
    script: str = ""
    """Name of the program beside the file that needs Pillow, numpy and onnxruntime alone; empty in earlier versions."""
    detector: str | None = None
    """Name of the file beside it with the means and matrix for the out-of-distribution score, if `decision` has one;
    `decision` has its sha256."""
    parity: dict[str, Parity] = {}
    """Parity with the bundle, by name of the set of pictures."""


def default_path(bundle: Path, kind: ExportKind) -> Path:
    """Return the default path of an export of a bundle."""
    return bundle / EXPORTS / f"model{ENDINGS[kind]}"


def page_path(file: Path) -> Path:
    """Return the path of an exported file's metadata."""
    return file.with_name(f"{file.name}.json")


def script_path(file: Path) -> Path:
    """Return the path of an exported file's program, which finds the metadata by its own file name."""
    return file.with_name(f"{file.name}.py")


def detector_path(file: Path) -> Path:
    """Return the path of an exported file's copy of the bundle's out-of-distribution detector."""
    return file.with_name(f"{file.name}.ood.safetensors")


def find_stale(bundle: Path, decision: Decision) -> list[ExportKind]:
    """Return the kinds of exports in a bundle's folder that use another decision than the bundle."""
    kinds = []
    for kind in ENDINGS:
        beside = page_path(default_path(bundle, kind))
        with contextlib.suppress(ShardError):  # using a damaged export raises its own error
            if beside.is_file() and read_page(beside, ExportPage, "export again").decision != decision.state_rule():
                kinds.append(kind)
    return kinds


def describe_stale(bundle: Path, decision: Decision) -> list[str]:
    """Return a sentence for each export of `find_stale`, with the command that recreates it."""
    return [
        f"{default_path(bundle, kind)} and its program use another decision than the bundle now has; export "
        f"again: python -m trainer.export {shlex.quote(str(bundle))} --to {kind}"
        for kind in find_stale(bundle, decision)
    ]


def require_onnx(bundle: Path, weights_sha256: str, backend: str) -> Path:
    """Return the ONNX file in a bundle's folder, for a back end that computes with it.

    Raises:
        UsageError: There is none.
        ShardError: Like `find_onnx`.
    """
    file = find_onnx(bundle, weights_sha256)
    if file is None:
        raise UsageError(
            f"back end {backend} runs an ONNX file, and {bundle / EXPORTS} has none; make one with "
            f"python -m trainer.export {bundle} --to onnx"
        )
    return file


def find_onnx(bundle: Path, weights_sha256: str) -> Path | None:
    """Return the ONNX file in a bundle's folder, None if there is none.

    Raises:
        ShardError: The file is damaged, or was exported from other weights.
    """
    path = default_path(bundle, "onnx")
    beside = page_path(path)
    if not beside.is_file():
        return None
    remedy = f"export again: python -m trainer.export {bundle} --to onnx"
    page = read_page(beside, ExportPage, remedy)
    if page.weights_sha256 != weights_sha256:
        raise ShardError(f"{path} was exported from other weights than the bundle has; {remedy}")
    if not path.is_file() or fingerprint_file(path) != page.sha256:
        raise ShardError(f"{path}: sha256 differs from {beside.name} beside it; {remedy}")
    return path
