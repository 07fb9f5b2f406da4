"""What was measured for a bundle on kinds of machines: a JSON file of its exports, valid for its weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from shards.files.atomic import write_text
from shards.files.versioned import read_page
from trainer.contract.model.names import EXPORTS


class Record(BaseModel):
    """What all records have; each kind has a `format`, a `version`, and one entry for each kind of machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights_sha256: str


Kind = TypeVar("Kind", bound=Record)


def write_record(folder: Path, name: str, page: Record) -> Path:
    """Store a record in a bundle's exports, and return its file."""
    path = folder / EXPORTS / name
    path.parent.mkdir(exist_ok=True)
    write_text(path, page.model_dump_json(indent=2) + "\n")
    return path


def read_record(folder: Path, name: str, kind: type[Kind], weights_sha256: str, remedy: str) -> Kind | None:
    """Return a record of a bundle, None if there is none of these weights.

    Raises:
        ShardError: It is damaged or of another version; `remedy` is the sentence's remedy.
    """
    path = folder / EXPORTS / name
    if not path.is_file():
        return None
    page = read_page(path, kind, remedy)
    return page if page.weights_sha256 == weights_sha256 else None
