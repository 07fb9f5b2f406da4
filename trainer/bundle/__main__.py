"""`python -m trainer.bundle WEIGHTS --model NAME --classes a,b --preprocess crop:256:224`: make a bundle from any
weights.

WEIGHTS is a file of any extension (recognised by content, never run), a URI, or a value of a recipe's `weights`. It
must have every tensor of the model. From a bundle, everything not set otherwise is copied, except its decision and
metrics, which only apply to it. The new bundle has no metrics or training facts that are unknown.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from shards.cli.calling import CommandParser, respell
from shards.cli.ending import run_command
from shards.cli.messages import add_volume
from trainer.bundle.options import CHANNELS, TASK, BundleOptions

if TYPE_CHECKING:
    from trainer.bundle.checkpoint import Bundled


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_args(argv))
    as_json = arguments.pop("json", False)
    options = BundleOptions(**arguments)
    from trainer.bundle.checkpoint import bundle_checkpoint  # late: torch takes seconds, and mistakes are told before

    made = bundle_checkpoint(options)
    print(_dump(made) if as_json else respell(_describe(made)))
    return 0


def _dump(made: Bundled) -> str:
    report = made.report
    told = {"tensors": report.matched, "changes": report.changes, "left_out": report.left_out, "origin": made.origin}
    return json.dumps({"bundle": str(made.folder), **told})


def _describe(made: Bundled) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (made.model.mean, made.model.std))
    pictures = made.preprocess
    resize = f" from {pictures.resize}" if pictures.resize else ""
    advice = "" if made.was_bundle else "; if training had others, give --normalise or --mean and --std"
    return (
        f"weights     {made.report}\n"
        f"pictures    {pictures.policy}{resize} to {pictures.size} pixels, {pictures.interpolation}\n"
        f"normalised  mean {mean}; std {std}{advice}\n"
        f"bundle      {made.folder}"
    )


def build_parser() -> CommandParser:
    choices = BundleOptions.choices
    parser = CommandParser(
        prog="python -m trainer.bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "weights",
        help="a file of any ending, a URI, a folder of Hugging Face's, or a recipe's `weights`: IMAGENET1K_V2",
    )
    parser.add_argument("--model", help="architecture, see `python -m trainer.models`; default: a bundle's own")
    parser.add_argument(
        "--classes", help="a,b in the order of the outputs, or a file: one per line, display name after a tab or comma"
    )
    parser.add_argument(
        "--preprocess",
        help="stretch:SIZE, letterbox:SIZE, crop:SIZE or crop:RESIZE:SIZE; default: the model's own crop",
    )
    parser.add_argument("--interpolation", choices=choices("interpolation"), help="default: the model's own")
    parser.add_argument("--normalise", choices=choices("normalise"), help="half is x*2-1; default: the model's own")
    parser.add_argument("--mean", help="instead of --normalise: 0.485,0.456,0.406, on the scale 0..1")
    parser.add_argument("--std", help="the same")
    parser.add_argument(
        "--channels", type=int, choices=choices("channels"), help=f"1: convert pictures to gray (default: {CHANNELS})"
    )
    parser.add_argument(
        "--backbone-channels",
        type=int,
        choices=choices("backbone_channels"),
        help=f"channels of the first convolution (default: {CHANNELS})",
    )
    parser.add_argument(
        "--task",
        choices=choices("task"),
        help=f"multi-label: each output is a separate class with a sigmoid (default: {TASK}, a softmax)",
    )
    parser.add_argument("--positive", metavar="CLASS", help="positive class; default: that of the bundle or dataset")
    parser.add_argument(
        "--key",
        help="which of several models in the file: keys joined by dots, or a prefix of tensor names",
    )
    parser.add_argument(
        "--no-ema",
        dest="ema",
        action="store_false",
        help="use the plain weights even if the file has their average as state_dict_ema or model_ema",
    )
    parser.add_argument(
        "--allow-leftovers",
        action="store_true",
        help="accept a file with tensors that the model lacks, for example those of another network",
    )
    parser.add_argument("--dataset", help="the packed dataset that it was trained on, if there is one")
    parser.add_argument("--out", help="output folder; default: bundles/NAME of the file")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
