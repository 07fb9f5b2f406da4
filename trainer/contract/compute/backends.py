"""Back ends: the ways to compute a bundle's model. PyTorch's are here, those for an ONNX file in modules beside it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shards.cli.table import load_builder
from shards.errors import UsageError
from trainer.contract.compute.outputs import Compute, FeatureClassifier
from trainer.contract.model.model import Classifier
from trainer.contract.model.names import BACKENDS, BackendName


@dataclass(frozen=True)
class Backend:
    """One way to compute a model."""

    name: BackendName
    compute: Compute


def make_backend(name: BackendName, model: Classifier, device: torch.device, file: Path | None = None) -> Backend:
    """Return a back end for a model in evaluation mode; it uses `torch.get_num_threads()` threads.

    Args:
        name: One of `names.BACKENDS`.
        model: The classifier, on `device`.
        device: The device of the model.
        file: The model as an ONNX file, for back ends with `of_a_file`.

    Raises:
        UsageError: The back end is not available on this machine or device.
        ShardError: The file cannot be read.
    """
    reason = explain_missing(name, device)
    if reason:
        raise UsageError(reason)
    row = BACKENDS[name]
    source = (file,) if row.of_a_file else (model, device)
    return Backend(name, load_builder(row.builder)(*source, **row.defaults))


def explain_missing(name: BackendName, device: torch.device) -> str | None:
    """Return a sentence that says why a back end is not available here; None if it is."""
    row, reason = BACKENDS[name], None
    if row.of_a_file and device.type != "cpu":
        others = [other for other, its in BACKENDS.items() if not its.of_a_file]
        reason = f"computes on the CPU, not on {device.type}; use {', '.join(others[:-1])} or {others[-1]} there"
    elif row.library and importlib.util.find_spec(row.library) is None:
        reason = f"needs {row.library}, which is not installed: pip install 'shardline[{row.extra}]'"
    elif row.missing:
        reason = load_builder(row.missing)(device)
    return f"back end {name} {reason}" if reason else None


def warm_up(backend: Backend, images: Tensor) -> None:
    """Run a back end on images uint8[B, C, S, S], B >= 1, until it is ready for batches of any size."""
    # torch.compile compiles once for one picture, once for a fixed number, and then once for any number.
    for size in (1, 2, 3):
        backend.compute(images[:1].repeat(size, 1, 1, 1))


def build_torch(model: Classifier, device: torch.device, compiled: bool, bf16: bool) -> Compute:
    """Return the PyTorch back end: eager or compiled, float32 or bf16 autocast, channels-last like the model."""
    module: Any = FeatureClassifier(model)
    if compiled:
        # Freezing folds BatchNorm and lays out the weights for the CPU once; on CUDA the compiler does this anyway.
        module = torch.compile(module, options={"freezing": True} if device.type == "cpu" else None)

    # Not in the caller's inference mode: freezing rejects inference tensors, and each mode would compile again.
    @torch.inference_mode(False)
    @torch.no_grad()
    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits, features = module(images.to(device))
        return logits.float().cpu(), features.float().cpu()

    return compute


def find_no_compiler(device: torch.device) -> str | None:
    """Return why a device has no compiler; None if it has one."""
    compiler = os.environ.get("CXX", "g++")
    if device.type != "cpu" or shutil.which(compiler):
        return None
    return f"needs a C++ compiler, and there is no {compiler}; install one"
