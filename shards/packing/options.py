"""Options that determine a dataset: the same pictures and options give the same bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shards.packing.encode import StoreOptions
from shards.splits.splits import SplitOptions


class PackOptions(BaseModel):
    """Options of packing that a user can set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: SplitOptions = SplitOptions()
    """How pictures without a split get one; its seed also sets the order inside the shards."""
    shard_bytes: int = Field(default=64 << 20, gt=0)
    """Picture bytes after which a shard is closed."""
    store: StoreOptions = StoreOptions()
    """How pictures are decoded, and what is stored of them."""
    audit: Literal["full", "none"] = "full"
    """none: nothing is decoded, and only training may find an unreadable picture."""
    allow_leaks: bool = False
    """Pack even if equal pictures or groups lie in several splits, or equal pictures have several labels."""
    edited_copies: bool = False
    """Also look for mirrored, turned, cropped and bordered copies; they count as equal pictures."""
    drop_duplicates: bool = False
    """Keep one of each set of equal pictures, none if their labels differ."""
    positive: str | None = None
    """The positive class, for sensitivity and specificity; None: unchanged, or unset."""
    max_reject_rate: float = Field(default=0.01, ge=0, le=1)
    """Share of unreadable pictures above which nothing is packed."""
