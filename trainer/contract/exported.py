"""Exports: what lies beside an exported file and says how to use it without this program."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from shards.errors import ShardError
from shards.fingerprint import fingerprint_file
from shards.pages import read_page
from trainer.contract.decision import Decision
from trainer.contract.model import ModelSpec
from trainer.contract.names import ExportKind
from trainer.contract.parity import Parity
from trainer.contract.preprocess import PreprocessSpec

ENDINGS: Final[dict[ExportKind, str]] = {"onnx": ".onnx", "torch-export": ".pt2", "torchscript": ".pt"}
INPUT, OUTPUTS = "images", ("logits", "features")
FOLDER = "exports"
"""Of a bundle."""


class TensorFacts(BaseModel):
    """An input or output of the exported file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: str
    shape: list[str | int]
    """A name where any number will do."""
    meaning: str


class ExportPage(BaseModel):
    """The content of `FILE.json` beside an exported file; all but the last three also stands in the file itself."""

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
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]
    preprocess: PreprocessSpec
    steps: list[str]
    """The same in words."""
    versions: dict[str, str]
    """Library versions that made it."""
    file: str = ""
    sha256: str = ""
    """Of the file."""
    parity: dict[str, Parity] = {}
    """With the bundle, by the name of the pictures."""


def describe_tensors(spec: PreprocessSpec, num_classes: int, num_features: int) -> dict[str, list[TensorFacts]]:
    """Return `inputs` and `outputs` of an export."""
    colours = "RGB, channels first" if spec.channels == 3 else "luminance"
    images = TensorFacts(
        name=INPUT,
        dtype="uint8",
        shape=["batch", spec.channels, spec.size, spec.size],
        meaning=f"pictures after the steps: {colours}, 0..255; normalisation is inside the model",
    )
    meanings = ("a number for each class, before softmax", "what enters the model's head")
    outputs = [
        TensorFacts(name=name, dtype="float32", shape=["batch", width], meaning=meaning)
        for name, width, meaning in zip(OUTPUTS, (num_classes, num_features), meanings, strict=True)
    ]
    return {"inputs": [images], "outputs": outputs}


def describe_steps(spec: PreprocessSpec) -> list[str]:
    """Return, in words, what turns a picture file into the model's input.

    >>> describe_steps(PreprocessSpec(size=64))[1]
    'resize both sides to 64 pixels, the aspect ratio is not kept; bilinear, antialiased'
    """
    steps = ["decode to 8-bit RGB: upright by EXIF, transparency over " + f"RGB {spec.decode.background}"]
    if spec.decode.gray_range is not None:
        steps[0] += ", of deep pictures {:g} becomes 0 and {:g} 255".format(*spec.decode.gray_range)
    if spec.max_side is not None:
        steps.append(f"shrink a picture whose longer side is above {spec.max_side} pixels to that side")
    if spec.channels == 1:
        steps.append("take the luminance: 0.2989 R + 0.587 G + 0.114 B")
    how = f"{spec.interpolation}, antialiased"
    if spec.policy == "stretch":
        steps.append(f"resize both sides to {spec.size} pixels, the aspect ratio is not kept; {how}")
    elif spec.policy == "crop":
        shorter = max(spec.resize or spec.size, spec.size)
        rounded = "down" if spec.rounding == "down" else "to the nearest"
        steps.append(f"resize the shorter side to {shorter} pixels and the longer one in proportion, rounded {rounded}")
        steps[-1] += f"; {how}"
        steps.append(f"take the centre square of {spec.size} pixels")
    else:
        steps.append(f"resize the longer side to {spec.size} pixels and the shorter one in proportion; {how}")
        steps.append(f"pad to a square of {spec.size} pixels with the value {spec.fill}, the picture in its centre")
    return [*steps, "channels first, uint8, 0..255; do not normalise: the model does"]


def default_path(bundle: Path, kind: ExportKind) -> Path:
    """Return where an export of a bundle lies when nobody says otherwise."""
    return bundle / FOLDER / f"model{ENDINGS[kind]}"


def page_path(file: Path) -> Path:
    """Return where the page of an exported file lies."""
    return file.with_name(f"{file.name}.json")


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
