"""`python -m trainer.predict BUNDLE PATH...`: predict the labels of pictures; one CSV row per picture.

Pictures are streamed: memory holds a few batches, and the names in a folder, archive, list or prefix. Labels do not
depend on --workers or --batch-size; logits may differ within the tolerance of the bundle's probes.

Several labels of a picture are joined by `;`; no label is an empty cell, or an empty list with --json. If the bundle
has a decision from trainer.decide, rows also have `decision` and `abstain`, and `ood_score` and `set` (classes joined
by `;`) if fitted.

With --out, running a stopped command again resumes it (OUT.partial.jsonl has the finished rows). Unreadable pictures
are listed on standard error and in OUT.unreadable.csv; the others are predicted.
"""

from __future__ import annotations

import argparse
import sys

from shards.cli.arguments import read_count
from shards.cli.calling import CommandParser
from shards.cli.ending import REFUSED, run_command
from shards.cli.messages import add_volume, write_line
from shards.commands.arguments import add_names_argument
from shards.errors import Interrupted
from shards.sources.kinds import KINDS, describe
from trainer.contract.model.names import AUTO, BACKENDS
from trainer.predict.options import PredictOptions


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_args(argv))
    is_strict = arguments.pop("strict", False)
    options = PredictOptions(**arguments)
    from trainer.predict.predict import predict  # late: torch takes seconds, and mistakes are told before

    try:
        done = predict(options, sys.stdout, write_line)
    except KeyboardInterrupt:
        if options.out is not None:
            raise
        raise Interrupted("interrupted; use --out for a command that can be resumed") from None
    if done.unreadable:
        told = f"{done.unreadable:,} of {done.pictures:,} pictures could not be read; all others are done"
        print(told, file=sys.stderr)
    return REFUSED if done.unreadable and is_strict else 0


def _read_workers(text: str) -> int | None:
    return None if text == AUTO else read_count(text)


def _read_columns(text: str) -> list[str] | None:
    return text.split(",") if text else None


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m trainer.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    default, choices = PredictOptions.default, PredictOptions.choices
    size, pages = default("batch_size"), default("grid_pages")
    parser.add_argument("bundle", help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"{describe(KINDS)}; one split is DATASET:test")
    parser.add_argument(
        "--list", dest="lists", action="append", metavar="FILE", help="a file with one path per line, or a .csv"
    )
    group = parser.add_argument_group("lists", "how to read .csv and .parquet lists")
    group.add_argument("--list-columns", metavar="path=NAME", help="column of paths (path)")
    group.add_argument("--base", metavar="DIR", help="folder of relative paths (that of the list)")
    group.add_argument("--ending", metavar=".jpg", help="extension appended to paths that lack it")
    add_names_argument(parser)
    group = parser.add_argument_group("answers")
    group.add_argument("--out", help="write .csv, .parquet or .jsonl instead of CSV to standard output")
    group.add_argument(
        "--columns", type=_read_columns, metavar="A,B", help="columns in this order, such as image_id,label"
    )
    group.add_argument("--json", dest="json_lines", action="store_true", help="one JSON object per line instead of CSV")
    group.add_argument("--grid", metavar="FOLDER", help="pages of 4 x 4 pictures with their predictions")
    group.add_argument("--grid-pages", type=read_count, metavar="N", help=f"maximum number of pages ({pages})")
    group.add_argument("--strict", action="store_true", help="exit with code 3 if a picture could not be read")
    group = parser.add_argument_group("computing")
    group.add_argument(
        "--workers",
        type=_read_workers,
        metavar="N",
        help="threads for reading and decoding, or processes on Ray; auto: one per CPU (auto)",
    )
    group.add_argument("--batch-size", type=read_count, metavar="N", help=f"pictures per forward pass ({size})")
    group.add_argument(
        "--backend",
        choices=(AUTO, *BACKENDS),
        help="back end; auto: the one recorded by `trainer.bench --choose` for this CPU, or eager",
    )
    group.add_argument(
        "--on",
        choices=choices("on"),
        help="ray: on the cluster of RAY_ADDRESS, or one started here; its nodes must be able to read BUNDLE and PATHs "
        f"({default('on')})",
    )
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
