"""`python -m trainer.decide BUNDLE DATA[:val]`: how a bundle's logits become decisions, fitted on validation.

What is fitted is stored in the bundle and used by trainer.predict and the endpoint alike; what was there is replaced.

  trainer.decide runs/demo/bundle data/elpv-shards
  trainer.decide runs/demo/bundle data/elpv-shards --point 'recall>=0.98' --positive DEFECTIVE
  trainer.decide runs/demo/bundle data/elpv-shards --point 'cost fn=5,fp=1' --positive DEFECTIVE \\
      --deploy-prior DEFECTIVE=0.02
  trainer.decide runs/demo/bundle data/elpv-shards --conformal 0.9 --ood 0.95 --out runs/demo/careful
  trainer.decide runs/demo/bundle data/elpv-shards:test --check
  trainer.decide runs/demo/bundle --show
  trainer.decide runs/demo/bundle --reset

Logits are divided by the temperature, then re-weighted to the class shares of the place of use; the operating point and
the sets look at the probabilities that come out. Where a picture has any number of labels, each class has an operating
point of its own: all of them, or that of --positive alone. A goal that cannot be reached ends with exit code 3 and
changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.cli.arguments import check_count, check_share
from shards.cli.ending import run_command
from shards.cli.messages import add_volume
from shards.errors import UsageError

if TYPE_CHECKING:
    from shards.dataset.dataset import Dataset
    from trainer.contract.bundle import BundlePage

WORKERS = 2
_SHARES = ("conformal", "ood", "abstain_below")
_COMPANIONS = (
    ("positive", "point", "--point 'recall>=0.98'"),
    ("conformal_score", "conformal", "--conformal 0.9"),
    ("ood_fit", "ood", "--ood 0.95"),
    ("train_prior", "deploy_prior", "--deploy-prior CLASS=SHARE"),
)
"""An option that was given, the one that it needs, and how to write that."""
_ALONE = {"show": set[str](), "reset": {"out"}, "check": {"data", "workers"}}
"""What does no fitting, and what else it takes."""


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    _check_options(arguments)
    from trainer.contract.bundle import read_bundle_page
    from trainer.contract.decision.decision import make_plain_decision
    from trainer.contract.decision.stored_decision import store_decision

    page = read_bundle_page(arguments.bundle)
    if arguments.out is not None and arguments.out.exists():
        raise UsageError(f"{arguments.out} exists; choose another --out, or delete it first")
    losses: list[float] = []
    if arguments.check:
        _check(arguments, page)
        return 0
    if arguments.reset:
        page = store_decision(arguments.bundle, make_plain_decision(page.task), out=arguments.out)
    elif not arguments.show:
        page, losses = _decide(arguments, page)
    _tell(arguments, page, losses)
    return 0


def _decide(arguments: argparse.Namespace, page: BundlePage) -> tuple[BundlePage, list[float]]:
    """Fit a decision and store it; return the bundle's page, and log losses before and after the temperature."""
    from trainer.contract.bundle import Bundle
    from trainer.contract.decision.stored_decision import score_probes, store_decision
    from trainer.decide.decision import fit_decision
    from trainer.decide.seeing import REFERENCE_SAMPLES, Viewer, see_part
    from trainer.decide.wish import read_wish
    from trainer.ranks.ranks import single_rank

    dataset, part, notes = _open_part(arguments, page)
    wish = read_wish(arguments, page, dataset)
    ranks, reference = single_rank(), None
    bundle = Bundle.load(arguments.bundle, str(ranks.device))
    viewer = Viewer(bundle, dataset, ranks, arguments.workers or WORKERS)
    seen = see_part(viewer, part, with_features=wish.kept is not None, with_groups=True)
    if wish.needs_train and part != "train":
        reference = see_part(viewer, "train", True, REFERENCE_SAMPLES)
    decided = fit_decision(wish, page.classes, seen, reference, notes)
    detector = decided.detector and score_probes(arguments.bundle, bundle, decided.detector)
    found = decided.temperature
    losses = [] if found is None else [found.log_loss_before, found.log_loss_after]
    return store_decision(arguments.bundle, decided.decision, detector, arguments.out), losses


def _check(arguments: argparse.Namespace, page: BundlePage) -> None:
    """Print what the stored decision gives on a part."""
    from trainer.contract.bundle import Bundle
    from trainer.decide.check import check_decision, describe_check
    from trainer.decide.check_each import check_each, describe_check_each
    from trainer.decide.seeing import Viewer, see_part
    from trainer.ranks.ranks import single_rank

    if page.decision.fitted is None:
        raise UsageError(f"{arguments.bundle} has no decision to check; fit one first, or ask trainer.evaluate")
    dataset, part, _ = _open_part(arguments, page)
    ranks = single_rank()
    bundle = Bundle.load(arguments.bundle, str(ranks.device))
    viewer = Viewer(bundle, dataset, ranks, arguments.workers or WORKERS)
    seen = see_part(viewer, part, with_features=bundle.detector is not None, with_groups=True)
    if page.task == "multi-label":
        several = check_each(bundle, seen)
        print(several.model_dump_json() if arguments.json else "\n".join(describe_check_each(several)))
        return
    checked = check_decision(bundle, seen)
    print(checked.model_dump_json() if arguments.json else "\n".join(describe_check(checked, page.decision)))


def _open_part(arguments: argparse.Namespace, page: BundlePage) -> tuple[Dataset, str, list[str]]:
    """Return the dataset, the name of a part that it has, and what its user must know of it."""
    from shards.dataset.dataset import open_dataset
    from shards.sources.location import name_split
    from trainer.decide.wish import check_dataset

    location, part = name_split(arguments.data, "test" if arguments.check else "val")
    dataset = open_dataset(location).require_labels()
    notes = check_dataset(page, dataset)
    dataset.split(part)
    return dataset, part, notes


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict one another, before anything is read.

    Raises:
        UsageError: Such options.
    """
    from trainer.contract.decision.operating_point import parse_rule

    given = {name for name, value in vars(arguments).items() if value is not None}
    does = next((name for name in _ALONE if name in given), None)
    if does is not None and (other := next(iter(sorted(given - {"bundle", "json", does} - _ALONE[does])), None)):
        raise UsageError(f"--{does} goes without {_spell(other)}; leave one of the two out")
    if does in ("show", "reset"):
        return
    if arguments.data is None:
        raise UsageError("name the dataset and its part, such as data/elpv-shards:val")
    for name, needed, spelt in _COMPANIONS:
        if name in given and needed not in given:
            raise UsageError(f"{_spell(name)} says nothing alone; give {spelt} with it")
    if arguments.point is not None:
        parse_rule(arguments.point)
    for name in _SHARES:
        check_share(_spell(name), getattr(arguments, name))
    check_count("--workers", arguments.workers, of="threads")


def _tell(arguments: argparse.Namespace, page: BundlePage, losses: list[float]) -> None:
    import json

    from trainer.decide.telling import describe_decision

    folder = arguments.out or arguments.bundle
    if arguments.json:
        result: dict[str, Any] = {"bundle": str(folder), "fingerprint": page.fingerprint()}
        result |= {"decision": page.decision.state_rule().model_dump(mode="json")}
        result |= dict(zip(("log_loss_before", "log_loss_after"), losses, strict=False))
        print(json.dumps(result))
        return
    if losses:
        print(f"log loss     {losses[0]:.4f} -> {losses[1]:.4f} by the temperature")
    print("\n".join(describe_decision(page.decision, page.classes)))
    print(f"bundle       {folder}")


def _spell(name: str) -> str:
    return "DATA" if name == "data" else f"--{name.replace('_', '-')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.decide", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # None is what was not given: --show and --reset refuse the rest.
    parser.add_argument("bundle", type=Path, help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("data", nargs="?", help="folder of a dataset, and the part (default: val)")
    _add_wishes(parser)
    parser.add_argument("--out", type=Path, help="write a copy of the bundle there (default: change the bundle itself)")
    parser.add_argument("--workers", type=int, help="threads that decode (default: 2)")
    parser.add_argument("--json", action="store_true", default=None, help="print the decision as one JSON object")
    parser.add_argument(
        "--show", action="store_true", default=None, help="print the stored decision and change nothing"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        default=None,
        help="count what the stored decision gives on DATA (default: its test part), change nothing",
    )
    parser.add_argument(
        "--reset", action="store_true", default=None, help="go back to the most probable class, by plain softmax"
    )
    add_volume(parser)
    return parser


def _add_wishes(parser: argparse.ArgumentParser) -> None:
    """Add what a decision may have."""
    parser.add_argument(
        "--temperature",
        action=argparse.BooleanOptionalAction,
        help="fit one number that makes probabilities as sure as they may be (default: --temperature)",
    )
    parser.add_argument(
        "--point",
        metavar="GOAL",
        help="recall>=0.98, precision>=0.95, max-f1, 'cost fn=5,fp=1', sens@spec=0.9 (default: most probable class; "
        "of several labels a picture, each from 0.5 on)",
    )
    parser.add_argument(
        "--positive", metavar="CLASS", help="the class that --point is about (default: what bundle or dataset say)"
    )
    parser.add_argument(
        "--conformal",
        type=float,
        metavar="LEVEL",
        help="sets that hold the true class so often: 0.9 (default: none)",
    )
    parser.add_argument(
        "--conformal-score",
        choices=("lac", "aps"),
        help="lac: smallest sets on average; aps: larger ones where the model hesitates (default: lac)",
    )
    parser.add_argument(
        "--ood",
        type=float,
        metavar="KEPT",
        help="score how far pictures are from training's; abstain beyond this share of them: 0.95 (default: none)",
    )
    parser.add_argument(
        "--ood-fit",
        choices=("train", "same"),
        help="pictures that the score compares with: train, or half of DATA's own part (default: train)",
    )
    parser.add_argument(
        "--abstain-below", type=float, metavar="P", help="abstain where no class has this probability (default: never)"
    )
    parser.add_argument(
        "--deploy-prior",
        metavar="CLASS=SHARE,...",
        help="class shares where the model is used; classes not named share the rest (default: as in training)",
    )
    parser.add_argument(
        "--train-prior",
        metavar="CLASS=SHARE,...",
        help="class shares that the model learned; equal ones after stream.order=balanced (default: the train part's)",
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
