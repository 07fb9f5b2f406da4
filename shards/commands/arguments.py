"""Arguments that several commands share, and what they become: sources, options, a pool."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from shards.cli.arguments import check_count
from shards.errors import UsageError, explain_invalid
from shards.files.sizes import parse_size
from shards.packing.encode import StoreOptions
from shards.packing.options import PackOptions
from shards.pictures.decode import DecodeOptions
from shards.sources.alike import ALIKE
from shards.sources.find import find_sources
from shards.sources.kinds import PACKED_KINDS, describe
from shards.sources.list_form import ListForm, parse_form
from shards.sources.model import SourceList
from shards.splits.missing import make_missing
from shards.splits.splits import ONLY_TEST, SplitOptions, parse_merge, parse_shares
from shards.workers.openmp import count_cpus
from shards.workers.pools import Pool, open_pool

Model = TypeVar("Model", bound=BaseModel)
STYLE = argparse.ArgumentDefaultsHelpFormatter
POSITIVE_HELP = "class that is looked for, whose sensitivity is told; changes no sample (default: of two the second)"
EDITED_HELP = "look for mirrored, turned, cropped, bordered copies, too; decodes every picture once more"
DEFAULT_SHARES = "val=0.1,test=0.1"
_LIST_OPTIONS = ("columns", "base", "ending", "one_hot", "labels_as", "empty_labels")
_NO_OPTIONS = ("parser", "src", "out", "update", "workers", "on", "json")
"""Of what a command line holds: what the command itself puts there, places, and what changes no byte of a dataset."""


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which pictures there are, how they are decoded and how they are split."""
    parser.add_argument(
        "src", type=Path, help=describe(PACKED_KINDS)
    )  # fmt: skip
    group = parser.add_argument_group("sources")
    group.add_argument("--unlabelled", action="store_true", help="all pictures below SRC, without labels")
    add_layout_argument(group)
    add_names_argument(group)
    group.add_argument("--class-names", type=Path, metavar="FILE", help="display names: `0 NAME` lines, JSON or YAML")
    group.add_argument(
        "--alike", choices=ALIKE, default="refuse", help="of classes that look alike (Cat and cat, 1 and 01)"
    )
    group.add_argument(
        "--drop-empty-classes", action="store_true", help="leave out class folders without a picture that is read"
    )
    group.add_argument("--group-regex", metavar="RE", help="what to keep in one split, such as '(person\\d+)'")
    add_list_arguments(parser)
    group = parser.add_argument_group("splits")
    group.add_argument(
        "--split", help=f"shares where SRC has no splits (default: {DEFAULT_SHARES}); one that SRC lacks is made out "
        "of its train; none = all train; test=1 = all to evaluate on"
    )  # fmt: skip
    group.add_argument("--every", type=int, metavar="N", help="each Nth picture of a class to test, no randomness")
    group.add_argument("--merge-and-resplit", metavar="A,B", help="pool these splits of SRC and split them anew")
    group.add_argument("--fraction", type=float, default=1.0, help="share of train to use, stratified")
    group.add_argument("--seed", type=int, default=0, help="seed of the split and of the order in the shards")
    group = parser.add_argument_group("decoding")
    group.add_argument("--bits", type=int, help="bits in use of 16-bit gray: 12 is the same as --range 0,4095")
    group.add_argument(
        "--range", metavar="LO,HI", help="values of deep gray that are black and white; --range=-1000,400 for a CT scan"
    )
    group.add_argument("--background", metavar="R,G,B", default="255,255,255", help="colour under transparent pixels")
    group.add_argument("--frames", choices=["first", "refuse"], default="first", help="of pictures with several frames")
    group.add_argument("--max-pixels", type=int, default=100_000_000, help="pixels above which a picture is a bomb")


def add_layout_argument(group: argparse._ActionsContainer) -> None:
    """Add what says what the folders of pictures mean."""
    group.add_argument(
        "--layout", metavar="FOLDERS", help="what the folders mean, from the top down: split/class, class/split, "
        "class/... (all that lies in it), any/class (one above means nothing), class/NAME (its folders NAME alone)"
    )  # fmt: skip


def add_names_argument(group: argparse._ActionsContainer) -> None:
    """Add what says how names in an archive are encoded."""
    group.add_argument(
        "--names", metavar="ENCODING", help="of the names in an archive that does not say it, such as cp850, cp866, "
        "shift_jis (default: the one of utf-8, gbk and cp437 or latin-1 that fits)"
    )  # fmt: skip


def add_list_arguments(parser: argparse.ArgumentParser, columns: str = "--columns") -> None:
    """Add what says how a list is read; columns: the option that names its columns."""
    group = parser.add_argument_group("lists", "what a .csv or .parquet that follows other names means")
    group.add_argument(
        columns, metavar="ROLE=NAME,..", help="columns by what they are: path=filename,label=class; split= for none"
    )
    group.add_argument("--base", type=Path, metavar="DIR", help="folder of its relative paths (default: the list's)")
    group.add_argument("--ending", metavar=".jpg", help="what is added to paths that do not end so")
    group.add_argument("--one-hot", metavar="NAME,..", help="columns of 0 and 1, one for each class; no label column")
    group.add_argument(
        "--labels-as", "--label-separator", metavar="FORM", help="';', '|' or what else separates several labels; "
        "list: cells are ['cat', 'dog']; one: each cell is one class"
    )  # fmt: skip
    group.add_argument(
        "--empty-labels",
        action="store_true",
        help="rows without a label show none of the classes (unasked, where any row has several labels)",
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says how a long command is carried out."""
    group = parser.add_argument_group("running")
    group.add_argument("--max-reject-rate", type=float, default=0.01, help="share of unreadable pictures to bear")
    group.add_argument("--workers", type=int, help="processes, or Ray tasks at a time (default: one for each CPU)")
    group.add_argument("--on", choices=["local", "ray"], default="local", help="ray: on the cluster of RAY_ADDRESS")
    group.add_argument("--json", action="store_true", help="print the result as JSON")


def spell_options(arguments: argparse.Namespace) -> list[str]:
    """Return the words of the options that are not at their defaults and that a dataset depends on."""
    parser: argparse.ArgumentParser = arguments.parser
    words: list[str] = []
    for name, value in vars(arguments).items():
        if name in _NO_OPTIONS or value == parser.get_default(name):
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


def read_sources(arguments: argparse.Namespace) -> SourceList:
    """Return the pictures that the arguments name; raises as `find_sources`."""
    return find_sources(
        arguments.src,
        unlabelled=arguments.unlabelled,
        layout=arguments.layout,
        class_names=arguments.class_names,
        group_regex=arguments.group_regex,
        form=_read_form(arguments),
        alike=arguments.alike,
        drop_empty=arguments.drop_empty_classes,
        incomplete=_read_shares(arguments) == ONLY_TEST,
        names=arguments.names,
    )


def settle_splits(
    arguments: argparse.Namespace, listed: SourceList, options: PackOptions
) -> tuple[SourceList, PackOptions]:
    """Return the pictures, with notes, and the options by which splits are made that --split names and they lack.

    Raises:
        UsageError: As `make_missing`.
    """
    if arguments.split is None:
        return listed, options
    split, notes = make_missing(options.split, {source.split for source in listed.sources})
    return replace(listed, notes=[*listed.notes, *notes]), options.model_copy(update={"split": split})


def _read_form(arguments: argparse.Namespace) -> ListForm:
    return parse_form(**{name: getattr(arguments, name) for name in _LIST_OPTIONS})


def read_options(arguments: argparse.Namespace, **more: object) -> PackOptions:
    """Return the options of packing, or of auditing as packing would.

    Raises:
        UsageError: A value that an option does not take.
    """
    decode = _build(
        DecodeOptions,
        gray_range=_read_range(arguments),
        background=_read_numbers("--background", arguments.background, 3),
        frames=arguments.frames,
        max_pixels=arguments.max_pixels,
    )
    store = _build(StoreOptions, decode=decode, **_given(arguments, "max_side", "quality"))
    split = _build(
        SplitOptions,
        seed=arguments.seed,
        shares=_read_shares(arguments),
        every=arguments.every,
        fraction=arguments.fraction,
        merge=parse_merge(arguments.merge_and_resplit) if arguments.merge_and_resplit else (),
    )
    if "shard_bytes" in arguments:
        more["shard_bytes"] = parse_size(arguments.shard_bytes)
    return _build(PackOptions, split=split, store=store, max_reject_rate=arguments.max_reject_rate, **more)


@contextlib.contextmanager
def choose_pool(arguments: argparse.Namespace) -> Iterator[Pool]:
    """Yield the processes or the Ray tasks that the arguments ask for.

    Raises:
        UsageError: No worker, or no Ray cluster.
    """
    check_count("--workers", arguments.workers, of="processes or tasks")
    if arguments.on == "ray":
        from shards.workers.ray_pool import open_ray_pool

        with open_ray_pool(arguments.workers) as pool:
            yield pool
        return
    with open_pool(arguments.workers or count_cpus()) as pool:
        yield pool


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, object]:
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name, None) is not None}


def _build(model: type[Model], **values: object) -> Model:
    try:
        return model(**values)
    except ValidationError as err:
        raise UsageError(explain_invalid(err, _spell)) from err


def _spell(name: str) -> str:
    """Return the option that gives a field, or one of its items."""
    field = name.partition(".")[0]
    return f"--{ {'gray_range': 'range', 'merge': 'merge-and-resplit'}.get(field, field.replace('_', '-')) }"


def _read_shares(arguments: argparse.Namespace) -> dict[str, float]:
    if arguments.split is None:
        return {} if arguments.every else parse_shares(DEFAULT_SHARES)
    return parse_shares(arguments.split)


def _read_range(arguments: argparse.Namespace) -> tuple[float, ...] | None:
    if arguments.bits is not None:
        if arguments.range is not None:
            raise UsageError("--bits and --range say the same thing in two ways; give one of them")
        if not 1 <= arguments.bits <= 32:
            raise UsageError(f"--bits is a number from 1 to 32, got {arguments.bits}")
        return 0.0, float(2**arguments.bits - 1)
    return None if arguments.range is None else _read_numbers("--range", arguments.range, 2)


def _read_numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        example = "0,4095" if count == 2 else "255,255,255"
        raise UsageError(f"{option} takes {count} numbers such as {example}, got '{text}'")
    return numbers
