"""Back ends: the ways in which a bundle's model can be computed. PyTorch's are here, those of an ONNX file beside."""

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
    """Return a back end for a model in evaluation mode; it computes with `torch.get_num_threads()` threads.

    Args:
        name: One of `names.BACKENDS`.
        model: The classifier, on `device`.
        device: Where it is.
        file: The model as an ONNX file, for those `of_a_file`.

    Raises:
        UsageError: This machine or device does not have it.
        ShardError: The file cannot be read.
    """
    reason = explain_missing(name, device)
    if reason:
        raise UsageError(reason)
    row = BACKENDS[name]
    source = (file,) if row.of_a_file else (model, device)
    return Backend(name, load_builder(row.builder)(*source, **row.defaults))


def explain_missing(name: BackendName, device: torch.device) -> str | None:
    """Return the sentence that says why a back end cannot compute here; None where it can."""
    row, reason = BACKENDS[name], None
    if row.of_a_file and device.type != "cpu":
        others = [other for other, its in BACKENDS.items() if not its.of_a_file]
        reason = f"computes on the CPU, not on {device.type}; take {', '.join(others[:-1])} or {others[-1]} there"
    elif row.library and importlib.util.find_spec(row.library) is None:
        reason = f"needs {row.library}, which is not installed: pip install 'shardline[{row.extra}]'"
    elif row.missing:
        reason = load_builder(row.missing)(device)
    return f"back end {name} {reason}" if reason else None


def warm_up(backend: Backend, images: Tensor) -> None:
    """Return when a back end is ready for batches of any size, of images uint8[B, C, S, S], B >= 1."""
    # A compiler makes a program for one picture, one for a fixed number, and then one for any number.
    for size in (1, 2, 3):
        backend.compute(images[:1].repeat(size, 1, 1, 1))


def build_torch(model: Classifier, device: torch.device, compiled: bool, bf16: bool) -> Compute:
    """Return PyTorch's way, eager or compiled, in float32 or under bf16 autocast; channels-last, as the model is."""
    module: Any = FeatureClassifier(model)
    if compiled:
        # Freezing folds BatchNorm and lays the weights out for the CPU once; on CUDA the compiler does it by itself.
        module = torch.compile(module, options={"freezing": True} if device.type == "cpu" else None)

    # Never in the caller's inference mode: freezing takes no tensors of it, and would compile for each mode anew.
    @torch.inference_mode(False)
    @torch.no_grad()
    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits, features = module(images.to(device))
        return logits.float().cpu(), features.float().cpu()

    return compute


def find_no_compiler(device: torch.device) -> str | None:
    """Return why nothing can be compiled for a device; None where it can."""
    compiler = os.environ.get("CXX", "g++")
    if device.type != "cpu" or shutil.which(compiler):
        return None
    return f"needs a C++ compiler, and there is no {compiler}; install one"
