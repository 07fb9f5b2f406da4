"""A foreign checkpoint as a bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from shards.dataset.affected import find_decoding
from shards.dataset.dataset import open_dataset
from shards.errors import ShardError, UsageError
from shards.pictures.decoding import VERSION
from trainer.bundle.options import BundleOptions, Task
from trainer.bundle.spec import choose_positive, find_shape, make_preprocess, make_spec
from trainer.contract.bundle import Bundle, BundlePage, is_bundle, read_bundle_page, save_bundle
from trainer.contract.decision.decision import make_plain_decision
from trainer.contract.model.backbone import find_first_convolutions
from trainer.contract.model.head import is_auxiliary
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec
from trainer.contract.probes import synthesise_pictures
from trainer.contract.task import SEPARATOR, make_task
from trainer.loop.build import check_size
from trainer.weights.classes import read_classes
from trainer.weights.expectation import Expectation
from trainer.weights.expected import read_expectation
from trainer.weights.leftovers import refuse_leftovers
from trainer.weights.load import describe_origin, load_weights
from trainer.weights.match import LoadReport
from trainer.weights.read import Choice, hide_query


@dataclass(frozen=True)
class Bundled:
    """A bundle that was made: its folder and specs, what came of loading, and where the weights came from.

    was_bundle: Whether the weights were a bundle's, which knows how its pictures were prepared.
    """

    folder: Path
    model: ModelSpec
    preprocess: PreprocessSpec
    report: LoadReport
    origin: str
    was_bundle: bool


def bundle_checkpoint(options: BundleOptions) -> Bundled:
    """Make a bundle of weights, which must hold every tensor of the model.

    Of a bundle all that is not said otherwise is taken over but its decision and its metrics, which hold for it alone.

    Raises:
        UsageError: A folder that is there, options that do not fit the weights, no such model, weights or dataset.
        ShardError: Weights that cannot be read or do not fill the model; nothing is left behind then.
        OSError: A store that cannot be reached.
    """
    out, weights = options.folder, options.weights
    if out.exists():
        raise UsageError(f"{out} exists; choose another --out, or delete it first")
    page = read_bundle_page(Path(weights)) if is_bundle(Path(weights)) else None
    shape = find_shape(options, page)
    expects = read_expectation(shape.model, weights)
    classes, display_names = read_classes(options.classes, shape.model, weights)
    _check_names(classes, shape.task)
    facts = _read_dataset(options.dataset, classes, shape.task, page)
    facts["positive"] = choose_positive(options, shape.task, classes, page, facts["positive"])
    preprocess = make_preprocess(options, shape.channels, expects, facts.pop("packing"), page)
    spec = make_spec(options, shape, len(classes), expects, preprocess.size)
    if page is not None:
        spec = spec.model_copy(update={"dropout": page.model.dropout})
    trained = None if options.mean else expects.normalised(options.normalise)
    model, report, origin = _load(options, spec, trained, shape.task, preprocess.size)
    if page is not None and page.decision != make_plain_decision(page.task):
        note = "the bundle's decision stays behind (`trainer.decide` fits one)"
        report = replace(report, changes=(*report.changes, note))
    facts |= {"classes": classes, "display_names": display_names, "origin": origin, "task": shape.task}
    _save(out, model, preprocess, facts)
    return Bundled(out, spec, preprocess, report, origin, was_bundle=page is not None)


def _check_names(classes: list[str], task: Task) -> None:
    """Refuse a class of several labels a picture whose name has what joins them.

    Raises:
        UsageError: One has.
    """
    joined = next((name for name in classes if SEPARATOR in name), None)
    if not make_task(task).is_exclusive and joined is not None:
        raise UsageError(f"'{joined}' is no name among several labels, which '{SEPARATOR}' joins; take another")


def _read_dataset(location: str | None, classes: list[str], task: str, page: BundlePage | None) -> dict[str, Any]:
    """Return the dataset's fingerprint, version of decoding and packing options; without one what the bundle has."""
    if location is None:
        known = {"dataset": page.dataset, "decoding": page.decoding} if page else {"dataset": None, "decoding": VERSION}
        return {**known, "packing": None, "positive": None}
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


def _load(
    options: BundleOptions, spec: ModelSpec, trained: Expectation | None, task: str, size: int
) -> tuple[Classifier, LoadReport, str]:
    """Return the classifier with all its weights, what came of loading, and where they came from.

    Raises:
        UsageError: No such model or weights, or a size that it does not take.
        ShardError: The weights do not fill the model, or are another network's.
    """
    weights = options.weights
    check_size(spec, size, training=False)
    torch.manual_seed(0)  # of auxiliary heads that the file has not
    model = Classifier(spec)
    choice = Choice(options.key, options.ema)
    report = load_weights(model.backbone, spec, weights, task == "single-label", choice, trained)
    if report is None:
        raise UsageError("weights=none has nothing to bundle; name a file, or train first")
    missing = [name for name in report.missing if not is_auxiliary(name)]
    if missing:
        raise ShardError(
            f"{hide_query(weights)} does not fill {spec.name} with {spec.num_classes} classes: nothing for "
            f"{', '.join(missing[:4])}{' and more' if len(missing) > 4 else ''}"
            f"{_tell_left_out(report)}. {_advise(model, report)}"
        )
    if not options.allow_leftovers:
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
    if report.head:
        return report.head[0].upper() + report.head[1:]
    first = {f"{layer}.weight" for layer in find_first_convolutions(model.backbone)}
    if model.spec.in_channels == 3 and first & report.left_out.keys():
        return "Check --model; where it was trained on pictures of one channel, give --channels 1 --backbone-channels 1"
    return "Check --model and the number of --classes"


def _save(out: Path, model: Classifier, preprocess: PreprocessSpec, facts: dict[str, Any]) -> None:
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
