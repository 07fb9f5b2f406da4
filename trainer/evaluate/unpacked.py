"""Evaluate a bundle on unpacked pictures: rows, metrics and files, like for a split of a dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from shards.cli.progress import Progress
from shards.cli.sentences import count_things
from shards.errors import ShardError
from shards.packing.probe import probe
from shards.pictures.decode import decode
from shards.sources.model import Source
from trainer.contract.bundle import Bundle, BundlePage
from trainer.contract.preprocess import PreprocessSpec, prepare_pixels
from trainer.contract.task import make_task
from trainer.evaluate.files import Judging, write_evaluation
from trainer.evaluate.labelled import Labelled
from trainer.evaluate.positive import take_first
from trainer.evaluate.predictions import INDEX_COLUMNS, Predictions
from trainer.evaluate.rows import CHUNK, Rows, evaluate_batches
from trainer.feed.feed import Batch
from trainer.ranks.ranks import Ranks
from trainer.unpacked.ahead import Speed, cut_batches, read_ahead
from trainer.unpacked.asked import Asked, Place
from trainer.unpacked.parts import Stored
from trainer.unpacked.unreadable import UNREADABLE, write_unreadable

_NAMED = 3
"""Maximum number of unreadable pictures named in a message."""


class _Facts(NamedTuple):
    """Facts about a picture, by the names of an index's columns."""

    group: str
    width: int
    height: int
    mode: str
    bytes: int


class _Made(NamedTuple):
    """A picture as the model takes it, uint8[C, S, S]."""

    image: Tensor
    width: int
    height: int
    mode: str
    length: int


@dataclass
class _Read:
    """A rank's results by position: facts of pictures that were read, reasons for the others."""

    facts: dict[int, _Facts] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)


def evaluate_labelled(
    ranks: Ranks, bundle: Path, labelled: Labelled, out: Path, workers: int, judging: Judging
) -> dict[str, Any]:
    """Evaluate on one rank of several; return the metrics. Pictures that cannot be read are counted and named.

    Raises:
        ShardError: None of the pictures can be read, or an archive is truncated.
    """
    loaded = Bundle.load(bundle, str(ranks.device))
    page, read, number = loaded.page, _Read(), len(labelled.sources)
    positions = {source.name: position for position, source in enumerate(labelled.sources)}
    batches = _read_batches(labelled, page, ranks, workers, positions, read)
    with contextlib.closing(Progress(f"evaluating on {labelled.part}", number)) as progress:
        show = progress.show if ranks.is_first else (lambda _: None)
        rows = evaluate_batches(
            loaded.model, batches, make_task(page.task), ranks, lambda done: show(min(done, number))
        )
    every = ranks.gather(read)
    lost = sorted((place, reason) for each in every for place, reason in each.unreadable.items())
    unreadable = [(labelled.sources[place].name, reason) for place, reason in lost]
    if rows is None:
        path, reason = unreadable[0]
        raise ShardError(
            f"{labelled.where}: none of {count_things(number, 'picture')} can be read ({path}: {reason}), so nothing "
            "was evaluated; check that picture"
        )
    if not ranks.is_first:
        return {}
    facts = {"part": labelled.part, "bundle": page.fingerprint(), "source": labelled.where}
    facts |= _count_unreadable(unreadable, number) | ({"source_notes": labelled.notes} if labelled.notes else {})
    known = _tabulate(rows, {place: row for each in every for place, row in each.facts.items()})
    predictions = Predictions(
        page.classes, page.display_names, rows.labels, rows.logits, known, facts | rows.task.facts
    )
    metrics = write_evaluation(out, predictions, judging.with_stored(take_first(bundle=page.positive)))
    write_unreadable(out / UNREADABLE, unreadable)
    return metrics


def _read_batches(
    labelled: Labelled, page: BundlePage, ranks: Ranks, workers: int, positions: Mapping[str, int], read: _Read
) -> Iterator[Batch]:
    """Yield this rank's batches, one per chunk, without unreadable pictures; `read` collects the results."""
    part = Stored(labelled.where, labelled.sources, labelled.store, "")
    numbers = {name: number for number, name in enumerate(page.classes)}
    chunks = enumerate(cut_batches((Place(0, picture) for picture in part.list()), CHUNK))
    own = (place for number, chunk in chunks if number % ranks.num_ranks == ranks.rank for place in chunk)
    for chunk in read_ahead(partial(_make, spec=page.preprocess), Asked([part]), own, Speed(workers, CHUNK)):
        made: list[tuple[Source, _Made]] = []
        for picture, one in chunk:
            source: Source = picture.key
            if isinstance(one, str):
                read.unreadable[positions[source.name]] = one
            else:
                read.facts[positions[source.name]] = _Facts(source.group, *one[1:])
                made.append((source, one))
        if made:
            labels = [tuple(sorted(numbers[label] for label in source.labels)) for source, _ in made]
            yield Batch(
                torch.stack([one.image for _, one in made]),
                make_task(page.task).gather(labels, len(numbers)),
                torch.ones(len(made)),
                np.array([positions[source.name] for source, _ in made], dtype=np.int64),
                [source.name for source, _ in made],
            )


def _make(data: bytes, spec: PreprocessSpec) -> _Made:
    """Return the model's input for a picture's bytes; raises DecodeError."""
    pixels = decode(data, spec.decode)
    image, facts = prepare_pixels(pixels, spec), probe(data, spec.decode.max_pixels)
    if facts is not None:
        return _Made(image, facts.width, facts.height, facts.mode, len(data))
    height, width, _ = pixels.shape  # an odd one, which a pack would store as what it shows
    mode = "L" if bool((pixels == pixels[:, :, :1]).all()) else "RGB"
    return _Made(image, width, height, mode, len(data))


def _count_unreadable(unreadable: Sequence[tuple[str, str]], number: int) -> dict[str, Any]:
    """Return the entry of metrics.json about unreadable pictures; {} if there are none."""
    if not unreadable:
        return {}
    first = [{"path": path, "reason": reason} for path, reason in unreadable[:_NAMED]]
    return {"unreadable": {"pictures": len(unreadable), "of": number, "first": first}}


def _tabulate(rows: Rows, facts: Mapping[int, _Facts]) -> pa.Table:
    """Return the facts of each row's picture as a table, like `gather_predictions` from an index."""
    of = [facts[place] for place in rows.ids.tolist()]
    known = pa.table({"sample_id": rows.ids, "path": pa.array(rows.sources, pa.string())})
    for name in INDEX_COLUMNS.values():
        known = known.append_column(name, pa.array([getattr(each, name) for each in of]))
    return known
