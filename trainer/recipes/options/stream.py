"""Options for the sample order of an epoch and for decoding."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.recipes.options.section import Section, Size


class StreamOptions(Section):
    """How samples are ordered, independent of ranks and workers, and how pictures are decoded."""

    lanes: int = Field(default=8, ge=1)
    """Number of sequences of shards (lanes) that each global batch draws from. With several nodes, set a multiple of
    their number that divides batch_size_global: then each node reads only its share of the shards."""
    window_bytes: Size = Field(default=256 << 20, ge=1)
    """Bytes of shards of one lane that are shuffled together; times lanes, this is the pool that a batch is drawn from,
    and about the cache that a node needs for its lanes."""
    redeal: bool = True
    """Assign shards to lanes anew in each epoch; false keeps each lane's shards, in another order, so that a node's
    cache can be reused."""
    order: Literal["plain", "balanced", "weighted"] = "plain"
    """How often samples are shown. plain: each once per epoch. balanced: each class equally often; not with several
    labels per picture. weighted: in proportion to the dataset's weights, which then do not enter the loss."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each class's samples used in training, for learning curves; a smaller share is a subset of a larger
    one."""
    decode: Literal["faithful", "fast", "device"] = "faithful"
    """How JPEGs are decoded. fast decodes large ones at reduced resolution where the crop allows it, so sharp edges
    differ. device decodes audited JPEGs on the rank's GPU (nvJPEG): the same crops, with pixels rounded by its decoder;
    only for the policies none, flip and square, with erase and mixing. Files that are not plain JPEGs, or that the GPU
    rejects, are decoded as by faithful. A GPU decoder does not detect all damage, so each shard is hashed when it is
    first opened."""
