"""Which class of a dataset is looked for, as a command line says it."""

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
        UsageError: It is none of the classes, or the pictures have not one label each.
    """
    misfit = positive and find_misfit(positive, of.classes, of.display_names or (), of.task)
    if misfit:
        raise UsageError(
            f"--positive {positive} {misfit}; name a class that each picture is or is not, or leave it out"
        )


def name_positive(
    manifest: Manifest, positive: str | None, storage: Storage, say: Callable[[str], None] = lambda _: None
) -> Manifest:
    """Return the manifest of a finished dataset with this positive class, stored; None leaves it as it is."""
    if positive in (None, manifest.positive):
        return manifest
    named = manifest.model_copy(update={"positive": positive})
    storage.write(MANIFEST_NAME, named.encode())
    say(f"the positive class is {positive} from now on, it was {manifest.positive or 'not said'}; nothing else changed")
    return named
