"""`python -m trainer.export BUNDLE --to onnx|torch-export|torchscript`: export a bundle for other programs.

The file takes uint8 pictures in batches of any size and normalises them itself. FILE.json beside it, and the file's own
metadata, describe how to turn a picture into its input and its outputs into an answer; FILE.py beside it does this with
Pillow, numpy and onnxruntime alone. The file is first compared with the bundle on the probes and on --data; the export
fails if a probability differs by more than --tolerance.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from shards.cli.calling import CommandParser
from shards.cli.ending import run_command
from shards.cli.messages import add_volume
from trainer.contract.model.names import EXPORT_KINDS
from trainer.export.options import ExportOptions

if TYPE_CHECKING:
    from trainer.export.export import Exported


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_args(argv))
    as_json = arguments.pop("json", False)
    options = ExportOptions(**arguments)
    from trainer.export.export import export  # late: torch takes seconds, and mistakes are told before

    done = export(options)
    print(done.page.model_dump_json()) if as_json else _tell(done)
    return 0


def _tell(done: Exported) -> None:
    file, page = done.file, done.page
    for source, parity in page.parity.items():
        print(f"{source}: {parity}")
    if page.kind == "torchscript":
        print("note: TorchScript is deprecated in PyTorch; prefer torch-export if your program can read it")
    print(f"file    {file}, {file.stat().st_size / 1e6:,.1f} MB; {file.name}.json beside it describes how to use it")
    print(f"answers python {file.with_name(page.script)} PICTURE...")


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m trainer.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    samples, tolerance = ExportOptions.default("samples"), ExportOptions.default("tolerance")
    parser.add_argument("bundle", help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("--to", choices=EXPORT_KINDS, required=True, help="format; torch-export is a .pt2 file")
    parser.add_argument(
        "--data", metavar="DATASET[:PART]", help="also compare on pictures of a dataset (default split: val)"
    )
    parser.add_argument("--samples", type=int, help=f"maximum number of pictures from --data (default: {samples})")
    parser.add_argument("--tolerance", type=float, help=f"largest difference of a probability (default: {tolerance})")
    parser.add_argument("--out", help="output file (default: BUNDLE/exports/model.onnx, .pt2 or .pt)")
    parser.add_argument("--json", action="store_true", help="print the description of the export as JSON")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
