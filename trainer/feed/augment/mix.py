"""Mixup and cutmix: planned for a global step, computed on a rank's batch.

The plan is a function of (seed, epoch, step, size of the global batch), so it does not depend on the number of ranks.
The partner of a sample is the next one in the global batch; the last one's is the first. The order is drawn anew each
epoch, so neighbours are a random pair (torchvision's reference does the same), and a rank's slice lacks at most one
partner. If shards are sorted by class, neighbours, which come from one lane, are often of one class: then partners are
a number of places apart that is drawn per step, and always in different lanes. A rank then reads up to twice as many
pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.order.purposes import Purpose, make_key
from trainer.recipes.options.augment import AugmentOptions

Ints = npt.NDArray[np.int64]

_STEPS = 1 << 16
"""Shares are multiples of 1/65536: products with pixels and their sums are then exact in float32, so that a mixed
picture has the same bits for any batch size, memory layout and device."""


@dataclass(frozen=True)
class CutBox:
    """A box from another picture, in shares of the side: top, left, bottom, right in 0..1."""

    top: float
    left: float
    bottom: float
    right: float

    def place(self, size: int) -> tuple[int, int, int, int]:
        """Return top, left, bottom and right in pixels of a picture of this side.

        >>> CutBox(0.25, 0.0, 0.75, 0.5).place(32)
        (8, 0, 24, 16)
        """
        top, left, bottom, right = (round(side * size) for side in (self.top, self.left, self.bottom, self.right))
        return top, left, bottom, right


@dataclass(frozen=True)
class MixPlan:
    """The mixing of one global step.

    lam: Share of a sample's own picture, before a box is rounded to pixels. partners: int64[batch_size], for each
    position in the global batch the position of its partner. box: None blends whole pictures.
    """

    lam: float
    partners: Ints
    box: CutBox | None = None

    def share(self, size: int) -> float:
        """Return the share of a sample's own picture at a side in pixels; for cutmix, the area outside the box."""
        if self.box is None:
            return self.lam
        top, left, bottom, right = self.box.place(size)
        return 1 - (bottom - top) * (right - left) / (size * size)


@dataclass(frozen=True)
class Pairs:
    """The mixing of a rank's batch: picture i is mixed with rows[i], for the first n.

    rows: int64[n]. labels: int64[n] or float32[n, K], and weights: float32[n], of the partners. lam: float32[n], share
    of a sample's own picture and labels. box: Top, left, bottom, right in pixels of the partner's part; None blends.
    """

    rows: Tensor
    labels: Tensor
    weights: Tensor
    lam: Tensor
    box: tuple[int, int, int, int] | None

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Pairs:
        """Return a copy on a device."""
        moved = (value.to(device, non_blocking=non_blocking) for value in self.tensors)
        rows, labels, weights, lam = moved
        return replace(self, rows=rows, labels=labels, weights=weights, lam=lam)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.rows, self.labels, self.weights, self.lam


def plan_mix(
    options: AugmentOptions, seed: int, epoch: int, step: int, batch_size: int, lanes: int | None = None
) -> MixPlan | None:
    """Return how a step of an epoch mixes its global batch, None if it does not.

    If both mixup and cutmix are on, a step uses each with probability 1/2.

    lanes: Number of lanes in the batch, to pair samples of different lanes; None pairs neighbours.

    Source: Zhang et al. 2017, mixup; Yun et al. 2019, CutMix (the box's centre is uniform, and the box is clipped).
    """
    if not options.mixes or batch_size == 0:
        return None
    rng = np.random.default_rng(make_key(Purpose.MIX, seed, epoch, step))
    mixes, cuts, row, column = rng.random(4).tolist()
    if mixes >= options.mix_prob:
        return None
    cut = options.cutmix > 0 and (options.mixup == 0 or cuts < 0.5)
    alpha = options.cutmix if cut else options.mixup
    lam = round(float(rng.beta(alpha, alpha)) * _STEPS) / _STEPS
    apart = 1 if lanes is None else _draw_distance(batch_size, lanes, rng)
    partners = np.roll(np.arange(batch_size, dtype=np.int64), -apart)
    return MixPlan(lam, partners, _draw_box(lam, row, column) if cut else None)


def _draw_distance(batch_size: int, lanes: int, rng: np.random.Generator) -> int:
    """Return the distance of partners that puts them in different lanes; half the batch if that is impossible."""
    longest = -(-batch_size // lanes)
    if longest > batch_size - longest:
        return batch_size // 2
    return int(rng.integers(longest, batch_size - longest, endpoint=True))


def _draw_box(lam: float, row: float, column: float) -> CutBox:
    half = math.sqrt(1 - lam) / 2
    top, left, bottom, right = (
        min(max(side, 0.0), 1.0) for side in (row - half, column - half, row + half, column + half)
    )
    return CutBox(top, left, bottom, right)


def find_missing(partners: Ints, mine: slice) -> tuple[Ints, Ints]:
    """Return the rows of a slice's partners, and the positions of partners outside the slice.

    Args:
        partners: int64[batch_size], for each position in the global batch the position of its partner.
        mine: The slice.

    Returns:
        rows: int64[n], counted from the slice's start; missing partners come after its n rows, in order.
        missing: int64[m], positions of missing partners in the global batch, ascending.

    >>> rows, missing = find_missing(np.array([1, 2, 3, 0]), slice(1, 3))
    >>> rows.tolist(), missing.tolist()
    ([1, 2], [3])
    """
    wanted = partners[mine]
    inside = (wanted >= mine.start) & (wanted < mine.stop)
    missing = np.unique(wanted[~inside])
    rows = np.where(inside, wanted - mine.start, len(wanted) + np.searchsorted(missing, wanted))
    return rows.astype(np.int64), missing.astype(np.int64)


def mix_images(images: Tensor, pairs: Pairs) -> Tensor:
    """Return mixed pictures float32[n, C, S, S] in 0..255 from uint8[n + extras, C, S, S]; n may be 0."""
    own = images[: len(pairs.rows)].float()
    if pairs.box is None:
        partners, lam = images[pairs.rows].float(), pairs.lam[:, None, None, None]
        return partners + lam * (own - partners)
    top, left, bottom, right = pairs.box
    own[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right][pairs.rows].float()
    return own
