"""Whether a folder is a bundle with undamaged weights, checked in a moment and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel

from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_file
from shards.files.versioned import read_page

VERSION: Final = 1
PAGE, WEIGHTS = "bundle.json", "weights.safetensors"
REMEDY: Final = "restore the bundle from a backup or train again"
"""For errors about bundle.json."""


class _Head(BaseModel):
    """The fields of bundle.json that say whether the rest can be read."""

    format: Literal["shardline-bundle"]
    version: Literal[1] = VERSION
    weights_sha256: str
    classes: list[str]


def is_bundle(root: Path) -> bool:
    """Return whether a folder is a bundle."""
    return (root / PAGE).is_file()


def require_bundle(root: Path) -> Path:
    """Return the path of bundle.json.

    Raises:
        UsageError: The folder is not a bundle.
    """
    if not is_bundle(root):
        what = f"is not a bundle (it has no {PAGE})" if root.is_dir() else "does not exist"
        raise UsageError(f"{root} {what}; a finished run keeps its bundle in runs/NAME/bundle")
    return root / PAGE


def check_weights(root: Path, sha256: str) -> None:
    """Check that the weights are those of bundle.json.

    Raises:
        ShardError: They are damaged.
        OSError: They cannot be read.
    """
    if fingerprint_file(root / WEIGHTS) != sha256:
        raise ShardError(f"{root / WEIGHTS}: sha256 differs from {PAGE}; restore the bundle from a backup")


def check_intact(root: Path) -> str:
    """Check that a folder is a bundle of this version whose weights are undamaged, and return their sha256.

    Loading the bundle checks the rest.

    Raises:
        UsageError: The folder is not a bundle.
        ShardError: It is damaged or has another version.
    """
    head = read_page(require_bundle(root), _Head, REMEDY)
    try:
        check_weights(root, head.weights_sha256)
    except OSError as err:
        raise ShardError(f"{root} is damaged ({err}); restore it from a backup") from err
    return head.weights_sha256


def read_classes(root: Path) -> list[str]:
    """Return the class names of a bundle in the order of its outputs; raises like `check_intact`."""
    return read_page(require_bundle(root), _Head, REMEDY).classes
