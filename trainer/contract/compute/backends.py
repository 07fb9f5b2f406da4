"""Back ends: the ways in which a bundle's model can be computed. PyTorch's are here, those of an ONNX file beside."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from shards.errors import UsageError
from trainer.contract.compute.outputs import FeatureClassifier
from trainer.contract.model.model import Classifier
from trainer.contract.model.names import BackendName

OF_A_FILE: Final = ("onnx", "openvino", "openvino-bf16")
"""Those that compute an exported ONNX file."""


class Backend(Protocol):
    """One way to compute a model."""

    name: BackendName

    def compute(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits float32[B, K] and features float32[B, F] on the CPU, of images uint8[B, C, S, S] there."""
        ...


def make_backend(name: BackendName, model: Classifier, device: torch.device, file: Path | None = None) -> Backend:
    """Return a back end for a model in evaluation mode; it computes with `torch.get_num_threads()` threads.

    Args:
        name: One of `names.BACKENDS`.
        model: The classifier, on `device`.
        device: Where it is.
        file: The model as an ONNX file, for those of `OF_A_FILE`.

    Raises:
        UsageError: This machine or device does not have it.
        ShardError: The file cannot be read.
    """
    reason = explain_missing(name, device)
    if reason:
        raise UsageError(reason)
    if name not in OF_A_FILE:
        return TorchBackend(name, model, device)
    assert file is not None
    if name == "onnx":
        from trainer.contract.compute.onnx_backend import OnnxBackend

        return OnnxBackend(file)
    from trainer.contract.compute.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(name, file)


def explain_missing(name: BackendName, device: torch.device) -> str | None:
    """Return the sentence that says why a back end cannot compute here; None where it can."""
    if name in OF_A_FILE:
        library, extra = ("onnxruntime", "onnx") if name == "onnx" else ("openvino", "openvino")
        if device.type != "cpu":
            return f"back end {name} computes on the CPU, not on {device.type}; take eager, bf16 or compiled there"
        if importlib.util.find_spec(library) is None:
            return f"back end {name} needs {library}, which is not installed: pip install 'shardline[{extra}]'"
        if name == "openvino-bf16":
            from trainer.contract.compute.openvino_backend import read_capabilities

            if "BF16" not in (known := read_capabilities()):
                return f"back end {name} needs a CPU that computes in bf16; OpenVINO finds {', '.join(known)} here"
    if name.startswith("compiled") and shutil.which(os.environ.get("CXX", "g++")) is None and device.type == "cpu":
        return f"back end {name} needs a C++ compiler, and there is no {os.environ.get('CXX', 'g++')}; install one"
    return None


def warm_up(backend: Backend, images: Tensor) -> None:
    """Return when a back end is ready for batches of any size, of images uint8[B, C, S, S], B >= 1."""
    # A compiler makes a program for one picture, one for a fixed number, and then one for any number.
    for size in (1, 2, 3):
        backend.compute(images[:1].repeat(size, 1, 1, 1))


class TorchBackend:
    """PyTorch: eager or compiled, in float32 or under bf16 autocast; channels-last, as `Classifier` always is."""

    def __init__(self, name: BackendName, model: Classifier, device: torch.device) -> None:
        self.name = name
        self._device = device
        self._bf16 = name.endswith("bf16")
        module = FeatureClassifier(model)
        # Freezing folds BatchNorm and lays the weights out for the CPU once; on CUDA the compiler does it by itself.
        options: dict[str, Any] | None = {"freezing": True} if device.type == "cpu" else None
        self._module = torch.compile(module, options=options) if name.startswith("compiled") else module

    # Never in the caller's inference mode: freezing takes no tensors of it, and would compile for each mode anew.
    @torch.inference_mode(False)
    @torch.no_grad()
    def compute(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `Backend.compute`."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            logits, features = self._module(images.to(self._device))
        return logits.float().cpu(), features.float().cpu()
