"""The OpenVINO back end; the only module that imports the library."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shards.errors import ShardError
from trainer.contract.compute.outputs import Compute


@functools.cache
def _core() -> Any:
    # `import openvino` sends telemetry over the network if this package can be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def find_no_bf16(_device: torch.device) -> str | None:
    """Return why OpenVINO cannot compute in bfloat16 here; None if it can."""
    known = [str(kind) for kind in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")]
    return None if "BF16" in known else f"needs a CPU that computes in bf16; OpenVINO finds {', '.join(known)} here"


def open_openvino(file: Path, bf16: bool) -> Compute:
    """Return a function that runs an ONNX file in OpenVINO on the CPU; only one thread may call it at a time.

    Raises:
        ShardError: The file cannot be read.
    """
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        request = _core().compile_model(str(file), "CPU", options).create_infer_request()
    except RuntimeError as err:
        raise ShardError(f"{file} cannot be read by OpenVINO ({str(err).splitlines()[0]}); export again") from err

    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        found = request.infer([images.numpy()])
        return torch.from_numpy(found["logits"]), torch.from_numpy(found["features"])

    return compute
