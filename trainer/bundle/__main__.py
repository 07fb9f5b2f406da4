"""`python -m trainer.bundle WEIGHTS --model NAME --classes a,b --preprocess crop:256:224`: a bundle of any weights.

WEIGHTS is a file of any ending (told by content, never run), a URI, or what a recipe's `weights` may be. Every tensor
of the model must be in it. Of a bundle all that is not said otherwise is taken over but its decision and its metrics,
which hold for it alone. The bundle says nothing of metrics or training that it does not know.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.cli.ending import run_command
from shards.errors import ShardError, UsageError
from trainer.bundle.options import build_parser, choose_positive, fill_in, make_preprocess, make_spec
from trainer.contract.model.names import resolve_alias

if TYPE_CHECKING:
    from trainer.contract.bundle import BundlePage
    from trainer.contract.model.model import Classifier, ModelSpec
    from trainer.contract.preprocess import PreprocessSpec
    from trainer.weights.match import LoadReport


def main(argv: list[str]) -> int:
    arguments = build_parser(__doc__).parse_args(argv)
    out = arguments.out or Path("bundles") / (re.split(r"[.?]", arguments.weights.rpartition("/")[2])[0] or "weights")
    if out.exists():
        raise UsageError(f"{out} exists; choose another --out, or delete it first")
    from trainer.contract.bundle import is_bundle, read_bundle_page
    from trainer.contract.decision.decision import make_plain_decision
    from trainer.weights.classes import read_classes
    from trainer.weights.load import read_expectation

    page = read_bundle_page(Path(arguments.weights)) if is_bundle(Path(arguments.weights)) else None
    fill_in(arguments, page)
    name = resolve_alias(arguments.model)
    expects = read_expectation(name, arguments.weights)
    classes, display_names = read_classes(arguments.classes, name, arguments.weights)
    _check_names(classes, arguments.task)
    facts = _read_dataset(arguments.dataset, classes, arguments.task, page)
    facts["positive"] = choose_positive(arguments, classes, page, facts["positive"])
    preprocess = make_preprocess(arguments, expects, facts.pop("packing"), page)
    spec = make_spec(arguments, name, len(classes), expects, preprocess.size)
    if page is not None:
        spec = spec.model_copy(update={"dropout": page.model.dropout})
    model, report, origin = _load(spec, arguments, preprocess.size)
    if page is not None and page.decision != make_plain_decision(page.task):
        note = "the bundle's decision stays behind (`trainer.decide` fits one)"
        report = replace(report, changes=(*report.changes, note))
    facts |= {"classes": classes, "display_names": display_names, "origin": origin, "task": arguments.task}
    _save(out, model, preprocess, facts)
    if arguments.json:
        told = {"tensors": report.matched, "changes": report.changes, "left_out": report.left_out, "origin": origin}
        print(json.dumps({"bundle": str(out), **told}))
    else:
        _tell(out, spec, preprocess, report, is_known=page is not None)
    return 0


def _check_names(classes: list[str], task: str) -> None:
    """Refuse a class of several labels a picture whose name has what joins them.

    Raises:
        UsageError: One has.
    """
    from trainer.contract.task import SEPARATOR

    joined = next((name for name in classes if SEPARATOR in name), None)
    if task == "multi-label" and joined is not None:
        raise UsageError(f"'{joined}' is no name among several labels, which '{SEPARATOR}' joins; take another")


def _read_dataset(location: str | None, classes: list[str], task: str, page: BundlePage | None) -> dict[str, Any]:
    """Return the dataset's fingerprint, version of decoding and packing options; without one what the bundle has."""
    from shards.pictures.decoding import VERSION

    if location is None:
        known = {"dataset": page.dataset, "decoding": page.decoding} if page else {"dataset": None, "decoding": VERSION}
        return {**known, "packing": None, "positive": None}
    from shards.dataset.affected import find_decoding
    from shards.dataset.dataset import open_dataset

    dataset = open_dataset(location)
    if dataset.classes != classes:
        raise UsageError(
            f"--classes are {', '.join(classes)}, {location} has {', '.join(dataset.classes)}; name them in the order "
            "of the model's outputs, and name a dataset only where it has the same"
        )
    if dataset.manifest.task != task:
        raise UsageError(f"--task is {task}, {location} is {dataset.manifest.task}; name the task of its labels")
    manifest = dataset.manifest
    decoding = min(find_decoding(dataset), page.decoding if page else VERSION)
    said = {"dataset": dataset.fingerprint(), "decoding": decoding}
    return {**said, "packing": manifest.packing, "positive": manifest.positive}


def _load(spec: ModelSpec, arguments: argparse.Namespace, size: int) -> tuple[Classifier, LoadReport, str]:
    """Return the classifier with all its weights, what came of loading, and where they came from.

    Raises:
        UsageError: No such model or weights, or a size that it does not take.
        ShardError: The weights do not fill the model, or are another network's.
    """
    import torch

    from trainer.contract.model.head import is_auxiliary
    from trainer.contract.model.model import Classifier
    from trainer.loop.build import check_size
    from trainer.weights.leftovers import refuse_leftovers
    from trainer.weights.load import describe_origin, load_weights
    from trainer.weights.read import hide_query

    weights = arguments.weights
    check_size(spec, size, training=False)
    torch.manual_seed(0)  # of auxiliary heads that the file has not
    model = Classifier(spec)
    report = load_weights(model.backbone, spec, weights, single_output=arguments.task == "single-label")
    if report is None:
        raise UsageError("weights=none has nothing to bundle; name a file, or train first")
    missing = [name for name in report.missing if not is_auxiliary(name)]
    if missing:
        raise ShardError(
            f"{hide_query(weights)} does not fill {spec.name} with {spec.num_classes} classes: nothing for "
            f"{', '.join(missing[:4])}{' and more' if len(missing) > 4 else ''}"
            f"{_tell_left_out(report)}. {_advise(model, report)}"
        )
    if not arguments.allow_leftovers:
        remedy = "give the --model that it belongs to, or insist with --allow-leftovers"
        refuse_leftovers(report.leftovers, report.left_out, spec.name, report.source, remedy)
    if report.missing:
        told = "auxiliary heads, which only training uses, are not in it"
        report = replace(report, missing=(), changes=(*report.changes, told))
    return model, report, describe_origin(spec, weights)


def _tell_left_out(report: LoadReport) -> str:
    odd = [f"{name} ({why})" for name, why in report.left_out.items()]
    return f"; left out {', '.join(odd[:4])}" if odd else ""


def _advise(model: Classifier, report: LoadReport) -> str:
    """Return what to look at where a file does not fill the model."""
    from trainer.contract.model.backbone import find_first_convolutions

    first = {f"{layer}.weight" for layer in find_first_convolutions(model.backbone)}
    if model.spec.in_channels == 3 and first & report.left_out.keys():
        return "Check --model; where it was trained on pictures of one channel, give --channels 1 --backbone-channels 1"
    return "Check --model and the number of --classes"


def _save(out: Path, model: Classifier, preprocess: PreprocessSpec, facts: dict[str, Any]) -> None:
    from trainer.contract.bundle import Bundle, save_bundle
    from trainer.contract.decision.decision import make_plain_decision
    from trainer.contract.probes import synthesise_pictures

    save_bundle(
        out,
        model,
        synthesise_pictures(),
        preprocess=preprocess,
        decision=make_plain_decision(facts["task"]),
        probes="synthetic",
        recipe=None,
        metrics=None,
        **facts,
    )
    try:
        Bundle.load(out)
    except ShardError:
        shutil.rmtree(out)
        raise


def _tell(out: Path, spec: ModelSpec, preprocess: PreprocessSpec, report: LoadReport, is_known: bool) -> None:
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std))
    resize = f" from {preprocess.resize}" if preprocess.resize else ""
    advice = "" if is_known else "; if training had others, give --normalise or --mean and --std"
    print(f"weights     {report}")
    print(f"pictures    {preprocess.policy}{resize} to {preprocess.size} pixels, {preprocess.interpolation}")
    print(f"normalised  mean {mean}; std {std}{advice}")
    print(f"bundle      {out}")


if __name__ == "__main__":
    sys.exit(run_command(main))
