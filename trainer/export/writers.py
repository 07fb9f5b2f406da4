"""Write a classifier in an export format, and open the file as another program would."""

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
"""Name of the metadata inside a `.pt2` and a TorchScript file."""
_ONNX_LIMIT = 2**31 - 1  # bytes of a protobuf message


def write_model(kind: ExportKind, model: FeatureClassifier, size: torch.Size, page: ExportPage, path: Path) -> None:
    """Write a model with its metadata inside; the batch size is free.

    Args:
        kind: The format.
        model: On the CPU.
        size: Size of a picture, [C, S, S].
        page: The metadata for the file.
        path: The file.

    Raises:
        ShardError: The format does not support this model.
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
        raise ShardError(f"{page.model.name} cannot be exported to {kind} ({why}); use another format") from err


def _write_onnx(model: FeatureClassifier, example: Tensor, page: ExportPage, path: Path) -> None:
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size > _ONNX_LIMIT:
        raise ShardError(f"the model has {size:,} bytes, an ONNX file at most {_ONNX_LIMIT:,}; use --to torch-export")
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None  # set because no file was given
    for name, value in _embed(page).items():
        program.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    program.save(path, external_data=False)


def _write_torch_export(model: FeatureClassifier, example: Tensor, page: ExportPage, path: Path) -> None:
    # Saving channels-last weights would log a warning about their layout.
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    program = torch.export.export(plain, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    file = io.BytesIO()  # torch aborts the process if the disk is full
    torch.export.save(program, file, extra_files={EMBEDDED: json.dumps(_embed(page), ensure_ascii=False)})
    path.write_bytes(file.getbuffer())


def _write_torchscript(model: FeatureClassifier, example: Tensor, page: ExportPage, path: Path) -> None:
    with _deprecated_torchscript():
        traced = torch.jit.trace(model, example, check_trace=False)
        file = io.BytesIO()  # with a file name, torch would hide the disk error
        torch.jit.save(traced, file, _extra_files={EMBEDDED: json.dumps(_embed(page), ensure_ascii=False)})
    path.write_bytes(file.getbuffer())


def _deprecated_torchscript() -> warnings.catch_warnings[None]:
    """Silence PyTorch's deprecation warning of TorchScript: users who choose it need it for another program."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)


def _embed(page: ExportPage) -> dict[str, object]:
    return page.model_dump(mode="json", exclude=set(BESIDE))


def open_model(kind: ExportKind, path: Path) -> Compute:
    """Return a function that computes logits and features with a written file.

    Raises:
        UsageError: onnxruntime is not installed.
        ShardError: The file cannot be read.
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
