"""Options of an endpoint, the same for the command line and for `serve run ... key=value`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from cluster.serve.place import spell_bundle
from shards.cli.options import Options
from shards.errors import UsageError
from shards.storage.shown import show_location
from trainer.contract.model.names import AUTO, check_backend

_MIB = 2**20
BATCH_SIZE, BATCH_WAIT_MS = 16, 20.0
"""Without an option and without a record."""


class Limits(BaseModel):
    """What a replica accepts. Each error about a limit has its name and value."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_mib: float = Field(default=32.0, gt=0)
    """Size of a picture file in MiB above which it is refused."""
    max_megapixels: float = Field(default=100.0, gt=0)
    """Millions of pixels above which a picture is refused before it is decoded."""
    max_pictures: int = Field(default=32, ge=1)
    """Pictures in one request."""
    max_request_mib: float = Field(default=64.0, gt=0)
    """Size of a whole request in MiB."""
    max_waiting: int = Field(default=64, ge=1)
    """Pictures that a replica decodes, keeps waiting or computes at a time; further requests get status 503."""
    max_wait_s: float = Field(default=30.0, gt=0)
    """Seconds from the arrival of a request's last byte to its answer; later it gets status 504."""
    max_upload_s: float = Field(default=60.0, gt=0)
    """Seconds within which a request must arrive."""
    min_kib_per_s: float = Field(default=4.0, ge=0)
    """KiB per second at which it must arrive, counted over 5 seconds."""
    max_held_mib: float = Field(default=512.0, gt=0)
    """MiB that all requests of a replica may hold while they arrive."""
    max_connections: int = Field(default=1024, ge=1)
    """Requests of a replica that may arrive or be answered at a time."""

    @property
    def max_bytes(self) -> int:
        """Size of a picture file in bytes above which it is refused."""
        return int(self.max_mib * _MIB)

    @property
    def max_request_bytes(self) -> int:
        return int(self.max_request_mib * _MIB)

    @property
    def max_held_bytes(self) -> int:
        return int(self.max_held_mib * _MIB)

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1e6)

    def describe(self) -> dict[str, float]:
        """Return the limits by name."""
        return {name: getattr(self, name) for name in Limits.model_fields}


class Front(BaseModel):
    """Who may ask, from where, and what stands before the pages."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    page: bool = True
    """on: people can ask in the browser at / and read about the endpoint at /docs. off: neither is there."""
    auth: str | None = None
    """token:FILE: each request needs one of the file's tokens, one per line; the file may change at any time."""
    root_path: str = ""
    """Path under which a proxy in front shows the endpoint, for /openapi.json."""
    allow_origin: str | None = None
    """Origin whose pages may ask from the browser, like https://example.org; * allows all, none is the default."""
    access_log: str | None = None
    """File to which each replica appends one JSON line per request, without pictures or their names."""

    @field_validator("access_log", "auth")
    @classmethod
    def _absolute_files(cls, value: str | None) -> str | None:
        # Replicas run in another working directory.
        scheme, _, path = value.rpartition(":") if value else ("", "", "")
        return f"{scheme + ':' if scheme else ''}{Path(path).expanduser().absolute()}" if path else value


class ServeOptions(Options, Limits, Front):
    """How a bundle is served."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    there_are: ClassVar[str] = "the endpoint has"

    bundle: str
    """Folder of a bundle, a run or a sweep, which every node must see, or its location in a store, s3://... ."""
    model_name: str = Field(default="shardline", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """Name of the model in the addresses of the Open Inference Protocol, /v2/models/NAME."""
    replicas: int = Field(default=1, ge=1)
    """Processes that each hold the model."""
    min_replicas: int | None = Field(default=None, ge=0)
    """Fewest replicas; given, there are between these and `replicas`, by the load. 0: none while nothing is asked."""
    idle_s: float = Field(default=300.0, ge=0)
    """Seconds of less load after which a replica that is not needed ends; only with `min_replicas`."""
    max_batch_size: int | None = Field(default=None, ge=1, le=4096)
    """Most pictures in one forward pass; by default what --tune-batch found for this CPU, or 16."""
    batch_wait_ms: float | None = Field(default=None, ge=0, le=10_000)
    """Most milliseconds that the first picture of a batch waits for others; by default as found, or 20."""
    cpus_per_replica: int = Field(default=1, ge=1)
    """Threads of the model, and CPUs that Ray reserves for a replica."""
    gpus_per_replica: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for a replica; 0 computes on the CPU, 0.5 lets two replicas share a GPU."""
    backend: Annotated[str, BeforeValidator(check_backend)] = AUTO
    """Back end that computes; auto: the one that `trainer.bench --choose` recorded for the replica's CPU, or eager."""

    def show(self) -> dict[str, Any]:
        """Return the options as JSON, with a bundle's location that is free of keys."""
        return self.model_dump(mode="json") | {"bundle": show_location(self.bundle)}

    @field_validator("bundle", mode="before")
    @classmethod
    def _absolute(cls, value: Any) -> Any:
        return spell_bundle(value) if isinstance(value, str | Path) else value


def read_options(arguments: Mapping[str, Any]) -> ServeOptions:
    """Return the validated options.

    Raises:
        UsageError: An unknown or missing option, or a value out of range.

    >>> read_options({"bundle": "/b", "replicas": "2"}).replicas
    2
    >>> read_options({"bundle": "/b", "replica": 2})
    Traceback (most recent call last):
    shards.errors.UsageError: no option 'replica': did you mean 'replicas'? the endpoint has ...
    """
    if "bundle" not in arguments and arguments.keys() <= ServeOptions.model_fields.keys():
        raise UsageError("option 'bundle' is missing; give it, for example bundle=runs/demo/bundle")
    options = ServeOptions(**arguments)
    _refuse_contradictions(options)
    return options


def _refuse_contradictions(options: ServeOptions) -> None:
    least, most = options.min_replicas, options.replicas
    if least is not None and least >= most:
        raise UsageError(
            f"min_replicas={least} is not below replicas={most}, so that nothing can follow the load; raise replicas, "
            "or leave min_replicas out for a fixed number"
        )
    for low, high in (
        ("max_mib", "max_request_mib"),
        ("max_pictures", "max_waiting"),
        ("max_request_mib", "max_held_mib"),
    ):
        if getattr(options, low) > getattr(options, high):
            raise UsageError(
                f"{low}={getattr(options, low):g} is above {high}={getattr(options, high):g}, so that a request within "
                f"the first limit could never be answered; lower {low}, or raise {high}"
            )
