"""`python -m trainer.decide BUNDLE DATA[:val]`: fit how a bundle's logits become decisions, on validation data.

The result is stored in the bundle, replacing an earlier one, and used by trainer.predict and the endpoint.

  trainer.decide runs/demo/bundle data/elpv-shards
  trainer.decide runs/demo/bundle data/elpv-shards --point 'recall>=0.98' --positive DEFECTIVE
  trainer.decide runs/demo/bundle data/elpv-shards --point 'recall>=0.98 with 95 %' --positive DEFECTIVE
  trainer.decide runs/demo/bundle data/elpv-shards --point 'cost fn=5,fp=1' --positive DEFECTIVE \\
      --deploy-prior DEFECTIVE=0.02
  trainer.decide runs/demo/bundle data/elpv-shards --conformal 0.9 --ood 0.95 --out runs/demo/careful
  trainer.decide runs/demo/bundle data/elpv-shards --conformal 0.9 --conformal-by class
  trainer.decide runs/demo/bundle data/elpv-shards:test --check
  trainer.decide runs/demo/bundle --show
  trainer.decide runs/demo/bundle --reset

Logits are divided by the temperature, then re-weighted to the class shares at deployment; the operating point and the
sets use the resulting probabilities. With several labels per picture, each class has its own operating point: all of
them, or only that of --positive. A goal that cannot be reached ends with exit code 3 and changes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from shards.cli.calling import CommandParser, respell
from shards.cli.ending import run_command
from shards.cli.messages import add_volume
from trainer.decide.options import DecideOptions

if TYPE_CHECKING:
    from trainer.decide.decide import BundleDecision


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_args(argv))
    as_json = arguments.pop("json", False)
    options = DecideOptions(**arguments)
    from trainer.decide.decide import decide  # late: torch takes seconds, and mistakes are told before

    result = decide(options)
    print(_dump(result) if as_json else respell("\n".join(_describe(result))))
    return 0


def _dump(result: BundleDecision) -> str:
    if result.checked is not None:
        return result.checked.model_dump_json()
    page, fit = result.page, result.temperature
    told: dict[str, Any] = {"bundle": str(result.folder), "fingerprint": page.fingerprint()}
    told |= {"decision": page.decision.state_rule().model_dump(mode="json")}
    told |= {"foreign": result.foreign} if result.foreign else {}
    return json.dumps(
        told | ({"log_loss_before": fit.log_loss_before, "log_loss_after": fit.log_loss_after} if fit else {})
    )


def _describe(result: BundleDecision) -> list[str]:
    from trainer.decide.check import Checked, describe_check
    from trainer.decide.check_each import CheckedEach, describe_check_each
    from trainer.decide.telling import describe_decision

    if isinstance(result.checked, Checked):
        return describe_check(result.checked, result.page.decision)
    if isinstance(result.checked, CheckedEach):
        return describe_check_each(result.checked)
    fit = result.temperature
    losses = [f"log loss     {fit.log_loss_before:.4f} -> {fit.log_loss_after:.4f} by the temperature"] if fit else []
    lines = describe_decision(result.page.decision, result.page.classes)
    flagged = [f"{hits} of {number} {kind}" for kind, (hits, number) in (result.foreign or {}).items()]
    foreign = [f"foreign      flags {', '.join(flagged)}"] if flagged else []
    from trainer.contract.compute.exported import describe_stale

    stale = [f"note: {each}" for each in describe_stale(result.folder, result.page.decision)]
    return [*losses, *lines, *foreign, *stale, f"bundle       {result.folder}"]


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m trainer.decide",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("bundle", help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("data", nargs="?", help="folder of a dataset, and the split (default: val)")
    _add_answers(parser)
    _add_abstaining(parser)
    parser.add_argument("--out", help="write a copy of the bundle there (default: change the bundle itself)")
    workers = DecideOptions.default("workers")
    parser.add_argument("--workers", type=int, help=f"decoding threads (default: {workers})")
    parser.add_argument("--json", action="store_true", help="print the decision as one JSON object")
    parser.add_argument("--show", action="store_true", help="print the stored decision and change nothing")
    parser.add_argument(
        "--check",
        action="store_true",
        help="evaluate the stored decision on DATA (default: its test split), change nothing",
    )
    parser.add_argument("--reset", action="store_true", help="return to the most probable class, by plain softmax")
    add_volume(parser)
    return parser


def _add_answers(parser: argparse.ArgumentParser) -> None:
    """Add the options for fitting what is answered: calibrated probabilities, an operating point, conformal sets."""
    default, choices = DecideOptions.default, DecideOptions.choices
    parser.add_argument(
        "--temperature",
        action=argparse.BooleanOptionalAction,
        help="fit one number that calibrates the probabilities (default: --temperature)",
    )
    parser.add_argument(
        "--point",
        metavar="GOAL",
        help="recall>=0.98, 'recall>=0.98 with 95 %%' (confidence on new pictures), precision>=0.95,"
        " max-f1, 'cost fn=5,fp=1', sens@spec=0.9 (default: most probable class; "
        "with several labels, each class from 0.5 on)",
    )
    parser.add_argument(
        "--positive", metavar="CLASS", help="the class for --point (default: that of the bundle or dataset)"
    )
    parser.add_argument(
        "--conformal",
        type=float,
        metavar="LEVEL",
        help="sets that hold the true class with this probability, such as 0.9 (default: none)",
    )
    parser.add_argument(
        "--conformal-score",
        choices=choices("conformal_score"),
        help="lac: smallest sets on average; aps: larger ones if the model is uncertain "
        f"(default: {default('conformal_score')})",
    )
    parser.add_argument(
        "--conformal-by",
        choices=choices("conformal_by"),
        help="all: the level holds on average over all pictures; class: for the pictures of each class "
        f"(default: {default('conformal_by')})",
    )


def _add_abstaining(parser: argparse.ArgumentParser) -> None:
    """Add the options for when no answer is given, and for class shares that differ from those of training."""
    default, choices = DecideOptions.default, DecideOptions.choices
    parser.add_argument(
        "--ood",
        type=float,
        metavar="KEPT",
        help="score distance from training pictures; abstain beyond this share of them, such as 0.95 (default: none)",
    )
    parser.add_argument(
        "--ood-score",
        choices=choices("ood_score"),
        help="residual: what lies outside the main directions of features; mahalanobis: the distance to the nearest "
        f"class (default: {default('ood_score')})",
    )
    parser.add_argument(
        "--ood-fit",
        choices=choices("ood_fit"),
        help="pictures that the score compares with: train, or half of DATA's own split "
        f"(default: {default('ood_fit')})",
    )
    parser.add_argument(
        "--abstain-below", type=float, metavar="P", help="abstain if no class has this probability (default: never)"
    )
    parser.add_argument(
        "--deploy-prior",
        metavar="CLASS=SHARE,...",
        help="class shares at deployment; unnamed classes share the rest (default: as in training)",
    )
    parser.add_argument(
        "--train-prior",
        metavar="CLASS=SHARE,...",
        help="class shares in training; equal ones after stream.order=balanced (default: the train split's)",
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
