"""The base class of option groups: frozen, and strict about names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from shards.files.sizes import parse_size

Size = Annotated[int, BeforeValidator(lambda value: parse_size(value) if isinstance(value, str) else value)]
"""Number of bytes, or text with a unit such as 64MiB."""


class Section(BaseModel):
    """A group of options; frozen, rejects unknown names."""

    # Numbers become text for text options: a run may be named 2024.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
