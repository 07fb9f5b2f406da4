"""The back ends of a bundle, started and ready to be measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shards.errors import ShardError, UsageError
from trainer.contract.bundle import Bundle
from trainer.contract.compute.backends import Backend, explain_missing, make_backend, warm_up
from trainer.contract.compute.exported import default_path, find_onnx
from trainer.contract.compute.parity import Parity, compare, require_parity
from trainer.contract.model.backbone import one_line
from trainer.contract.model.names import BACKENDS, BackendName
from trainer.contract.probes import OTHER_BACK_END
from trainer.export.export import export_bundle, require_libraries

logger = logging.getLogger(__name__)


@dataclass
class Contender:
    """A started back end.

    start_s: Time to start, including compilation. parity: With the bundle, on all pictures. keeps: None if parity is
    good enough for serving, else the sentence that says what differs.
    """

    backend: Backend
    start_s: float
    parity: Parity
    keeps: str | None


@dataclass
class Line:
    """The back ends that take part, and why others do not."""

    contenders: list[Contender] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def line_up(
    names: Sequence[BackendName],
    folder: Path,
    bundle: Bundle,
    images: Tensor,
    workplace: Path,
) -> Line:
    """Return the back ends available on this machine, each compared with the bundle.

    Args:
        names: Back ends to try; unavailable ones are left out with a reason.
        folder: The bundle's folder.
        bundle: Loaded from there, without a back end of its own.
        images: Pictures uint8[N, C, S, S] to compare on.
        workplace: Folder for an ONNX file if the bundle has none.

    Raises:
        UsageError: None of them is available.
    """
    line = Line()
    expected = _compute(bundle.compute_logits, images)
    for name in names:
        reason = explain_missing(name, bundle.device)
        try:
            if reason:
                raise UsageError(reason)
            logger.info("starting %s", name)
            file = find_or_export(folder, bundle, workplace) if BACKENDS[name].of_a_file else None
            started = time.perf_counter()
            backend = make_backend(name, bundle.model, bundle.device, file)
            warm_up(backend, images)
            line.contenders.append(_judge(backend, time.perf_counter() - started, images, expected))
        except (ShardError, UsageError) as err:
            line.absent[name] = str(err)
        except Exception as err:  # from a library; the others are still measured
            line.absent[name] = f"back end {name} fails on this model ({type(err).__name__}: {one_line(err)})"
    if not line.contenders:
        raise UsageError(f"no back end to measure: {'; '.join(line.absent.values())}")
    return line


def find_or_export(folder: Path, bundle: Bundle, workplace: Path) -> Path:
    """Return the bundle's own ONNX file, or export one to `workplace`."""
    made = default_path(workplace, "onnx")
    own = find_onnx(folder, bundle.page.weights_sha256)
    if own is None and not made.exists():
        require_libraries("onnx")
        export_bundle(folder, "onnx", made)
    return own or made


def _judge(backend: Backend, start_s: float, images: Tensor, expected: Tensor) -> Contender:
    actual = _compute(lambda part: backend.compute(part)[0], images)
    try:
        parity, keeps = require_parity(actual, expected, OTHER_BACK_END, f"back end {backend.name}"), None
    except ShardError as err:
        parity, keeps = compare(actual, expected), str(err)
    return Contender(backend, start_s, parity, keeps)


def _compute(compute: Any, images: Tensor) -> Tensor:
    return torch.cat([compute(part) for part in images.split(16)])
