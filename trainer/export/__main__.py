"""`python -m trainer.export BUNDLE --to onnx|torch-export|torchscript`: a bundle for programs that know nothing of it.

The file takes uint8 pictures in batches of any size and normalises them itself; FILE.json beside it, and the file's own
metadata, say how a picture becomes its input and its outputs an answer; FILE.py beside it does all that with Pillow,
numpy and onnxruntime alone. The file is compared with the bundle first, on the probes and on --data, and refused when a
probability differs by more than --tolerance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shards.cli.arguments import check_count
from shards.cli.ending import run_command
from shards.cli.messages import add_volume
from shards.errors import UsageError
from trainer.contract.model.names import EXPORT_KINDS

if TYPE_CHECKING:
    from trainer.contract.compute.exported import ExportPage


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    if not 0 <= arguments.tolerance <= 1:
        raise UsageError(f"--tolerance is a difference of probabilities, in [0, 1], got {arguments.tolerance}")
    check_count("--samples", arguments.samples, of="pictures")
    from trainer.contract.bundle import read_bundle_page
    from trainer.contract.compute.exported import default_path
    from trainer.export.export import export_bundle, require_libraries
    from trainer.export.pictures import read_pictures

    read_bundle_page(arguments.bundle)  # the most common mistakes first
    require_libraries(arguments.to)
    pictures = read_pictures(arguments.data, arguments.samples) if arguments.data else None
    path = arguments.out or default_path(arguments.bundle, arguments.to)
    page = export_bundle(arguments.bundle, arguments.to, path, pictures, arguments.tolerance)
    print(page.model_dump_json()) if arguments.json else _tell(page, path)
    return 0


def _tell(page: ExportPage, path: Path) -> None:
    for source, parity in page.parity.items():
        print(f"{source}: {parity}")
    if page.kind == "torchscript":
        print("note: PyTorch gives TorchScript up; torch-export lasts longer where the program can read it")
    print(f"file    {path}, {path.stat().st_size / 1e6:,.1f} MB; {path.name}.json beside it says how to use it")
    print(f"answers python {path.with_name(page.script)} PICTURE...")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("--to", choices=EXPORT_KINDS, required=True, help="format; torch-export is a .pt2 file")
    parser.add_argument(
        "--data", metavar="DATASET[:PART]", help="compare on pictures of it, too; val where no part is named"
    )
    parser.add_argument("--samples", type=int, default=256, help="of --data, at most (default: 256)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, help="largest difference of a probability (default: 0.001)"
    )
    parser.add_argument("--out", type=Path, help="the file; by default BUNDLE/exports/model.onnx, .pt2 or .pt")
    parser.add_argument("--json", action="store_true", help="print the description of the export as JSON")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
