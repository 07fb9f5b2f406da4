"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeVar

from shards.commands.options import DEFAULT_SHARES, SourceOptions
from shards.sources.alike import ALIKE
from shards.sources.kinds import PACKED_KINDS, describe

Request = TypeVar("Request", bound=SourceOptions)
STYLE = argparse.ArgumentDefaultsHelpFormatter
POSITIVE_HELP = (
    "class to be found, whose sensitivity is reported; changes no sample (default: the second of two classes)"
)
EDITED_HELP = "also look for mirrored, turned, cropped and bordered copies; decodes every picture once more"


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for finding, decoding and splitting pictures."""
    parser.add_argument("src", type=Path, help=describe(PACKED_KINDS))
    group = parser.add_argument_group("sources")
    group.add_argument("--unlabelled", action="store_true", help="use all pictures below SRC, without labels")
    add_layout_argument(group)
    add_names_argument(group)
    group.add_argument("--class-names", type=Path, metavar="FILE", help="display names: `0 NAME` lines, JSON or YAML")
    group.add_argument("--alike", choices=ALIKE, help="what to do with classes that look alike (Cat and cat, 1 and 01)")
    group.add_argument(
        "--drop-empty-classes", action="store_true", help="leave out class folders without a readable picture"
    )
    group.add_argument("--group-regex", metavar="RE", help="what to keep in one split, for example '(person\\d+)'")
    add_list_arguments(parser)
    group = parser.add_argument_group("splits")
    group.add_argument(
        "--split",
        help=f"shares if SRC has no splits (default: {DEFAULT_SHARES}); a split that SRC lacks is taken "
        "from its train; none = all train; test=1 = all to evaluate on",
    )
    group.add_argument(
        "--every", type=int, metavar="N", help="every Nth picture of a class goes to test, without randomness"
    )
    group.add_argument("--merge-and-resplit", metavar="A,B", help="pool these splits of SRC and split them again")
    group.add_argument("--fraction", type=float, help="share of train to use, stratified")
    group.add_argument("--seed", type=int, help="seed of the split and of the order in the shards")
    group = parser.add_argument_group("decoding")
    group.add_argument("--bits", type=int, help="bits in use of 16-bit gray: 12 is the same as --range 0,4095")
    group.add_argument(
        "--range",
        metavar="LO,HI",
        help="values of deep gray that become black and white; --range=-1000,400 for a CT scan",
    )
    group.add_argument("--background", metavar="R,G,B", help="colour under transparent pixels")
    group.add_argument("--frames", choices=["first", "refuse"], help="what to do with pictures of several frames")
    group.add_argument("--max-pixels", type=int, help="pixels above which a picture is refused as a decompression bomb")


def add_layout_argument(group: argparse._ActionsContainer) -> None:
    """Add the argument for the meaning of folders."""
    group.add_argument(
        "--layout",
        metavar="FOLDERS",
        help="what the folders mean, from the top down: split/class, class/split, class/... (a class is everything "
        "below its folder), any/class (the folder above has no meaning), class/NAME (only folders NAME in each class)",
    )


def add_names_argument(group: argparse._ActionsContainer) -> None:
    """Add the argument for the encoding of names in an archive."""
    group.add_argument(
        "--names",
        metavar="ENCODING",
        help="encoding of names in an archive that does not declare it, for example cp850, cp866, shift_jis (default: "
        "the one of utf-8, gbk and cp437 or latin-1 that fits)",
    )


def add_list_arguments(parser: argparse.ArgumentParser, columns: str = "--columns") -> None:
    """Add the arguments for reading a list; columns: the option that names its columns."""
    group = parser.add_argument_group("lists", "how to read a .csv or .parquet with other column names")
    group.add_argument(
        columns, metavar="ROLE=NAME,..", help="columns by role: path=filename,label=class; split= for none"
    )
    group.add_argument("--base", type=Path, metavar="DIR", help="folder of its relative paths (default: the list's)")
    group.add_argument("--ending", metavar=".jpg", help="suffix to add to paths that lack it")
    group.add_argument("--one-hot", metavar="NAME,..", help="columns of 0 and 1, one for each class; no label column")
    group.add_argument(
        "--labels-as",
        "--label-separator",
        metavar="FORM",
        help="what separates several labels: ';', '|' or another separator; "
        "list: cells are ['cat', 'dog']; one: each cell is one class",
    )
    group.add_argument(
        "--empty-labels",
        action="store_true",
        help="rows without a label show none of the classes (the default if any row has several labels)",
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for running a long command."""
    group = parser.add_argument_group("running")
    group.add_argument("--max-reject-rate", type=float, help="share of unreadable pictures that is accepted")
    group.add_argument("--workers", type=int, help="processes, or Ray tasks at a time (default: one for each CPU)")
    group.add_argument("--on", choices=["local", "ray"], help="ray: on the cluster of RAY_ADDRESS")
    group.add_argument(
        "--metrics-dir",
        type=Path,
        metavar="DIR",
        help="write a file for Prometheus to this folder, that of the node exporter's textfile collector",
    )
    group.add_argument("--json", action="store_true", help="print the result as JSON")


def set_defaults(parser: argparse.ArgumentParser, model: type[SourceOptions]) -> None:
    """Take the defaults of all arguments from the options class."""
    parser.set_defaults(
        **{name: field.default for name, field in model.model_fields.items() if not field.is_required()}
    )


def read_request(arguments: argparse.Namespace, model: type[Request]) -> Request:
    """Return a command line's arguments as its options object."""
    return model(**{name: value for name, value in vars(arguments).items() if name in model.model_fields})
