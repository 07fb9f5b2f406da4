"""Build the contract's two specs from facts about foreign weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shards.dataset.positive import find_misfit
from shards.errors import UsageError
from trainer.bundle.options import CHANNELS, TASK, BundleOptions, Task, parse_preprocess
from trainer.contract.bundle import BundlePage
from trainer.contract.model.backbone import is_size_fixed
from trainer.contract.model.model import ModelSpec
from trainer.contract.model.names import resolve_alias
from trainer.contract.preprocess import PreprocessSpec
from trainer.weights.expectation import Expectation
from trainer.weights.read import hide_query


@dataclass(frozen=True)
class Shape:
    """Input and output of a model: its library name, channels, and task."""

    model: str
    channels: int
    backbone_channels: int
    task: Task


def find_shape(options: BundleOptions, page: BundlePage | None) -> Shape:
    """Return the given values, else those of a bundle as WEIGHTS, else defaults.

    Raises:
        UsageError: --model is missing and not known from a bundle, or gray weights would get colour pictures.
    """
    model = options.model or (page.model.name if page else None)
    if model is None:
        raise UsageError(
            f"{hide_query(options.weights)} is not a bundle, so its model is unknown; give --model, see "
            "`python -m trainer.models`"
        )
    shape = Shape(
        resolve_alias(model),
        channels=options.channels or (page.preprocess.channels if page else CHANNELS),
        backbone_channels=options.backbone_channels or (page.model.in_channels if page else CHANNELS),
        task=options.task or (page.task if page else TASK),
    )
    if shape.backbone_channels == 1 and shape.channels == 3:
        raise UsageError("--backbone-channels 1 needs gray pictures; add --channels 1")
    return shape


def choose_positive(
    options: BundleOptions, task: str, classes: list[str], page: BundlePage | None, stored: str | None
) -> str | None:
    """Return the positive class: the given one, else that of the bundle as WEIGHTS, else `stored`, the dataset's.

    Raises:
        UsageError: The given class is unknown.
    """
    if options.positive is not None:
        misfit = find_misfit(options.positive, classes, task=task)
        if misfit:
            raise UsageError(f"--positive {options.positive} {misfit}; name one of the classes")
        return options.positive
    own = page.positive if page else None
    return own if own in classes and task == "single-label" else stored


def make_preprocess(
    options: BundleOptions, channels: int, expects: Expectation, packing: Any, page: BundlePage | None
) -> PreprocessSpec:
    """Return the preprocessing: as given, else a bundle's own, else the crop that the weights expect.

    Args:
        options: Options of the command.
        channels: Channels of a prepared picture.
        expects: Preprocessing that the weights were trained with.
        packing: Packing options of the given dataset, None without one.
        page: Metadata of a bundle as WEIGHTS.
    """
    values: dict[str, Any] = page.preprocess.model_dump() if page else {"rounding": "down"}
    if options.preprocess is not None or page is None:
        crop = f"crop:{max(expects.resize or 0, expects.size)}:{expects.size}"
        ordinary = crop if expects.policy == "crop" else f"{expects.policy}:{expects.size}"
        values |= parse_preprocess(options.preprocess or ordinary)
    if channels != values.get("channels"):
        values["luminance"] = 2 if channels == 1 else 1
    values["channels"] = channels
    values["interpolation"] = options.interpolation or expects.interpolation
    if packing is not None:
        values |= {"decode": packing.decode, "max_side": packing.max_side}
    return PreprocessSpec.model_validate(values)


def make_spec(options: BundleOptions, shape: Shape, num_classes: int, expects: Expectation, size: int) -> ModelSpec:
    """Return the model with the given normalisation, else that of its weights.

    Raises:
        UsageError: Numbers are invalid.
    """
    channels = shape.backbone_channels
    mean, std = expects.normalised(options.normalise).for_channels(channels)
    if options.mean is not None and options.std is not None:
        mean, std = _read_numbers("--mean", options.mean, channels), _read_numbers("--std", options.std, channels)
        if min(std) < 1e-6:
            raise UsageError(f"pixels are divided by --std, so each value must be at least 1e-6, got {options.std}")
    fixed = size if is_size_fixed(shape.model) else None
    return ModelSpec(
        name=shape.model, num_classes=num_classes, in_channels=channels, mean=mean, std=std, image_size=fixed
    )


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
