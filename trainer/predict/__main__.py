"""`python -m trainer.predict BUNDLE PATH...`: label pictures that have no label; one CSV row a picture.

Pictures stream: any number takes no more memory than a few batches, and the names of a folder, archive, list or prefix.
Labels do not depend on --workers or --batch-size, logits do within the tolerance of the bundle's probes.

Several labels of a picture are joined by `;`; none are an empty cell, or an empty list with --json.
Where the bundle has a decision of trainer.decide, rows say `decision` and `abstain`, too, and what else it has of
`ood_score` and `set` (classes joined by ;).

With --out, a command that was stopped goes on where it was when it is run again (OUT.partial.jsonl has what is done).
Pictures that cannot be read are named on standard error and in OUT.unreadable.csv, and the others are done.
"""

from __future__ import annotations

import argparse
import sys

from shards.cli.arguments import read_count
from shards.cli.calling import CommandParser
from shards.cli.ending import REFUSED, run_command
from shards.cli.messages import add_volume, write_line
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
        raise Interrupted("interrupted; give --out for a command that goes on where it was stopped") from None
    if done.unreadable:
        told = f"{done.unreadable:,} of {done.pictures:,} pictures could not be read; the others are done"
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
        "--list", dest="lists", action="append", metavar="FILE", help="a file with a path a line, or a .csv"
    )
    group = parser.add_argument_group("lists", "what a .csv or .parquet list that follows other names means")
    group.add_argument("--list-columns", metavar="path=NAME", help="column of the paths (path)")
    group.add_argument("--base", metavar="DIR", help="folder of its relative paths (that of the list)")
    group.add_argument("--ending", metavar=".jpg", help="what is added to paths that do not end so")
    group = parser.add_argument_group("answers")
    group.add_argument("--out", help="write .csv, .parquet or .jsonl instead of CSV to standard output")
    group.add_argument(
        "--columns", type=_read_columns, metavar="A,B", help="columns in this order, such as image_id,label"
    )
    group.add_argument("--json", dest="json_lines", action="store_true", help="one JSON object a line instead of CSV")
    group.add_argument("--grid", metavar="FOLDER", help="pages of 4 x 4 pictures with their predictions")
    group.add_argument("--grid-pages", type=read_count, metavar="N", help=f"pages at most ({pages})")
    group.add_argument("--strict", action="store_true", help="exit with 3 when a picture could not be read")
    group = parser.add_argument_group("computing")
    group.add_argument(
        "--workers",
        type=_read_workers,
        metavar="N",
        help="threads that read and decode, on Ray processes that compute; auto: one a CPU (auto)",
    )
    group.add_argument("--batch-size", type=read_count, metavar="N", help=f"pictures at once ({size})")
    group.add_argument(
        "--backend",
        choices=(AUTO, *BACKENDS),
        help="what computes; auto is the one that `trainer.bench --choose` recorded for this CPU, or eager",
    )
    group.add_argument(
        "--on",
        choices=choices("on"),
        help="ray: the cluster of RAY_ADDRESS, or one started here; its nodes must see BUNDLE and PATHs "
        f"({default('on')})",
    )
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
