"""The order of an epoch and how its pictures are decoded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.recipes.options.section import Section, Size


class StreamOptions(Section):
    """How the epoch's order is planned, independent of ranks and workers, and how its pictures are decoded."""

    lanes: int = Field(default=8, ge=1)
    """Sequences of shards that each global batch draws from. On several nodes take a multiple of them that divides
    batch_size_global: then each node reads its share of the shards alone."""
    window_bytes: Size = Field(default=256 << 20, ge=1)
    """Bytes of shards of one lane that are shuffled together; lanes times this is the pool that a batch is drawn from,
    and about what a node's cache must hold for its lanes."""
    redeal: bool = True
    """Deal shards to lanes anew each epoch; false keeps each lane's shards, in another order, so that a node's cache
    serves its share again."""
    order: Literal["plain", "balanced", "weighted"] = "plain"
    """How often samples are shown. plain: each once an epoch. balanced: each class equally often; not for pictures of
    several labels. weighted: by the dataset's weights, which then do not count in the loss."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each class that takes part, for learning curves; a smaller share is contained in a larger one."""
    decode: Literal["faithful", "fast", "device"] = "faithful"
    """How JPEGs are decoded. fast decodes large ones at a part of their resolution where the crop allows it: sharper
    edges differ. device leaves audited JPEGs to the rank's GPU (nvJPEG): the same crops, and pixels that its decoder
    rounds in its own way; with policy none, flip or square, erase and mixing. What is no plain JPEG, or is refused
    there, is decoded as by faithful. A GPU's decoder does not see all damage, so each shard is hashed when it is first
    opened."""
