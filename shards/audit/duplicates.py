"""Which pictures are equal: in every pixel, or but for size, compression and brightness.

Equal pixels have equal hashes. Nearly equal pictures are candidates when their perceptual hashes differ in at most 7
of 64 bits, and duplicates when their thumbnails correlate: X-rays, solar cells and the like have equal perceptual
hashes by the hundred. A mirrored or turned picture is no duplicate of the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

MIN_CORRELATION = 0.9988
"""Of two thumbnails of nearly equal pictures. The most similar two different cells of ELPV, which all look alike, have
0.9984; 99 % of their copies, resized, compressed at quality 50, brighter or darker by 10 %, have more than this:
tests/bench/results/2026-11-24-near-duplicates.md."""
MAX_BITS = 7
MIN_SIDE = 32
"""Pictures below it on a side are compared exactly only: written digits of 28 pixels are nearly equal by the dozen."""
MIN_CONTRAST = 4.0
"""Standard deviation of a thumbnail, 0..255, below which a picture is flat and compared exactly only."""
MAX_LEADERS = 32
"""Of one perceptual hash: pictures of this hash that are no duplicates of each other and are looked at any further."""

_BANDS = 4  # of 16 bits: of 7 bits that differ, at most 1 falls into some band
_MASKS = np.array([0, *(1 << bit for bit in range(16))], dtype=np.int64)
_PAIRS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Pairs:
    """Equal pictures, as pairs of positions with left < right; they link every picture of a cluster to another one.

    similarity: correlation of the thumbnails, 1 where every pixel is equal.
    """

    left: Ints
    right: Ints
    similarity: npt.NDArray[np.float32]
    exact: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.left)


def find_duplicates(
    hashes: Sequence[str], phashes: Hashes, thumbnails: npt.NDArray[np.uint8], widths: Ints, heights: Ints
) -> Pairs:
    """Return the equal pictures among n.

    Of a million equal pictures each is paired with the first, so the pairs are never many more than the pictures.

    Args:
        hashes: Hash of each picture's pixels.
        phashes: uint64[n], perceptual hashes.
        thumbnails: uint8[n, T * T]; may lie on disk, only candidates are read.
        widths: int[n], pixels.
        heights: int[n], pixels.
    """
    firsts, exact = _pair_equal(hashes)
    firsts = firsts[np.minimum(widths[firsts], heights[firsts]) >= MIN_SIDE]
    near = _Matcher(phashes, thumbnails).match(firsts)
    parts = [exact, near]
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in Pairs.__dataclass_fields__))


def _pair_equal(hashes: Sequence[str]) -> tuple[Ints, Pairs]:
    """Return the first picture of each hash, and the pairs of it with the others."""
    first: dict[str, int] = {}
    left, right = [], []
    for row, text in enumerate(hashes):
        leader = first.setdefault(text, row)
        if leader != row:
            left.append(leader)
            right.append(row)
    pairs = _pairs(np.array(left, dtype=np.int64), np.array(right, dtype=np.int64), None)
    return np.array(list(first.values()), dtype=np.int64), pairs


def _pairs(left: Ints, right: Ints, similarity: npt.NDArray[np.float32] | None) -> Pairs:
    exact = np.full(len(left), similarity is None)
    return Pairs(left, right, np.ones(len(left), np.float32) if similarity is None else similarity, exact)


class _Matcher:
    """Finds pairs of nearly equal pictures by perceptual hash, and confirms them by thumbnail."""

    def __init__(self, phashes: Hashes, thumbnails: npt.NDArray[np.uint8]) -> None:
        self._phashes = phashes
        self._thumbnails = thumbnails

    def match(self, rows: Ints) -> Pairs:
        """Return the nearly equal pictures among `rows`."""
        found = [_pairs(*self._match_hash(rows))]
        leaders = self._leaders
        values = self._phashes[leaders]
        for left, right in _near_hashes(values):
            found.append(self._confirm(leaders[left], leaders[right]))
        return Pairs(*(np.concatenate([getattr(part, name) for part in found]) for name in Pairs.__dataclass_fields__))

    def _match_hash(self, rows: Ints) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
        """Pair pictures of one perceptual hash with the first that they equal; the rest lead, up to MAX_LEADERS."""
        order = rows[np.argsort(self._phashes[rows], kind="stable")]
        values = self._phashes[order]
        left, right, similarity = [], [], []
        leaders = []
        for group in np.split(order, np.flatnonzero(values[1:] != values[:-1]) + 1):
            rest = group
            for _ in range(MAX_LEADERS):
                if not len(rest):
                    break
                leader, rest = rest[0], rest[1:]
                leaders.append(leader)
                if len(rest):
                    alike = self._correlate(np.full(len(rest), leader), rest)
                    equal = alike >= MIN_CORRELATION
                    left.append(np.full(int(equal.sum()), leader))
                    right.append(rest[equal])
                    similarity.append(alike[equal])
                    rest = rest[~equal]
        self._leaders = np.array(leaders, dtype=np.int64)
        empty = np.empty(0, dtype=np.int64)
        return (
            np.concatenate([empty, *left]),
            np.concatenate([empty, *right]),
            np.concatenate([np.empty(0, np.float32), *similarity]),
        )

    def _confirm(self, left: Ints, right: Ints) -> Pairs:
        alike = self._correlate(left, right)
        equal = alike >= MIN_CORRELATION
        low, high = np.minimum(left, right)[equal], np.maximum(left, right)[equal]
        return _pairs(low, high, alike[equal])

    def _correlate(self, left: Ints, right: Ints) -> npt.NDArray[np.float32]:
        """Return float32[n]: correlation of each two thumbnails, 0 where one is flat."""
        result = np.empty(len(left), dtype=np.float32)
        for begin in range(0, len(left), 4096):
            part = slice(begin, begin + 4096)
            result[part] = correlate(self._thumbnails[left[part]], self._thumbnails[right[part]])
        return result


def correlate(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return float32[n]: correlation of thumbnails uint8[n, T * T], row by row; 0 where one is flat."""
    alike: npt.NDArray[np.float32] = np.einsum("ij,ij->i", _normalise(left), _normalise(right))
    return alike


def _normalise(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    flat = length < MIN_CONTRAST * np.sqrt(values.shape[1])
    normed: npt.NDArray[np.float32] = np.where(flat, 0, values / np.maximum(length, 1e-6)).astype(np.float32)
    return normed


def _near_hashes(values: Hashes) -> Iterator[tuple[Ints, Ints]]:
    """Yield the positions (left, right) of hashes that differ in 1 to MAX_BITS bits, each two at least once.

    Source: multi-index hashing (Norouzi, Punjani, Fleet 2012): in one of the 4 bands at most 1 bit differs.
    """
    for band in range(_BANDS):
        keys = ((values >> np.uint64(16 * band)) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        counts = np.bincount(keys, minlength=1 << 16)
        starts = np.concatenate([[0], np.cumsum(counts)])
        for mask in _MASKS.tolist():
            others = keys ^ mask
            rows = np.flatnonzero((others > keys) if mask else (counts[keys] > 1))
            for left, place in _expand(rows, starts[others[rows]], counts[others[rows]]):
                right = order[place]
                bits = np.bitwise_count(values[left] ^ values[right])
                near = (bits <= MAX_BITS) & (bits > 0) & ((left < right) if mask == 0 else True)
                yield left[near], right[near]


def _expand(rows: Ints, starts: Ints, counts: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield (row, place) for the places starts[i]..starts[i] + counts[i] - 1 of every row, a bounded number at once."""
    bounds = np.concatenate([[0], np.cumsum(counts)])
    begin = 0
    while begin < len(rows):
        end = max(begin + 1, int(np.searchsorted(bounds, bounds[begin] + _PAIRS_AT_ONCE, side="right")) - 1)
        part = counts[begin:end]
        offsets = np.arange(int(part.sum())) - np.repeat(bounds[begin:end] - bounds[begin], part)
        yield np.repeat(rows[begin:end], part), np.repeat(starts[begin:end], part) + offsets
        begin = end
