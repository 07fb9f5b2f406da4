"""OpenVINO's way to compute an exported file; the one door to the library."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shards.errors import ShardError
from trainer.contract.model.names import BackendName


@functools.cache
def _core() -> Any:
    # `import openvino` tells its makers of it over the network, unasked, where this package can be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def read_capabilities() -> list[str]:
    """Return the kinds of numbers in which OpenVINO computes on this CPU: FP32, BF16, INT8, ..."""
    return [str(kind) for kind in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")]


class OpenVinoBackend:
    """An ONNX file in OpenVINO on the CPU; it holds one request, so one thread at a time may compute."""

    def __init__(self, name: BackendName, file: Path) -> None:
        self.name = name
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if name == "openvino-bf16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._request = _core().compile_model(str(file), "CPU", options).create_infer_request()
        except RuntimeError as err:
            raise ShardError(f"{file} cannot be read by OpenVINO ({str(err).splitlines()[0]}); export again") from err

    def compute(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits float32[B, K] and features float32[B, F] of images uint8[B, C, S, S]."""
        found = self._request.infer([images.numpy()])
        return torch.from_numpy(found["logits"]), torch.from_numpy(found["features"])
