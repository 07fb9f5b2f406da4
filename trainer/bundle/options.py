"""What the options of `trainer.bundle` say of somebody's weights: the contract's two specs."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.cli.messages import add_volume
from shards.dataset.positive import find_misfit
from shards.errors import UsageError

if TYPE_CHECKING:
    from trainer.contract.bundle import BundlePage
    from trainer.contract.model.model import ModelSpec
    from trainer.contract.preprocess import PreprocessSpec
    from trainer.weights.expectation import Expectation


def fill_in(arguments: argparse.Namespace, page: BundlePage | None) -> None:
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


def choose_positive(
    arguments: argparse.Namespace, classes: list[str], page: BundlePage | None, stored: str | None
) -> str | None:
    """Return the positive class: as said, else that of the bundle as WEIGHTS, else `stored`, that of the dataset.

    Raises:
        UsageError: What is said is no class.
    """
    if arguments.positive is not None:
        misfit = find_misfit(arguments.positive, classes, task=arguments.task)
        if misfit:
            raise UsageError(f"--positive {arguments.positive} {misfit}; name a class that each picture is or is not")
        return str(arguments.positive)
    own = page.positive if page else None
    return own if own in classes and arguments.task == "single-label" else stored


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


def make_preprocess(
    arguments: argparse.Namespace, expects: Expectation, packing: Any, page: BundlePage | None
) -> PreprocessSpec:
    """Return the preprocessing: as said, else a bundle's own, else the crop that the weights expect.

    Args:
        arguments: Of the command, filled in.
        expects: What the weights were trained with.
        packing: Options of the dataset that is named, None without one.
        page: Of a bundle as WEIGHTS.

    Raises:
        UsageError: --preprocess is of no known form.
    """
    from trainer.contract.preprocess import PreprocessSpec

    values: dict[str, Any] = page.preprocess.model_dump() if page else {"rounding": "down"}
    if arguments.preprocess is not None or page is None:
        ordinary = f"crop:{max(expects.resize or 0, expects.size)}:{expects.size}"
        values |= parse_preprocess(arguments.preprocess or ordinary)
    if arguments.channels != values.get("channels"):
        values["luminance"] = 2 if arguments.channels == 1 else 1
    values["channels"] = arguments.channels
    values["interpolation"] = arguments.interpolation or expects.interpolation
    if packing is not None:
        values |= {"decode": packing.decode, "max_side": packing.max_side}
    return PreprocessSpec.model_validate(values)


def make_spec(arguments: argparse.Namespace, name: str, num_classes: int, expects: Expectation, size: int) -> ModelSpec:
    """Return the model with the normalisation that is said, else that of its weights.

    Raises:
        UsageError: Options that do not go together, or numbers that are none.
    """
    from trainer.contract.model.backbone import is_size_fixed
    from trainer.contract.model.model import ModelSpec
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


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser; options that a bundle as WEIGHTS may fill in are None where they are not said."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.bundle", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
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
    parser.add_argument(
        "--positive", metavar="CLASS", help="class that is looked for; default: a bundle's or dataset's"
    )
    parser.add_argument(
        "--allow-leftovers",
        action="store_true",
        help="take a file although parts of it have no place in the model, as where it is another network's",
    )
    parser.add_argument("--dataset", help="the packed dataset that it was trained on, where there is one")
    parser.add_argument("--out", type=Path, help="folder to make; default: bundles/NAME of the file")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_volume(parser)
    return parser
