"""What every group of options is: frozen, and strict about names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from shards.files.sizes import parse_size

Size = Annotated[int, BeforeValidator(lambda value: parse_size(value) if isinstance(value, str) else value)]
"""Bytes; as text with a unit, 64MiB."""


class Section(BaseModel):
    """A group of options; frozen, unknown names refused."""

    # Numbers become text where text is wanted: a run may be called 2024.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
