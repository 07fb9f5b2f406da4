"""What an endpoint can be told: one model for the command line and for `serve run ... key=value`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shards.errors import UsageError, explain_invalid
from trainer.contract.model.names import BackendName

# Pictures that wait in each proxy, for each that may be in a replica; the proxy holds their bytes in memory.
QUEUED_PER_ONGOING = 2


class ServeOptions(BaseModel):
    """How a bundle is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path
    """Folder of the bundle; every node that runs a replica must see it."""
    replicas: int = Field(default=1, ge=1)
    """Processes that each hold the model."""
    max_batch_size: int = Field(default=16, ge=1, le=4096)
    """Pictures in one forward pass at most."""
    batch_wait_ms: float = Field(default=5.0, ge=0, le=10_000)
    """Milliseconds that the first picture of a batch waits for others."""
    max_mib: float = Field(default=32.0, gt=0)
    """Size of a picture file above which it is refused, MiB."""
    cpus_per_replica: int = Field(default=1, ge=1)
    """Threads of the model, and CPUs that Ray reserves."""
    gpus_per_replica: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves; 0 computes on the CPU, 0.5 lets two replicas share one."""
    backend: Literal["auto", BackendName] = "auto"
    """What computes; auto is what `trainer.bench --choose` recorded for the replica's CPU, or eager."""

    @field_validator("bundle")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        # Replicas run in another working directory.
        return value.expanduser().absolute()

    @property
    def max_bytes(self) -> int:
        """Size of a picture file above which it is refused, bytes."""
        return int(self.max_mib * 2**20)

    @property
    def max_ongoing(self) -> int:
        """Requests in a replica at once: a batch in the model, and the next one on its way."""
        return 2 * self.max_batch_size

    @property
    def max_queued(self) -> int:
        """Requests that wait at each proxy; more are turned away with 503."""
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
    for name in arguments:
        if name not in ServeOptions.model_fields:
            raise _unknown(name)
    try:
        return ServeOptions.model_validate(dict(arguments))
    except ValidationError as err:
        if "bundle" not in arguments:
            raise UsageError("option 'bundle' is missing; give it, for example bundle=runs/demo/bundle") from err
        raise UsageError(explain_invalid(err, spell="option '{}'".format)) from err


def _unknown(name: str) -> UsageError:
    from shards.cli.sentences import suggest  # late: a replica needs it for no request

    hint = suggest(name, ServeOptions.model_fields, before=": ", otherwise=";")
    return UsageError(f"no option '{name}'{hint} the endpoint has {', '.join(ServeOptions.model_fields)}")
