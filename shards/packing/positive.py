"""Checking and storing a dataset's positive class as given on a command line."""

from __future__ import annotations

from collections.abc import Callable

from shards.dataset.manifest import MANIFEST_NAME, Manifest
from shards.dataset.positive import find_misfit
from shards.errors import UsageError
from shards.sources.model import SourceList
from shards.storage.storage import Storage


def refuse_misfit(positive: str | None, of: Manifest | SourceList) -> None:
    """Refuse a positive class that the pictures do not have.

    Raises:
        UsageError: It is not one of the classes, or pictures do not have exactly one label.
    """
    misfit = positive and find_misfit(positive, of.classes, of.display_names or (), of.task)
    if misfit:
        raise UsageError(
            f"--positive {positive} {misfit}; name a class that each picture is or is not, or leave it out"
        )


def name_positive(
    manifest: Manifest, positive: str | None, storage: Storage, report: Callable[[str], None] = lambda _: None
) -> Manifest:
    """Store the positive class of a finished dataset and return its manifest; None changes nothing."""
    if positive in (None, manifest.positive):
        return manifest
    named = manifest.model_copy(update={"positive": positive})
    storage.write(MANIFEST_NAME, named.encode())
    report(f"the positive class is {positive} from now on, it was {manifest.positive or 'unset'}; nothing else changed")
    return named
