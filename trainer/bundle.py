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

from shards.command import run_command
from shards.errors import ShardError, UsageError
from trainer.contract.names import resolve_alias

if TYPE_CHECKING:
    from trainer.contract.bundle import BundlePage
    from trainer.contract.model import Classifier, ModelSpec
    from trainer.contract.preprocess import PreprocessSpec
    from trainer.weights.expectation import Expectation
    from trainer.weights.match import LoadReport


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    out = arguments.out or Path("bundles") / (re.split(r"[.?]", arguments.weights.rpartition("/")[2])[0] or "weights")
    if out.exists():
        raise UsageError(f"{out} exists; choose another --out, or delete it first")
    from trainer.contract.bundle import is_bundle, read_bundle_page
    from trainer.contract.decision import make_plain_decision
    from trainer.weights.classes import read_classes
    from trainer.weights.load import read_expectation

    page = read_bundle_page(Path(arguments.weights)) if is_bundle(Path(arguments.weights)) else None
    _fill_in(arguments, page)
    name = resolve_alias(arguments.model)
    expects = read_expectation(name, arguments.weights)
    classes, display_names = read_classes(arguments.classes, name, arguments.weights)
    _check_names(classes, arguments.task)
    facts = _read_dataset(arguments.dataset, classes, arguments.task, page)
    preprocess = _make_preprocess(arguments, expects, facts.pop("packing"), page)
    spec = _make_spec(arguments, name, len(classes), expects, preprocess.size)
    if page is not None:
        spec = spec.model_copy(update={"dropout": page.model.dropout})
    model, report, origin = _load(spec, arguments.weights, preprocess.size, arguments.task == "single-label")
    if page is not None and page.decision != make_plain_decision(page.task):
        told = "the bundle's decision stays behind (`trainer.decide` fits one)"
        report = replace(report, changes=(*report.changes, told))
    facts |= {"classes": classes, "display_names": display_names, "origin": origin, "task": arguments.task}
    _save(out, model, preprocess, facts)
    if arguments.json:
        print(json.dumps({"bundle": str(out), "tensors": report.matched, "changes": report.changes, "origin": origin}))
    else:
        _tell(out, spec, preprocess, report, is_known=page is not None)
    return 0


def _fill_in(arguments: argparse.Namespace, page: BundlePage | None) -> None:
    """Give options that are not said what a bundle as WEIGHTS has, or their ordinary value.

    Raises:
        UsageError: No --model, and no bundle that knows it.
    """
    from trainer.weights.read import hide_query

    ordinary = {"model": None, "channels": 3, "backbone_channels": 3, "task": "single-label"}
    if page is not None:
        channels = {"channels": page.preprocess.channels, "backbone_channels": page.model.in_channels}
        ordinary = {"model": page.model.name, "task": page.task, **channels}
    said = vars(arguments)
    said.update({name: value for name, value in ordinary.items() if said[name] is None})
    if arguments.model is None:
        raise UsageError(
            f"{hide_query(arguments.weights)} is no bundle, which would know its model; give --model, as "
            "`python -m trainer.models` lists them"
        )


def _check_names(classes: list[str], task: str) -> None:
    """Refuse a class of several labels a picture whose name has what joins them.

    Raises:
        UsageError: One has.
    """
    from trainer.evaluation.answers import SEPARATOR

    joined = next((name for name in classes if SEPARATOR in name), None)
    if task == "multi-label" and joined is not None:
        raise UsageError(f"'{joined}' is no name among several labels, which '{SEPARATOR}' joins; take another")


def parse_preprocess(text: str) -> dict[str, Any]:
    """Return policy, resize and size of `POLICY:SIZE` or `crop:RESIZE:SIZE`.

    Raises:
        UsageError: Not of these forms.

    >>> parse_preprocess("crop:256:224")
    {'policy': 'crop', 'resize': 256, 'size': 224}
    """
    match = re.fullmatch(r"(stretch|letterbox|crop):([1-9]\d{0,3})|(crop):([1-9]\d{0,3}):([1-9]\d{0,3})", text)
    if not match or (match[3] and int(match[4]) < int(match[5])):
        raise UsageError(
            "--preprocess is stretch:SIZE, letterbox:SIZE, crop:SIZE or crop:RESIZE:SIZE with RESIZE at least SIZE, "
            f"both of 1 to 9999 pixels, got '{text}'"
        )
    if match[3]:
        return {"policy": "crop", "resize": int(match[4]), "size": int(match[5])}
    return {"policy": match[1], "resize": None, "size": int(match[2])}


def _read_dataset(location: str | None, classes: list[str], task: str, page: BundlePage | None) -> dict[str, Any]:
    """Return the dataset's fingerprint, without one that of the bundle as WEIGHTS, and its packing options or None."""
    if location is None:
        return {"dataset": page.dataset if page else None, "packing": None}
    from shards.dataset import open_dataset

    dataset = open_dataset(location)
    if dataset.classes != classes:
        raise UsageError(
            f"--classes are {', '.join(classes)}, {location} has {', '.join(dataset.classes)}; name them in the order "
            "of the model's outputs, and name a dataset only where it has the same"
        )
    if dataset.manifest.task != task:
        raise UsageError(f"--task is {task}, {location} is {dataset.manifest.task}; name the task of its labels")
    return {"dataset": dataset.fingerprint(), "packing": dataset.manifest.packing}


def _make_preprocess(
    arguments: argparse.Namespace, expects: Expectation, packing: Any, page: BundlePage | None
) -> PreprocessSpec:
    from trainer.contract.preprocess import PreprocessSpec

    values: dict[str, Any] = page.preprocess.model_dump() if page else {"rounding": "down"}
    if arguments.preprocess is not None or page is None:
        ordinary = f"crop:{max(expects.resize or 0, expects.size)}:{expects.size}"
        values |= parse_preprocess(arguments.preprocess or ordinary)
    values["channels"] = arguments.channels
    values["interpolation"] = arguments.interpolation or expects.interpolation
    if packing is not None:
        values |= {"decode": packing.decode, "max_side": packing.max_side}
    return PreprocessSpec.model_validate(values)


def _make_spec(
    arguments: argparse.Namespace, name: str, num_classes: int, expects: Expectation, size: int
) -> ModelSpec:
    from trainer.contract.backbone import is_size_fixed
    from trainer.contract.model import ModelSpec
    from trainer.weights.expectation import NORMALISATIONS

    channels = arguments.backbone_channels
    if channels == 1 and arguments.channels == 3:
        raise UsageError("--backbone-channels 1 takes gray pictures; give --channels 1 with it")
    if arguments.normalise:
        mean, std = NORMALISATIONS[arguments.normalise]
        expects = replace(expects, mean=mean, std=std)
    mean, std = expects.for_channels(channels)
    if (arguments.mean is None) != (arguments.std is None) or (arguments.mean and arguments.normalise):
        raise UsageError("--mean and --std belong together, and instead of --normalise; give those two, or this one")
    if arguments.mean is not None:
        mean, std = _read_numbers("--mean", arguments.mean, channels), _read_numbers("--std", arguments.std, channels)
        if min(std) < 1e-6:
            raise UsageError(f"--std divides and must be above 0, got {arguments.std}")
    fixed = size if is_size_fixed(name) else None
    return ModelSpec(name=name, num_classes=num_classes, in_channels=channels, mean=mean, std=std, image_size=fixed)


def _read_numbers(option: str, text: str, channels: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise UsageError(f"{option} is numbers on the scale 0..1, such as 0.485,0.456,0.406, got '{text}'") from err
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels or not all(0 <= number <= 1 for number in numbers):
        raise UsageError(
            f"{option} is {channels} numbers on the scale 0..1 (divide those of 0..255 by 255), got {text}"
        )
    return numbers


def _load(spec: ModelSpec, weights: str, size: int, is_single: bool) -> tuple[Classifier, LoadReport, str]:
    """Return the classifier with all its weights, what came of loading, and where they came from.

    Raises:
        UsageError: No such model or weights, or a size that it does not take.
        ShardError: The weights do not fill the model.
    """
    import torch

    from trainer.build import check_size
    from trainer.contract.head import is_auxiliary
    from trainer.contract.model import Classifier
    from trainer.weights.load import describe_origin, load_weights
    from trainer.weights.read import hide_query

    check_size(spec, size, training=False)
    torch.manual_seed(0)  # of auxiliary heads that the file has not
    model = Classifier(spec)
    report = load_weights(model.backbone, spec, weights, single_output=is_single)
    if report is None:
        raise UsageError("weights=none has nothing to bundle; name a file, or train first")
    missing = [name for name in report.missing if not is_auxiliary(name)]
    if missing:
        raise ShardError(
            f"{hide_query(weights)} does not fill {spec.name} with {spec.num_classes} classes: nothing for "
            f"{', '.join(missing[:4])}{' and more' if len(missing) > 4 else ''}"
            f"{_tell_left_out(report)}. {_advise(model, report)}"
        )
    if report.missing:
        told = "auxiliary heads, which only training uses, are not in it"
        report = replace(report, missing=(), changes=(*report.changes, told))
    return model, report, describe_origin(spec, weights)


def _tell_left_out(report: LoadReport) -> str:
    odd = [f"{name} ({why})" for name, why in report.left_out.items()]
    return f"; left out {', '.join(odd[:4])}" if odd else ""


def _advise(model: Classifier, report: LoadReport) -> str:
    """Return what to look at where a file does not fill the model."""
    from trainer.contract.backbone import find_first_convolutions

    first = {f"{layer}.weight" for layer in find_first_convolutions(model.backbone)}
    if model.spec.in_channels == 3 and first & report.left_out.keys():
        return "Check --model; where it was trained on pictures of one channel, give --channels 1 --backbone-channels 1"
    return "Check --model and the number of --classes"


def _save(out: Path, model: Classifier, preprocess: PreprocessSpec, facts: dict[str, Any]) -> None:
    from trainer.contract.bundle import Bundle, save_bundle
    from trainer.contract.decision import make_plain_decision
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="a file of any ending, a URI, or a recipe's `weights`: IMAGENET1K_V2")
    parser.add_argument(
        "--model", help="its architecture; `python -m trainer.models` lists them; a bundle knows its own"
    )
    parser.add_argument(
        "--classes", help="a,b in the order of the outputs, or a file: one a line, display name behind a tab or comma"
    )
    parser.add_argument(
        "--preprocess",
        help="stretch:SIZE, letterbox:SIZE, crop:SIZE or crop:RESIZE:SIZE; default: the model's own crop",
    )
    parser.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="default: the model's own")
    parser.add_argument(
        "--normalise", choices=("imagenet", "half", "none"), help="half is x*2-1; default: the model's own"
    )
    parser.add_argument("--mean", help="instead of --normalise: 0.485,0.456,0.406, on the scale 0..1")
    parser.add_argument("--std", help="the same")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="1: pictures become gray (default: 3)")
    parser.add_argument("--backbone-channels", type=int, choices=(1, 3), help="of the first convolution (default: 3)")
    parser.add_argument(
        "--task",
        choices=("single-label", "multi-label"),
        help="multi-label: each output is a class for itself, by its sigmoid (default: single-label, a softmax)",
    )
    parser.add_argument("--dataset", help="the packed dataset that it was trained on, where there is one")
    parser.add_argument("--out", type=Path, help="folder to make; default: bundles/NAME of the file")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
