"""Options of `trainer.bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from shards.cli.arguments import check_count
from shards.cli.options import Location, Options, Output
from shards.errors import UsageError
from shards.workers.openmp import count_cpus
from trainer.contract.model.names import BACKENDS, BackendName


class BenchOptions(Options):
    """What to measure, on which pictures, and for how long.

    Raises:
        UsageError: Options conflict, or a number is invalid.
    """

    bundle: Path
    """Folder of the bundle."""
    batch_size: tuple[PositiveInt, ...] = (1, 8, 32, 128)
    """Batch sizes to measure."""
    backend: tuple[BackendName, ...] = tuple(BACKENDS)
    """Back ends to measure; unavailable ones are left out."""
    data: Location | None = None
    """Folder of pictures, or DATASET[:SPLIT]; None: the bundle's probes."""
    seconds: float = 5.0
    """Measuring time for each back end and batch size, above 0."""
    threads: int = Field(default_factory=count_cpus)
    """Threads of the model and for decoding; with `choose`, as many as a serving replica has."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the model."""
    choose: bool = False
    """Record the fastest in the bundle, for this kind of CPU."""
    out: Output | None = None
    """Folder for table.md, bench.json and bench.png; None: benches/MODEL."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.choose and self.device != "cpu":
            raise UsageError("--choose is for CPUs, serving uses eager on a GPU; remove --device")
        if self.choose and "eager" not in self.backend:
            raise UsageError("--choose needs eager, the fallback of serving, for comparison; add it to --backend")
        if not self.seconds > 0:
            raise UsageError(f"--seconds must be above 0, got {self.seconds:g}")
        check_count("--threads", self.threads, of="threads")
        return self
