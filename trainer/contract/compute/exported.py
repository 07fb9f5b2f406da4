"""Exports: what lies beside an exported file and says how to use it without this program."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from shards.errors import ShardError
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
"""Fields of the page that only the one beside the file has."""


class TensorFacts(BaseModel):
    """An input or output of the exported file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: str
    shape: list[str | int]
    """A name where any number will do."""
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
    """Of the bundle."""
    dataset: str | None
    recipe: str | None
    model: ModelSpec
    classes: list[str]
    """In the order of the logits."""
    display_names: list[str]
    decision: Decision
    """Its rule is the one that is applied, as `Decision.state_rule` says."""
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]
    preprocess: PreprocessSpec
    steps: list[str]
    """The same in words, with what no field says."""
    answer_steps: list[str] = []
    """What turns the outputs into the endpoint's answer, in words; empty in pages of earlier versions."""
    versions: dict[str, str]
    """Library versions that made it."""
    file: str = ""
    sha256: str = ""
    """Of the file."""
    script: str = ""
    """Program beside the file that answers with Pillow, numpy and onnxruntime alone; empty in earlier versions."""
    detector: str | None = None
    """File beside it with the means and the matrix that the out-of-distribution score needs, where `decision` has one;
    its sha256 stands there."""
    parity: dict[str, Parity] = {}
    """With the bundle, by the name of the pictures."""


def default_path(bundle: Path, kind: ExportKind) -> Path:
    """Return where an export of a bundle lies when nobody says otherwise."""
    return bundle / EXPORTS / f"model{ENDINGS[kind]}"


def page_path(file: Path) -> Path:
    """Return where the page of an exported file lies."""
    return file.with_name(f"{file.name}.json")


def script_path(file: Path) -> Path:
    """Return where the program of an exported file lies, which finds its page by its own name."""
    return file.with_name(f"{file.name}.py")


def detector_path(file: Path) -> Path:
    """Return where an exported file's copy of the bundle's out-of-distribution detector lies."""
    return file.with_name(f"{file.name}.ood.safetensors")


def find_stale(bundle: Path, decision: Decision) -> list[ExportKind]:
    """Return the kinds of exports in a bundle's folder that answer by another decision than the bundle's."""
    kinds = []
    for kind in ENDINGS:
        beside = page_path(default_path(bundle, kind))
        with contextlib.suppress(ShardError):  # who uses a damaged one is told what is wrong with it
            if beside.is_file() and read_page(beside, ExportPage, "export again").decision != decision.state_rule():
                kinds.append(kind)
    return kinds


def describe_stale(bundle: Path, decision: Decision) -> list[str]:
    """Return a sentence for each export of `find_stale`, with the command that makes it anew."""
    return [
        f"{default_path(bundle, kind)} and its program answer by another decision than the bundle now has; export "
        f"again: python -m trainer.export {shlex.quote(str(bundle))} --to {kind}"
        for kind in find_stale(bundle, decision)
    ]


def find_onnx(bundle: Path, weights_sha256: str) -> Path | None:
    """Return the ONNX file in a bundle's folder, None where there is none.

    Raises:
        ShardError: It is not whole, or belongs to other weights.
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
