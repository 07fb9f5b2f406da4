"""What `trainer.bench` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from shards.cli.arguments import check_count
from shards.cli.options import Location, Options
from shards.errors import UsageError
from shards.workers.openmp import count_cpus
from trainer.contract.model.names import BACKENDS, BackendName


class BenchOptions(Options):
    """What is measured, on what, and for how long.

    Raises:
        UsageError: Options that do not go together, or a number that is none.
    """

    bundle: Path
    """Folder of the bundle."""
    batch_size: tuple[PositiveInt, ...] = (1, 8, 32, 128)
    """Pictures a batch, each of them measured."""
    backend: tuple[BackendName, ...] = BACKENDS
    """Back ends; those that are missing here are left out."""
    data: Location | None = None
    """Folder of pictures, or DATASET[:PART]; None: the bundle's probes."""
    seconds: float = 5.0
    """Of measuring, for each back end and batch size, above 0."""
    threads: int = Field(default_factory=count_cpus)
    """Of the model, and that decode; for `choose` as many as a replica has."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model computes."""
    choose: bool = False
    """Record the fastest in the bundle, for this kind of CPU."""
    out: Path | None = None
    """Folder for table.md, bench.json and bench.png; None: benches/MODEL."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.choose and self.device != "cpu":
            raise UsageError("--choose is for CPUs: on a GPU eager computes; leave out --device")
        if self.choose and "eager" not in self.backend:
            raise UsageError("--choose compares with eager, which serving falls back on; name it in --backend")
        if not self.seconds > 0:
            raise UsageError(f"--seconds must be above 0, got {self.seconds:g}")
        check_count("--threads", self.threads, of="threads")
        return self
