"""Options of an endpoint, the same for the command line and for `serve run ... key=value`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, field_validator

from shards.cli.options import Options
from shards.errors import UsageError
from trainer.contract.model.names import AUTO, check_backend

# Pictures that wait in each proxy, per picture that may be in a replica; the proxy holds their bytes in memory.
QUEUED_PER_ONGOING = 2


_PAGES = ("bundle.json", "bundle/bundle.json", "best/bundle/bundle.json")
"""Where a bundle, a run and a sweep have the file that makes a folder a bundle."""


class ServeOptions(Options):
    """How a bundle is served."""

    there_are: ClassVar[str] = "the endpoint has"

    bundle: Path
    """Folder of a bundle, or of the run or sweep that has it; every node that runs a replica must see it."""
    replicas: int = Field(default=1, ge=1)
    """Processes that each hold the model."""
    max_batch_size: int = Field(default=16, ge=1, le=4096)
    """Most pictures in one forward pass."""
    batch_wait_ms: float = Field(default=5.0, ge=0, le=10_000)
    """Milliseconds that the first picture of a batch waits for others."""
    max_mib: float = Field(default=32.0, gt=0)
    """Size of a picture file in MiB above which it is refused."""
    cpus_per_replica: int = Field(default=1, ge=1)
    """Threads of the model, and CPUs that Ray reserves for a replica."""
    gpus_per_replica: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for a replica; 0 computes on the CPU, 0.5 lets two replicas share a GPU."""
    backend: Annotated[str, BeforeValidator(check_backend)] = AUTO
    """Back end that computes; auto: the one that `trainer.bench --choose` recorded for the replica's CPU, or eager."""

    @field_validator("bundle")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        # Replicas run in another working directory. Of a run or a sweep, its bundle is meant.
        folder = value.expanduser().absolute()
        return next(((folder / page).parent for page in _PAGES if (folder / page).is_file()), folder)

    @property
    def max_bytes(self) -> int:
        """Size of a picture file in bytes above which it is refused."""
        return int(self.max_mib * 2**20)

    @property
    def max_ongoing(self) -> int:
        """Requests in a replica at once: a batch in the model, and the next one."""
        return 2 * self.max_batch_size

    @property
    def max_queued(self) -> int:
        """Requests that wait at each proxy; further ones are refused with 503."""
        return QUEUED_PER_ONGOING * self.max_ongoing * self.replicas


def read_options(arguments: Mapping[str, Any]) -> ServeOptions:
    """Return the validated options.

    Raises:
        UsageError: An unknown or missing option, or a value out of range.

    >>> read_options({"bundle": "/b", "replicas": "2"}).replicas
    2
    >>> read_options({"bundle": "/b", "replica": 2})
    Traceback (most recent call last):
    shards.errors.UsageError: no option 'replica': did you mean 'replicas'? the endpoint has bundle, replicas, \
max_batch_size, batch_wait_ms, max_mib, cpus_per_replica, gpus_per_replica, backend
    """
    if "bundle" not in arguments and arguments.keys() <= ServeOptions.model_fields.keys():
        raise UsageError("option 'bundle' is missing; give it, for example bundle=runs/demo/bundle")
    return ServeOptions(**arguments)
