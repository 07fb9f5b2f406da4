"""Options of `pack` and `audit`, from the command line or from Python, and what they make: sources, pack options, a
pool.
"""

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
from shards.meters.textfile import open_textfile
from shards.packing.encode import StoreOptions
from shards.packing.metrics import PACKING, PackMeters
from shards.packing.options import PackOptions
from shards.pictures.decode import DecodeOptions
from shards.sources.find import find_sources
from shards.sources.list_form import ListForm, parse_form
from shards.sources.model import SourceList
from shards.splits.splits import ONLY_TEST, SplitOptions, parse_merge, parse_shares
from shards.storage.shown import show_location
from shards.workers.openmp import count_cpus
from shards.workers.pools import Pool, open_pool

Model = TypeVar("Model", bound=BaseModel)
DEFAULT_SHARES = "val=0.1,test=0.1"
_LIST_OPTIONS = ("columns", "base", "ending", "one_hot", "labels_as", "empty_labels")


def join_words(value: object) -> object:
    """Return a mapping, list or number as the command line spells it; other values unchanged.

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
    """How pictures are found, decoded and split, and how the work is run.

    Fields are the long options of the command line, in their order.
    """

    src: Path
    """A folder, an archive, a list or tars with pictures."""
    unlabelled: bool = False
    """All pictures below `src`, without labels."""
    layout: str | None = None
    """What the folders mean, from the top down: split/class, class/split, class/..., any/class, class/NAME; None:
    guessed from their names."""
    names: str | None = None
    """Encoding of names in an archive that does not declare it, for example cp850; None: guessed."""
    class_names: Path | None = None
    """File with display names: `0 NAME` lines, JSON or YAML."""
    alike: Literal["refuse", "join", "keep"] = "refuse"
    """What to do with classes that look alike, for example Cat and cat, or 1 and 01."""
    drop_empty_classes: bool = False
    """Leave out class folders without a readable picture."""
    group_regex: str | None = None
    """Regular expression; its first group in a path names what stays in one split, for example a patient."""
    columns: Words | None = None
    """Columns of a list by role: path=NAME,label=NAME; None: the usual names."""
    base: Path | None = None
    """Folder of a list's relative paths; None: that of the list."""
    ending: str | None = None
    """Suffix for paths of a list that lack it: .jpg."""
    one_hot: Words | None = None
    """Columns of 0 and 1 of a list, one for each class."""
    labels_as: str | None = None
    """Separator of several labels in a list; `list` and `one` for cells of that form."""
    empty_labels: bool = False
    """Rows of a list without a label show none of the classes."""
    split: Words | None = None
    """Shares of the splits that `src` lacks; None: val=0.1,test=0.1 if it has no splits. `none`: all train."""
    every: int | None = None
    """Every Nth picture of a class goes to test, without randomness."""
    merge_and_resplit: Words | None = None
    """Splits of `src` to pool and split again."""
    fraction: float = 1.0
    """Share of train to use, stratified by class, in (0, 1]."""
    seed: int = 0
    """Seed of the split and of the order in the shards."""
    bits: int | None = None
    """Bits in use of 16-bit gray; 12 is the same as range 0,4095."""
    range: Words | None = None
    """Values of deep gray that become black and white."""
    background: Words = "255,255,255"
    """Colour under transparent pixels, R,G,B in 0..255."""
    frames: Literal["first", "refuse"] = "first"
    """For pictures of several frames: use the first, or refuse them."""
    max_pixels: int = 100_000_000
    """Pixels above which a picture is refused as a decompression bomb."""
    edited_copies: bool = False
    """Also look for mirrored, turned, cropped and bordered copies; decodes every picture once more."""
    max_reject_rate: float = 0.01
    """Share of unreadable pictures above which the command is refused, in [0, 1]."""
    workers: int | None = None
    """Processes, or Ray tasks at a time; None: one for each CPU."""
    on: Literal["local", "ray"] = "local"
    """local: processes of this machine. ray: the cluster of RAY_ADDRESS."""
    metrics_dir: Path | None = None
    """Folder of files for Prometheus: that of the node exporter's textfile collector; None: no file, and with on="ray"
    Ray's agents have the metrics."""

    def find_sources(self) -> SourceList:
        """Return the pictures; raises like `shards.sources.find.find_sources`."""
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
        """Return the pictures, with notes, and the options, changed so that missing splits named in `split` are made.

        Raises:
            UsageError: As `make_missing`.
        """
        if self.split is None:
            return listed, options
        from shards.splits.missing import make_missing  # late import: few sources lack only some splits

        split, notes = make_missing(options.split, {source.split for source in listed.sources})
        return replace(listed, notes=[*listed.notes, *notes]), options.model_copy(update={"split": split})

    def read(self) -> PackOptions:
        """Return the options of packing, or of auditing as packing would.

        Raises:
            UsageError: A value that an option does not accept.
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
        """Return the fields of StoreOptions to set, other than `decode`; those left out keep their defaults."""
        return {}

    def _more(self) -> dict[str, object]:
        """Return the fields of PackOptions to set, other than `split`, `store` and `max_reject_rate`."""
        return {}

    @contextlib.contextmanager
    def open_pool(self) -> Iterator[Pool]:
        """Yield the requested pool of processes or Ray tasks.

        Raises:
            UsageError: Fewer than one worker.
            ConnectionError: No Ray cluster.
        """
        check_count("--workers", self.workers, of="processes or tasks")
        if self.on == "ray":
            from shards.workers.ray_pool import open_ray_pool

            with open_ray_pool(self.workers) as pool:
                yield pool
            return
        with open_pool(self.workers or count_cpus()) as pool:
            yield pool

    @contextlib.contextmanager
    def measured(self, out: str | Path) -> Iterator[PackMeters]:
        """Yield what records the command's metrics while the block runs; to be entered inside of `open_pool`.

        out: The dataset to make, or the folder of an audit.
        """
        name = show_location(out).rstrip("/").rpartition("/")[2]
        with contextlib.ExitStack() as stack:
            if self.metrics_dir is None and self.on == "ray":
                from shards.workers.ray_meters import open_ray_meters

                meters = open_ray_meters(PACKING, dataset=name)
                stack.callback(meters.close)
            else:
                meters = stack.enter_context(open_textfile(self.metrics_dir, "pack", name, PACKING, dataset=name))
            measured = PackMeters(meters)
            with measured.running():
                yield measured

    def _read_form(self) -> ListForm:
        return parse_form(**{name: getattr(self, name) for name in _LIST_OPTIONS})

    def _read_shares(self) -> dict[str, float]:
        if self.split is None:
            return {} if self.every else parse_shares(DEFAULT_SHARES)
        return parse_shares(self.split)

    def _read_range(self) -> tuple[float, ...] | None:
        if self.bits is not None:
            if self.range is not None:
                raise UsageError("--bits and --range set the same thing in two ways; give one of them")
            if not 1 <= self.bits <= 32:
                raise UsageError(f"--bits is a number from 1 to 32, got {self.bits}")
            return 0.0, float(2**self.bits - 1)
        return None if self.range is None else _read_numbers("--range", self.range, 2)


class PackRequest(SourceOptions):
    """Options of `pack`, without the target."""

    UNRECORDED: ClassVar = ("src", "update", "workers", "on", "metrics_dir")
    """Locations, and options that do not change a dataset's bytes."""

    shard_bytes: Words = "64MiB"
    """Bytes of pictures in a shard, for example 64MiB; a tar has about 3 KiB more for each picture."""
    max_side: int | None = None
    """Longer side in pixels to which larger pictures are shrunk; None: no shrinking."""
    quality: int = 90
    """JPEG quality of shrunk pictures, 1 to 100."""
    positive: str | None = None
    """Class to be found, whose sensitivity is reported; changes no sample. None: the second of two classes."""
    update: bool = False
    """Add new pictures to a finished dataset without changing its shards."""
    audit: Literal["full", "none"] = "full"
    """none: pack without decoding; training then finds unreadable pictures."""
    allow_leaks: bool = False
    """Pack even if pictures leak between splits or labels conflict."""
    drop_duplicates: bool = False
    """Keep one of each set of equal pictures, none if their labels conflict."""

    def _store(self) -> dict[str, object]:
        return {"quality": self.quality, **({} if self.max_side is None else {"max_side": self.max_side})}

    def _more(self) -> dict[str, object]:
        given = ("audit", "edited_copies", "allow_leaks", "drop_duplicates", "positive")
        return {"shard_bytes": parse_size(self.shard_bytes)} | {name: getattr(self, name) for name in given}

    def spell(self) -> list[str]:
        """Return the words of the non-default options that determine a dataset."""
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
                # A separate value that begins with a dash would be parsed as an option.
                words += [f"{option}={text}"] if text.startswith("-") else [option, text]
        return words


def spell_path(path: object) -> str:
    """Return a path, or any other word, as valid UTF-8 text: other bytes are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _build(model: type[Model], **values: Any) -> Model:
    try:
        return model(**values)
    except ValidationError as err:
        raise UsageError(explain_invalid(err, _spell)) from err


def _spell(name: str) -> str:
    """Return the option that sets a field, or one of its items."""
    field = name.partition(".")[0]
    return f"--{ {'gray_range': 'range', 'merge': 'merge-and-resplit'}.get(field, field.replace('_', '-')) }"


def _read_numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        example = "0,4095" if count == 2 else "255,255,255"
        raise UsageError(f"{option} takes {count} numbers, for example {example}, got '{text}'")
    return numbers
