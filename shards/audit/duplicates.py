"""Equal pictures: equal in every pixel, or except for size, compression and small changes of brightness.

Equal pixels have equal hashes. Nearly equal pictures have thumbnails that correlate. Candidates are pictures with the
same perceptual hash, then each picture's nearest neighbours along the axes on which the set's thumbnails differ most.
X-rays and solar cells all look alike: comparing all perceptual hashes that differ in a few bits takes 64 CPU seconds
for 5,000 such pictures, grows with their square, and still misses pairs. Pictures that are a third brighter, changed by
a gamma, mirrored, turned, cropped by a hundredth or bordered are not found here; `edited` finds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

MIN_CORRELATION = 0.9988
"""Least correlation of the thumbnails of nearly equal pictures. The most similar two different cells of ELPV, which all
look alike, have 0.99839. Copies of its cells (JPEG of quality 50, half and double size, 10 % more or less brightness or
contrast) all have more than this value, except 3 % of the brighter ones, whose highlights are clipped; of copies of
photographs, 90 to 100 %: tests/bench/results/2026-11-24-near-duplicates-elpv.md."""
MIN_SIDE = 32
"""Pictures with a shorter side below this are only compared exactly: many written digits of 28 pixels are nearly equal.
"""
MIN_CONTRAST = 4.0
"""Standard deviation of a thumbnail, 0..255, below which a picture is flat and only compared exactly."""
MAX_LEADERS = 32
"""Pictures of one perceptual hash that are compared with all others of that hash."""
NEIGHBOURS = 16
"""Nearest pictures that each picture is compared with; enough to link larger clusters."""

_AXES = 16
_SAMPLE = 1024
_CHUNK = 4096
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Pairs:
    """Equal pictures, as pairs of positions with left < right; they link every picture of a cluster to another.

    similarity: correlation of the thumbnails, 1 if every pixel is equal.
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

    Equal pixels are paired with the first such picture only, so there are never many more pairs than pictures.

    Args:
        hashes: Hash of each picture's pixels.
        phashes: uint64[n], perceptual hashes.
        thumbnails: uint8[n, T * T]; may be on disk, only candidates are read.
        widths: int[n], pixels.
        heights: int[n], pixels.
    """
    firsts, exact = _pair_equal(hashes)
    firsts = firsts[np.minimum(widths[firsts], heights[firsts]) >= MIN_SIDE]
    matcher = _Matcher(phashes, thumbnails)
    return join_parts([exact, matcher.match(drop_flat(thumbnails, firsts))])


def _pair_equal(hashes: Sequence[str]) -> tuple[Ints, Pairs]:
    """Return the first picture of each hash, and its pairs with the others."""
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
    """Finds pairs of nearly equal pictures; their thumbnails must not be flat."""

    def __init__(self, phashes: Hashes, thumbnails: npt.NDArray[np.uint8]) -> None:
        self._phashes = phashes
        self._thumbnails = thumbnails

    def match(self, rows: Ints) -> Pairs:
        """Return the nearly equal pictures among `rows`."""
        leaders, same_hash = self._match_hash(rows)
        found = [same_hash, *(self._confirm(left, right) for left, right in self._find_neighbours(leaders))]
        return _keep_once(join_parts(found))

    def _match_hash(self, rows: Ints) -> tuple[Ints, Pairs]:
        """Pair pictures of one perceptual hash with the first that they equal; return the unpaired ones, and the pairs.

        Without this, each of thousands of nearly equal pictures would be a neighbour of all others.
        """
        order = rows[np.argsort(self._phashes[rows], kind="stable")]
        values = self._phashes[order]
        found = [_pairs(_NONE, _NONE, np.empty(0, np.float32))]
        leaders = []
        for group in np.split(order, np.flatnonzero(values[1:] != values[:-1]) + 1):
            rest = group
            for _ in range(MAX_LEADERS):
                if not len(rest):
                    break
                leader, rest = rest[:1], rest[1:]
                leaders.append(leader)
                if len(rest):
                    pairs = self._confirm(np.repeat(leader, len(rest)), rest)
                    found.append(pairs)
                    rest = np.setdiff1d(rest, pairs.right)
            leaders.append(rest)
        return np.concatenate([_NONE, *leaders]), join_parts(found)

    def _find_neighbours(self, rows: Ints) -> Iterator[tuple[Ints, Ints]]:
        """Yield (left, right) of pictures that may be nearly equal; pairs may repeat.

        Unit vectors with correlation c are sqrt(2 - 2c) apart, and their projections at most that: no pair within the
        radius is missed. The axes are those along which the pictures differ most; in a set of similar pictures, these
        are not the lowest frequencies.
        """
        if len(rows) < 2:
            return
        sample = normalise(self._thumbnails[rows[:: -(-len(rows) // _SAMPLE)]])
        axes = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][:_AXES].T
        points = np.concatenate([normalise(self._thumbnails[part]) @ axes for part in _chunks(rows)])
        tree = cKDTree(points)
        radius = np.sqrt(2 - 2 * MIN_CORRELATION) + 1e-3  # allows for float32 rounding
        for part in _chunks(np.arange(len(rows))):
            places = tree.query(points[part], NEIGHBOURS + 1, distance_upper_bound=radius)[1]
            own, column = np.nonzero(places < len(rows))
            left, right = rows[part[own]], rows[places[own, column]]
            yield left[left != right], right[left != right]

    def _confirm(self, left: Ints, right: Ints) -> Pairs:
        """Return the pairs whose thumbnails correlate."""
        alike = np.empty(len(left), dtype=np.float32)
        for part in _chunks(np.arange(len(left))):
            alike[part] = correlate(self._thumbnails[left[part]], self._thumbnails[right[part]])
        equal = alike >= MIN_CORRELATION
        return _pairs(left[equal], right[equal], alike[equal])


def drop_flat(thumbnails: npt.NDArray[np.uint8], rows: Ints) -> Ints:
    """Return the rows whose thumbnails have contrast."""
    parts = (part[thumbnails[part].std(axis=1) >= MIN_CONTRAST] for part in _chunks(rows))
    return np.concatenate([_NONE, *parts])


def join_parts(parts: Sequence[Pairs]) -> Pairs:
    """Return the pairs of all parts; duplicates are possible."""
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in Pairs.__dataclass_fields__))


def _keep_once(pairs: Pairs) -> Pairs:
    """Return each pair once, with left < right."""
    ends = np.sort(np.stack([pairs.left, pairs.right], axis=1), axis=1)
    ends, first = np.unique(ends, axis=0, return_index=True)
    return Pairs(ends[:, 0], ends[:, 1], pairs.similarity[first], pairs.exact[first])


def _chunks(values: Ints) -> Iterator[Ints]:
    for begin in range(0, len(values), _CHUNK):
        yield values[begin : begin + _CHUNK]


def correlate(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return float32[n]: the row-wise correlation of thumbnails uint8[n, T * T]; 0 if one is constant."""
    alike: npt.NDArray[np.float32] = np.einsum("ij,ij->i", normalise(left), normalise(right))
    return alike


def normalise(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return float32[n, T * T]: rows of mean 0 and length 1, independent of brightness and contrast."""
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    normed: npt.NDArray[np.float32] = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return normed
