"""`python -m trainer.bench BUNDLE`: measure each back end, from pictures in memory and from encoded bytes.

Back ends alternate batch by batch (A B A B) after a warm-up. --choose also records in the bundle the fastest back end
on this kind of CPU among those that keep parity and start within 20 s; `cluster.serve` and `trainer.predict` use it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from shards.cli.arguments import read_count
from shards.cli.calling import CommandParser
from shards.cli.ending import run_command
from shards.cli.messages import add_volume, print_note
from trainer.bench.options import BenchOptions
from trainer.contract.model.names import BACKENDS, BackendName


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_args(argv))
    as_json = arguments.pop("json", False)
    options = BenchOptions(**arguments)
    from trainer.bench.bench import bench  # late: torch takes seconds, and mistakes are told before
    from trainer.bench.bench_page import draw_table

    done = bench(options)
    print(done.page.model_dump_json() if as_json else draw_table(done.page), flush=True)
    print_note(f"files   {done.folder}")
    return 0


def _read_sizes(text: str) -> list[int]:
    return [read_count(size) for size in text.split(",")]


def _read_names(text: str) -> Sequence[BackendName]:
    try:
        names = {BACKENDS.check(name) for name in text.split(",")}
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err
    return [name for name in BACKENDS if name in names]


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m trainer.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add, default = parser.add_argument, BenchOptions.default
    sizes, seconds, device = ",".join(map(str, default("batch_size"))), default("seconds"), default("device")
    add("bundle", help="folder of a bundle, for example runs/demo/bundle")
    add("--batch-size", type=_read_sizes, metavar="N,N", help=f"default: {sizes}")
    add("--backend", type=_read_names, metavar="NAME,NAME", help="default: all")
    add("--data", metavar="PATH", help="folder of pictures, or DATASET[:SPLIT]; default: the bundle's probes")
    add("--seconds", type=float, help=f"for each back end and batch size, at least 5 rounds (default: {seconds:g})")
    add(
        "--threads",
        type=int,
        help="of the model, and for decoding; with --choose, as many as a replica has (default: all CPUs)",
    )
    add("--device", choices=BenchOptions.choices("device"), help=f"default: {device}")
    add("--choose", action="store_true", help="record the fastest in the bundle, for this kind of CPU")
    add("--out", help="folder for table.md, bench.json and bench.png (default: benches/MODEL)")
    add("--json", action="store_true", help="print bench.json instead of the table")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
