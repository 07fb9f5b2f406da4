"""The precision of a step: mixed precision, TensorFloat-32, deterministic algorithms."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.recipes.options.step import StepOptions

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(amp: str, device: torch.device) -> torch.autocast:
    """Return an autocast context for bf16 or fp16; for `off`, a disabled one."""
    return torch.autocast(device.type, _DTYPES.get(amp, torch.float32), enabled=amp in _DTYPES)


def build_scaler(amp: str, device: torch.device) -> torch.amp.GradScaler:
    """Return the scaler that keeps fp16 gradients from vanishing; disabled for bf16 and off."""
    return torch.amp.GradScaler(device.type, enabled=amp == "fp16")


def set_precision(options: StepOptions) -> None:
    """Set the process-wide options: TensorFloat-32, deterministic algorithms."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    torch.use_deterministic_algorithms(options.deterministic)
    torch.backends.cudnn.benchmark = not options.deterministic


def are_finite(tensors: list[Tensor]) -> bool:
    """Return whether all values of a non-empty list of float tensors are finite."""
    return bool(torch.stack(torch._foreach_norm(tensors, float("inf"))).isfinite().all())
