"""Prediction on a cluster: Ray Data sends places of pictures to actors that have loaded the bundle."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from shards.workers.ray_cluster import join_or_start  # isort: skip, it quiets Ray

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from shards.errors import ShardError, UsageError
from trainer.contract.bundle import Bundle
from trainer.contract.compute.choice import load_with_backend
from trainer.predict.answer import Row, compute_rows
from trainer.unpacked.ahead import cut_batches, read_picture
from trainer.unpacked.asked import Asked, Place

_ALONE, _BLOCK = 64, 16
"""Number of first blocks with one batch each, to keep many actors busy with few pictures; batches per later block."""


@dataclass(frozen=True)
class Asking:
    """What each actor needs: the bundle's folder as seen by every node, its back end, and the sources."""

    bundle: str
    backend: str
    asked: Asked


def answer_on_ray(asking: Asking, places: Iterable[Place], batch_size: int, workers: int | None) -> Iterator[list[Row]]:
    """Yield batches of rows in the order of the places, computed by `workers` actors with one CPU each.

    Names of pictures are in Ray's object store, which spills to disk; actors read their own pictures.

    Args:
        asking: The data for actors.
        places: The places of the pictures.
        batch_size: Pictures per forward pass.
        workers: Number of actors; None: as many as there are CPUs and work.

    Raises:
        ConnectionError: RAY_ADDRESS names a cluster that does not respond.
        UsageError: A source can only be read from its beginning, or nodes cannot see the bundle.
        ShardError: The bundle's probes give other results on a node.
    """
    slow = next((part.where for part in asking.asked.parts if not part.random_access), None)
    if slow is not None:
        raise UsageError(f"{slow} can only be read from its beginning, not in parallel; unpack it, or use .zip")
    started = join_or_start(log_to_driver=False)
    try:
        yield from _run(asking, places, batch_size, workers)
    except RayError as err:
        raise _unwrap(err) from err
    finally:
        if started:
            ray.shutdown()


def _run(asking: Asking, places: Iterable[Place], batch_size: int, workers: int | None) -> Iterator[list[Row]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True
    blocks = [ray.put(_make_block(block)) for block in _cut_blocks(iter(places), batch_size)]
    if not blocks:
        return
    most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    answered = ray.data.from_arrow_refs(blocks).map_batches(
        _Answerer,
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=min(workers or 1, len(blocks)), max_size=most),
        fn_constructor_args=(pickle.dumps(asking),),
        num_cpus=1,
    )
    for batch in answered.iter_batches(batch_size=batch_size, batch_format="pyarrow"):
        yield [Row(**json.loads(row)) for row in batch["row"].to_pylist()]


def _cut_blocks(places: Iterator[Place], batch_size: int) -> Iterator[list[Place]]:
    yield from islice(cut_batches(places, batch_size), _ALONE)
    yield from cut_batches(places, _BLOCK * batch_size)


def _make_block(places: list[Place]) -> pa.Table:
    return pa.table({"place": pa.array([pickle.dumps(place) for place in places], pa.binary())})


class _Answerer:
    """An actor: it loads the bundle once and answers for batches of places."""

    def __init__(self, asking: bytes) -> None:
        self._asking: Asking = pickle.loads(asking)  # noqa: S301, from the command that started it

    @cached_property
    def _bundle(self) -> Bundle:
        # Loaded lazily: Ray retries after errors in a constructor, and reports them as text of many lines.
        return load_with_backend(self._asking.bundle, backend=self._asking.backend)[0]

    def __call__(self, batch: pa.Table) -> pa.Table:
        places: list[Place] = [pickle.loads(place) for place in batch["place"].to_pylist()]  # noqa: S301, as above
        parts = self._asking.asked.parts
        prepared = [
            (place.picture, read_picture(self._bundle.prepare, parts[place.part], place.picture)) for place in places
        ]
        rows = [json.dumps(asdict(row), ensure_ascii=False) for row in compute_rows(self._bundle, prepared)]
        return pa.table({"row": pa.array(rows, pa.string())})


def _unwrap(err: BaseException) -> BaseException:
    """Return our own error, without Ray's around it."""
    found: Any = err
    while found is not None:
        if isinstance(found, (UsageError, ShardError, OSError)):
            return found
        found = getattr(found, "cause", None) or found.__cause__
    return err
