"""The back end a bundle uses on a kind of CPU: measured by `trainer.bench --choose`, used by serving."""

from __future__ import annotations

import logging
import platform
import statistics
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict

from shards.errors import UsageError
from trainer.contract.bundle import Bundle, BundlePage, read_bundle_probes
from trainer.contract.compute.backends import make_backend, warm_up
from trainer.contract.compute.parity import Parity, require_parity
from trainer.contract.compute.records import Record, read_record, write_record
from trainer.contract.decision.ood import check_scores
from trainer.contract.model.names import AUTO, BACKENDS, BackendName, check_backend
from trainer.contract.probes import OTHER_BACK_END

logger = logging.getLogger(__name__)

START_LIMIT_S = 20.0
"""A back end that takes longer to start is not chosen, because serving replicas must start in time."""
_FILE = "backends.json"


class Measured(BaseModel):
    """The measurements of one back end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendName
    start_s: float
    """Time until it is ready for batches of any size."""
    images_per_s: dict[int, float]
    """By batch size, for the model alone."""
    parity: Parity | None
    """None if it failed the parity check."""

    @property
    def speed(self) -> float:
        """Pictures per second, as the geometric mean over the batch sizes."""
        return statistics.geometric_mean(self.images_per_s.values())


class Choice(BaseModel):
    """The choice for one kind of CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    threads: int
    date: str
    versions: dict[str, str]
    chosen: BackendName
    measured: list[Measured]


class ChoicePage(Record):
    """The content of `exports/backends.json` in a bundle."""

    format: Literal["shardline-backends"] = "shardline-backends"
    version: Literal[1] = 1
    choices: list[Choice]
    """One entry for each kind of CPU."""


def choose(measured: list[Measured]) -> Measured:
    """Return the fastest back end that keeps parity and starts in time; eager always qualifies."""
    fit = [each for each in measured if each.backend == "eager" or (each.parity and each.start_s <= START_LIMIT_S)]
    return max(fit, key=lambda each: each.speed)


def read_cpu() -> str:
    """Return the kind of this machine's CPU: its name and the instruction set that PyTorch detects."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"


def record_choice(folder: Path, page: BundlePage, choice: Choice) -> Path:
    """Store a choice in the bundle, replacing an earlier one for the same kind of CPU; return the file."""
    others = [other for other in _read_choices(folder, page) if other.cpu != choice.cpu]
    record = ChoicePage(weights_sha256=page.weights_sha256, choices=[*others, choice])
    return write_record(folder, _FILE, record)


def _read_choices(folder: Path, page: BundlePage) -> list[Choice]:
    remedy = f"measure again: python -m trainer.bench {folder} --choose"
    record = read_record(folder, _FILE, ChoicePage, page.weights_sha256, remedy)
    return record.choices if record else []


def load_with_backend(folder: str | Path, device: str = "cpu", backend: str = AUTO) -> tuple[Bundle, str]:
    """Return a bundle with a back end, and a sentence that says which one and why.

    Args:
        folder: The bundle.
        device: The device for the model.
    backend: One of `names.BACKENDS`, or `auto`: the recorded choice for this kind of CPU if it passes the parity
        check on the probes, otherwise eager.

    Raises:
        UsageError: As `Bundle.load`; or the requested back end is not available on this machine.
        ShardError: As `Bundle.load`; or the requested back end fails the parity check on the probes.
    """
    try:
        check_backend(backend)
    except ValueError as err:
        raise UsageError(str(err)) from err
    bundle = Bundle.load(folder, device)
    if backend == AUTO:
        return bundle, _take_choice(bundle, Path(folder))
    if backend != "eager":
        _attach(bundle, Path(folder), backend)
    return bundle, f"computes with {backend}, as requested"


def _take_choice(bundle: Bundle, folder: Path) -> str:
    """Attach the recorded back end if possible; return the sentence for `load_with_backend`."""
    if bundle.device.type != "cpu":
        return f"computes with eager: choices are for CPUs, this is {bundle.device}"
    cpu = read_cpu()
    try:
        choice = next((each for each in _read_choices(folder, bundle.page) if each.cpu == cpu), None)
        if choice is None:
            how = f"python -m trainer.bench {folder} --choose"
            return f"computes with eager: no choice is recorded for {cpu}; {how} measures and records one"
        if choice.chosen != "eager":
            _attach(bundle, folder, choice.chosen)
    except Exception as err:  # libraries raise any type, and eager still works
        why = f"computes with eager: {err}"
        logger.warning("%s", why)
        return why
    return f"computes with {choice.chosen}, the fastest on {choice.cpu} when measured on {choice.date}"


def _attach(bundle: Bundle, folder: Path, name: BackendName) -> None:
    """Attach a back end to a bundle after it has reproduced the logits of the probes."""
    file = None
    if BACKENDS[name].of_a_file:
        from trainer.contract.compute.exported import require_onnx  # late: eager and compiled models need no file

        file = require_onnx(folder, bundle.page.weights_sha256, name)
    backend = make_backend(name, bundle.model, bundle.device, file)
    _, images, logits = read_bundle_probes(folder)
    warm_up(backend, images)
    actual, features = backend.compute(images)
    require_parity(actual, logits, OTHER_BACK_END, f"back end {name} on the probes")
    if bundle.detector is not None:
        scores = bundle.detector.score(features.to(bundle.device))
        check_scores(scores, bundle.detector.probe_scores.cpu(), same_back_end=False)
    bundle.backend = backend
