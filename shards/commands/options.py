"""What `pack` and `audit` take, from the command line or from Python, and what it becomes: sources, options, a pool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from shards.cli.arguments import check_count
from shards.cli.options import Options
from shards.errors import UsageError, explain_invalid
from shards.files.sizes import parse_size
from shards.packing.encode import StoreOptions
from shards.packing.options import PackOptions
from shards.pictures.decode import DecodeOptions
from shards.sources.find import find_sources
from shards.sources.list_form import ListForm, parse_form
from shards.sources.model import SourceList
from shards.splits.missing import make_missing
from shards.splits.splits import ONLY_TEST, SplitOptions, parse_merge, parse_shares
from shards.workers.openmp import count_cpus
from shards.workers.pools import Pool, open_pool

Model = TypeVar("Model", bound=BaseModel)
DEFAULT_SHARES = "val=0.1,test=0.1"
_LIST_OPTIONS = ("columns", "base", "ending", "one_hot", "labels_as", "empty_labels")


def join_words(value: object) -> object:
    """Return a mapping, a list or a number as an option of the command line spells it; all else as it is.

    >>> join_words({"val": 0.1, "test": 0.1}), join_words((0, 4095)), join_words("none")
    ('val=0.1,test=0.1', '0,4095', 'none')
    """
    if isinstance(value, Mapping):
        return ",".join(f"{name}={each}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Words = Annotated[str, BeforeValidator(join_words)]
"""Text of the command line; from Python also a mapping (`{"val": 0.1}`), a list or a number."""


class SourceOptions(Options):
    """Which pictures there are, how they are decoded and split, and how long work is carried out.

    Fields are the long options of the command line, in their order; `python -m shards pack --help` says what they mean.
    """

    src: Path
    unlabelled: bool = False
    layout: str | None = None
    names: str | None = None
    class_names: Path | None = None
    alike: Literal["refuse", "join", "keep"] = "refuse"
    drop_empty_classes: bool = False
    group_regex: str | None = None
    columns: Words | None = None
    base: Path | None = None
    ending: str | None = None
    one_hot: Words | None = None
    labels_as: str | None = None
    empty_labels: bool = False
    split: Words | None = None
    every: int | None = None
    merge_and_resplit: Words | None = None
    fraction: float = 1.0
    seed: int = 0
    bits: int | None = None
    range: Words | None = None
    background: Words = "255,255,255"
    frames: Literal["first", "refuse"] = "first"
    max_pixels: int = 100_000_000
    edited_copies: bool = False
    max_reject_rate: float = 0.01
    workers: int | None = None
    on: Literal["local", "ray"] = "local"

    def find_sources(self) -> SourceList:
        """Return the pictures; raises as `shards.sources.find.find_sources`."""
        return find_sources(
            self.src,
            unlabelled=self.unlabelled,
            layout=self.layout,
            class_names=self.class_names,
            group_regex=self.group_regex,
            form=self._read_form(),
            alike=self.alike,
            drop_empty=self.drop_empty_classes,
            incomplete=self._read_shares() == ONLY_TEST,
            names=self.names,
        )

    def settle_splits(self, listed: SourceList, options: PackOptions) -> tuple[SourceList, PackOptions]:
        """Return the pictures, with notes, and the options by which splits are made that `split` names and they lack.

        Raises:
            UsageError: As `make_missing`.
        """
        if self.split is None:
            return listed, options
        split, notes = make_missing(options.split, {source.split for source in listed.sources})
        return replace(listed, notes=[*listed.notes, *notes]), options.model_copy(update={"split": split})

    def read(self) -> PackOptions:
        """Return the options of packing, or of auditing as packing would.

        Raises:
            UsageError: A value that an option does not take.
        """
        decode = _build(
            DecodeOptions,
            gray_range=self._read_range(),
            background=_read_numbers("--background", self.background, 3),
            frames=self.frames,
            max_pixels=self.max_pixels,
        )
        split = _build(
            SplitOptions,
            seed=self.seed,
            shares=self._read_shares(),
            every=self.every,
            fraction=self.fraction,
            merge=parse_merge(self.merge_and_resplit) if self.merge_and_resplit else (),
        )
        store = _build(StoreOptions, decode=decode, **self._store())
        return _build(PackOptions, split=split, store=store, max_reject_rate=self.max_reject_rate, **self._more())

    def _store(self) -> dict[str, object]:
        """Return what shapes the stored pictures beside their decoding."""
        return {}

    def _more(self) -> dict[str, object]:
        """Return what shapes the dataset beside its pictures and splits."""
        return {}

    @contextlib.contextmanager
    def open_pool(self) -> Iterator[Pool]:
        """Yield the processes or the Ray tasks that are asked for.

        Raises:
            UsageError: No worker, or no Ray cluster.
        """
        check_count("--workers", self.workers, of="processes or tasks")
        if self.on == "ray":
            from shards.workers.ray_pool import open_ray_pool

            with open_ray_pool(self.workers) as pool:
                yield pool
            return
        with open_pool(self.workers or count_cpus()) as pool:
            yield pool

    def _read_form(self) -> ListForm:
        return parse_form(**{name: getattr(self, name) for name in _LIST_OPTIONS})

    def _read_shares(self) -> dict[str, float]:
        if self.split is None:
            return {} if self.every else parse_shares(DEFAULT_SHARES)
        return parse_shares(self.split)

    def _read_range(self) -> tuple[float, ...] | None:
        if self.bits is not None:
            if self.range is not None:
                raise UsageError("--bits and --range say the same thing in two ways; give one of them")
            if not 1 <= self.bits <= 32:
                raise UsageError(f"--bits is a number from 1 to 32, got {self.bits}")
            return 0.0, float(2**self.bits - 1)
        return None if self.range is None else _read_numbers("--range", self.range, 2)


class PackRequest(SourceOptions):
    """What `pack` takes beside the target."""

    UNRECORDED: ClassVar = ("src", "update", "workers", "on")
    """Places, and what changes no byte of a dataset."""

    shard_bytes: Words = "64MiB"
    max_side: int | None = None
    quality: int = 90
    positive: str | None = None
    update: bool = False
    audit: Literal["full", "none"] = "full"
    allow_leaks: bool = False
    drop_duplicates: bool = False

    def _store(self) -> dict[str, object]:
        return {"quality": self.quality, **({} if self.max_side is None else {"max_side": self.max_side})}

    def _more(self) -> dict[str, object]:
        given = ("audit", "edited_copies", "allow_leaks", "drop_duplicates", "positive")
        return {"shard_bytes": parse_size(self.shard_bytes)} | {name: getattr(self, name) for name in given}

    def spell(self) -> list[str]:
        """Return the words of the options that are not at their defaults and that a dataset depends on."""
        words: list[str] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in self.UNRECORDED or value == self.default(name):
                continue
            option = f"--{name.replace('_', '-')}"
            if value is True:
                words.append(option)
            else:
                text = spell_path(value)
                # A value that begins with a dash would be taken for an option.
                words += [f"{option}={text}"] if text.startswith("-") else [option, text]
        return words


def spell_path(path: object) -> str:
    """Return a path, or any other word, as text that every file can hold: bytes that are no UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _build(model: type[Model], **values: Any) -> Model:
    try:
        return model(**values)
    except ValidationError as err:
        raise UsageError(explain_invalid(err, _spell)) from err


def _spell(name: str) -> str:
    """Return the option that gives a field, or one of its items."""
    field = name.partition(".")[0]
    return f"--{ {'gray_range': 'range', 'merge': 'merge-and-resplit'}.get(field, field.replace('_', '-')) }"


def _read_numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        example = "0,4095" if count == 2 else "255,255,255"
        raise UsageError(f"{option} takes {count} numbers such as {example}, got '{text}'")
    return numbers
