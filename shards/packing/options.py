"""What shapes a dataset; whoever packs the same pictures with the same options gets the same bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shards.packing.encode import StoreOptions
from shards.splits.splits import SplitOptions


class PackOptions(BaseModel):
    """What a user can choose about packing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: SplitOptions = SplitOptions()
    """How pictures without a split get one; its seed is also that of the order inside the shards."""
    shard_bytes: int = Field(default=64 << 20, gt=0)
    """Picture bytes after which a shard is closed."""
    store: StoreOptions = StoreOptions()
    """How pictures are decoded, and what is stored of them."""
    audit: Literal["full", "none"] = "full"
    """none: nothing is decoded, and an unreadable picture may be found by training only."""
    allow_leaks: bool = False
    """Pack although equal pictures or groups lie in several splits, or have several labels."""
    edited_copies: bool = False
    """Look for mirrored, turned, cropped and bordered copies, too; they count as equal pictures."""
    drop_duplicates: bool = False
    """Keep one of each set of equal pictures, and none where their labels differ."""
    positive: str | None = None
    """Class that is looked for, for whoever tells sensitivity and specificity; None: as it was, or nobody says."""
    max_reject_rate: float = Field(default=0.01, ge=0, le=1)
    """Share of unreadable pictures above which nothing is packed."""
