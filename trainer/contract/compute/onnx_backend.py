"""The ONNX Runtime back end; the only module that imports the library."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from shards.errors import ShardError
from trainer.contract.compute.exported import INPUT, OUTPUTS
from trainer.contract.compute.outputs import Compute


def open_onnx(file: Path) -> Compute:
    """Return a function that runs an ONNX file in ONNX Runtime, in float32 on the CPU.

    Raises:
        ShardError: The file cannot be read.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # the base class of its errors depends on the version
        why = (str(err).splitlines() or [type(err).__name__])[0]
        raise ShardError(f"{file} cannot be read by ONNX Runtime ({why}); export again") from err

    def compute(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = session.run(list(OUTPUTS), {INPUT: images.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(features)

    return compute
