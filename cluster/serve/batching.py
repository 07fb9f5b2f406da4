"""How large batches are and how long they wait: as the options say, as measured on this CPU, or by default."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from cluster.serve.options import BATCH_SIZE, BATCH_WAIT_MS, ServeOptions
from shards.errors import ShardError
from trainer.contract.compute.choice import read_cpu
from trainer.contract.compute.records import Record, read_record, write_record

_FILE: Final = "batches.json"


class Load(BaseModel):
    """What a batch size and a wait gave under load."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_size: int
    batch_wait_ms: float
    at_once: int
    """Pictures that were on the way at any time."""
    pictures_per_s: float
    p50_ms: float
    p99_ms: float
    """Percentiles of the time from the bytes of a picture to its answer, without HTTP."""


class Tuned(BaseModel):
    """The best batches for one kind of CPU and number of threads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    threads: int
    backend: str
    """What computed, and why."""
    date: str
    target_ms: float
    """The most milliseconds for 99 % of the pictures."""
    best: Load
    measured: list[Load]


class TunedPage(Record):
    """The content of `exports/batches.json` in a bundle."""

    format: Literal["shardline-batches"] = "shardline-batches"
    version: Literal[1] = 1
    tuned: list[Tuned]
    """One entry for each kind of CPU and number of threads."""


class Batching(BaseModel):
    """What a replica does."""

    model_config = ConfigDict(frozen=True)

    max_batch_size: int
    batch_wait_ms: float
    why: str
    """Where both come from, in words."""


def record_tuned(folder: Path, weights_sha256: str, tuned: Tuned) -> Path:
    """Store a measurement in the bundle, in place of an earlier one of the same CPU and threads; return the file."""
    others = [each for each in _read(folder, weights_sha256) if (each.cpu, each.threads) != (tuned.cpu, tuned.threads)]
    return write_record(folder, _FILE, TunedPage(weights_sha256=weights_sha256, tuned=[*others, tuned]))


def _read(folder: Path, weights_sha256: str) -> list[Tuned]:
    remedy = f"measure again: python -m cluster.serve {folder} --tune-batch 200"
    page = read_record(folder, _FILE, TunedPage, weights_sha256, remedy)
    return page.tuned if page else []


def find_batching(options: ServeOptions, folder: Path, weights_sha256: str) -> Batching:
    """Return what a replica with these options does with the bundle in `folder`.

    An option that is given counts; the others are those of the record for this CPU, if there is one.
    """
    names = ("max_batch_size", "batch_wait_ms")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    found, why = {"max_batch_size": BATCH_SIZE, "batch_wait_ms": BATCH_WAIT_MS}, "by default; --tune-batch measures"
    try:
        here = (read_cpu(), options.cpus_per_replica)
        for each in _read(folder, weights_sha256):
            if (each.cpu, each.threads) == here:
                found = each.best.model_dump(include=set(names))
                why = f"as measured on {each.date} for {each.target_ms:g} ms"
    except ShardError as err:  # serving does without a record
        why = f"by default: {err}"
    return Batching(**{**found, **given}, why="as the options say" if len(given) == len(names) else why)
