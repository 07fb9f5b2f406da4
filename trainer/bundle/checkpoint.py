"""Make a bundle from a foreign checkpoint."""

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
from trainer.contract.bundle import Bundle, BundlePage, read_bundle_page, save_bundle
from trainer.contract.decision.decision import make_plain_decision
from trainer.contract.intact import is_bundle
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
    """A new bundle: its folder and specs, the loading report, and the origin of the weights.

    was_bundle: Whether the weights came from a bundle, which has its preprocessing.
    """

    folder: Path
    model: ModelSpec
    preprocess: PreprocessSpec
    report: LoadReport
    origin: str
    was_bundle: bool


def bundle_checkpoint(options: BundleOptions) -> Bundled:
    """Make a bundle from weights, which must have every tensor of the model.

    From a bundle, everything not set otherwise is copied, except its decision and metrics, which only apply to it.

    Raises:
        UsageError: The folder exists, options do not fit the weights, or the model, weights or dataset are unknown.
        ShardError: The weights cannot be read or lack tensors of the model; then nothing is written.
        OSError: A store cannot be reached.
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
        note = "the bundle's decision is not copied (`trainer.decide` fits one)"
        report = replace(report, changes=(*report.changes, note))
    facts |= {"classes": classes, "display_names": display_names, "origin": origin, "task": shape.task}
    _save(out, model, preprocess, facts)
    return Bundled(out, spec, preprocess, report, origin, was_bundle=page is not None)


def _check_names(classes: list[str], task: Task) -> None:
    """Raise if, with several labels per picture, a class name contains their separator.

    Raises:
        UsageError: A name contains it.
    """
    joined = next((name for name in classes if SEPARATOR in name), None)
    if not make_task(task).is_exclusive and joined is not None:
        raise UsageError(f"'{joined}' contains '{SEPARATOR}', which separates several labels; rename it")


def _read_dataset(location: str | None, classes: list[str], task: str, page: BundlePage | None) -> dict[str, Any]:
    """Return the dataset's fingerprint, version of decoding and packing options; without one, those of the bundle."""
    if location is None:
        known = {"dataset": page.dataset, "decoding": page.decoding} if page else {"dataset": None, "decoding": VERSION}
        return {**known, "packing": None, "positive": None}
    dataset = open_dataset(location)
    if dataset.classes != classes:
        raise UsageError(
            f"--classes are {', '.join(classes)}, but {location} has {', '.join(dataset.classes)}; name them in order "
            "of the model's outputs, and name a dataset only if it has the same"
        )
    if dataset.manifest.task != task:
        raise UsageError(f"--task is {task}, but {location} is {dataset.manifest.task}; use the task of its labels")
    manifest = dataset.manifest
    decoding = min(find_decoding(dataset), page.decoding if page else VERSION)
    said = {"dataset": dataset.fingerprint(), "decoding": decoding}
    return {**said, "packing": manifest.packing, "positive": manifest.positive}


def _load(
    options: BundleOptions, spec: ModelSpec, trained: Expectation | None, task: str, size: int
) -> tuple[Classifier, LoadReport, str]:
    """Return the classifier with all weights, the loading report, and the origin of the weights.

    Raises:
        UsageError: The model or weights are unknown, or the model does not take the size.
        ShardError: The weights lack tensors of the model, or belong to another network.
    """
    weights = options.weights
    check_size(spec, size, training=False)
    torch.manual_seed(0)  # for auxiliary heads missing from the file
    model = Classifier(spec)
    choice = Choice(options.key, options.ema)
    report = load_weights(model.backbone, spec, weights, task == "single-label", choice, trained)
    if report is None:
        raise UsageError("weights=none has nothing to bundle; name a file, or train first")
    missing = [name for name in report.missing if not is_auxiliary(name)]
    if missing:
        raise ShardError(
            f"{hide_query(weights)} does not have all tensors of {spec.name} with {spec.num_classes} classes: it lacks "
            f"{', '.join(missing[:4])}{' and more' if len(missing) > 4 else ''}"
            f"{_tell_left_out(report)}. {_advise(model, report)}"
        )
    if not options.allow_leftovers:
        remedy = "give the --model that it belongs to, or insist with --allow-leftovers"
        refuse_leftovers(report.leftovers, report.left_out, spec.name, report.source, remedy)
    if report.missing:
        told = "auxiliary heads, which only training uses, are missing from it"
        report = replace(report, missing=(), changes=(*report.changes, told))
    return model, report, describe_origin(spec, weights)


def _tell_left_out(report: LoadReport) -> str:
    odd = [f"{name} ({why})" for name, why in report.left_out.items()]
    return f"; left out {', '.join(odd[:4])}" if odd else ""


def _advise(model: Classifier, report: LoadReport) -> str:
    """Return what to check if a file lacks tensors of the model."""
    if report.head:
        return report.head[0].upper() + report.head[1:]
    first = {f"{layer}.weight" for layer in find_first_convolutions(model.backbone)}
    if model.spec.in_channels == 3 and first & report.left_out.keys():
        return "Check --model; if it was trained on pictures of one channel, give --channels 1 --backbone-channels 1"
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
