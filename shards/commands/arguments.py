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
POSITIVE_HELP = "class that is looked for, whose sensitivity is told; changes no sample (default: of two the second)"
EDITED_HELP = "look for mirrored, turned, cropped, bordered copies, too; decodes every picture once more"


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
    group.add_argument("--alike", choices=ALIKE, help="of classes that look alike (Cat and cat, 1 and 01)")
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
    group.add_argument("--fraction", type=float, help="share of train to use, stratified")
    group.add_argument("--seed", type=int, help="seed of the split and of the order in the shards")
    group = parser.add_argument_group("decoding")
    group.add_argument("--bits", type=int, help="bits in use of 16-bit gray: 12 is the same as --range 0,4095")
    group.add_argument(
        "--range", metavar="LO,HI", help="values of deep gray that are black and white; --range=-1000,400 for a CT scan"
    )
    group.add_argument("--background", metavar="R,G,B", help="colour under transparent pixels")
    group.add_argument("--frames", choices=["first", "refuse"], help="of pictures with several frames")
    group.add_argument("--max-pixels", type=int, help="pixels above which a picture is a bomb")


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
    group.add_argument("--max-reject-rate", type=float, help="share of unreadable pictures to bear")
    group.add_argument("--workers", type=int, help="processes, or Ray tasks at a time (default: one for each CPU)")
    group.add_argument("--on", choices=["local", "ray"], help="ray: on the cluster of RAY_ADDRESS")
    group.add_argument("--json", action="store_true", help="print the result as JSON")


def set_defaults(parser: argparse.ArgumentParser, model: type[SourceOptions]) -> None:
    """Take the defaults of all arguments from the options object."""
    parser.set_defaults(
        **{name: field.default for name, field in model.model_fields.items() if not field.is_required()}
    )


def read_request(arguments: argparse.Namespace, model: type[Request]) -> Request:
    """Return what a command line asks for as its options object."""
    return model(**{name: value for name, value in vars(arguments).items() if name in model.model_fields})
