"""Writing a classifier in a format that other programs read, and opening it as one of them would."""

from __future__ import annotations

import copy
import io
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from shards.errors import ShardError
from shards.files.disk import explain_disk
from trainer.contract.compute.exported import BESIDE, INPUT, OUTPUTS, ExportPage
from trainer.contract.compute.outputs import Compute, FeatureClassifier
from trainer.contract.model.backbone import one_line
from trainer.contract.model.names import ExportKind

EMBEDDED = "shardline.json"
"""Name of the page inside a `.pt2` and a TorchScript file."""
_ONNX_LIMIT = 2**31 - 1  # bytes of a protobuf message


def write_model(kind: ExportKind, model: FeatureClassifier, size: torch.Size, page: ExportPage, path: Path) -> None:
    """Write a model with its page inside; the batch may have any size.

    Args:
        kind: The format.
        model: On the CPU.
        size: Of a picture, [C, S, S].
        page: What goes into the file.
        path: The file.

    Raises:
        ShardError: The format cannot hold this model.
    """
    example = torch.zeros(2, *size, dtype=torch.uint8)
    writers = {"onnx": _write_onnx, "torch-export": _write_torch_export, "torchscript": _write_torchscript}
    try:
        with torch.no_grad():
            writers[kind](model, example, page, path)
    except (OSError, ShardError):
        raise
    except Exception as err:  # exporters raise anything
        why = f"torch {torch.__version__}: {one_line(err)}"
        if explain_disk(err) is not None:
            raise
        raise ShardError(f"{page.model.name} cannot be exported to {kind} ({why}); take another format") from err


def _write_onnx(model: FeatureClassifier, example: Tensor, page: ExportPage, path: Path) -> None:
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size > _ONNX_LIMIT:
        raise ShardError(f"the model has {size:,} bytes, one ONNX file holds {_ONNX_LIMIT:,}; take --to torch-export")
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None  # no file was named
    for name, value in _embed(page).items():
        program.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    program.save(path, external_data=False)


def _write_torch_export(model: FeatureClassifier, example: Tensor, page: ExportPage, path: Path) -> None:
    # Weights that lie channels-last would be saved with a warning about how they lie.
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    program = torch.export.export(plain, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    file = io.BytesIO()  # torch ends the process where the disk of a file is full
    torch.export.save(program, file, extra_files={EMBEDDED: json.dumps(_embed(page), ensure_ascii=False)})
    path.write_bytes(file.getbuffer())


def _write_torchscript(model: FeatureClassifier, example: Tensor, page: ExportPage, path: Path) -> None:
    with _deprecated_torchscript():
        traced = torch.jit.trace(model, example, check_trace=False)
        file = io.BytesIO()  # given a name, torch would not say what the disk refused
        torch.jit.save(traced, file, _extra_files={EMBEDDED: json.dumps(_embed(page), ensure_ascii=False)})
    path.write_bytes(file.getbuffer())


def _deprecated_torchscript() -> warnings.catch_warnings[None]:
    """Silence that PyTorch advises against TorchScript: whoever asks for it has a program that reads nothing else."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)


def _embed(page: ExportPage) -> dict[str, object]:
    return page.model_dump(mode="json", exclude=set(BESIDE))


def open_model(kind: ExportKind, path: Path) -> Compute:
    """Return a function that computes logits and features with a written file.

    Raises:
        UsageError: onnxruntime is not installed.
        ShardError: It cannot be read.
    """
    if kind == "onnx":
        from trainer.contract.compute.onnx_backend import open_onnx

        return open_onnx(path)
    if kind == "torch-export":
        with open(path, "rb") as file:
            module: Compute = torch.export.load(file).module()
    else:
        with _deprecated_torchscript():
            module = torch.jit.load(str(path))
    return torch.no_grad()(module)
