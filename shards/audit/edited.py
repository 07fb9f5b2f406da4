"""Edited copies: mirrored, turned, cropped or bordered pictures, found by blocks that few pictures share.

Blocks are small squares around the extremes of a picture's band-pass. Two pictures are copies if they share several
blocks that almost no other picture has, at the same relative positions up to one scale and shift, after one of the
eight ways to turn and mirror a picture. In sets of similar pictures, most blocks (edges of a cell, bars across it) are
in all pictures and prove nothing; what remains is texture and grain, which a copy shares and another photograph of the
same object does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from shards.audit.blocks import NO_BLOCKS, SIDE, TURNS, Blocks, Floats, Ints, find_blocks
from shards.audit.duplicates import (
    MIN_CORRELATION,
    MIN_SIDE,
    NEIGHBOURS,
    Pairs,
    correlate,
    drop_flat,
    normalise,
)
from shards.audit.examine import CHUNK, Examined, Progress
from shards.audit.facts import THUMBNAIL_SIDE
from shards.errors import DecodeError
from shards.pictures import decode
from shards.pictures.decode import DecodeOptions
from shards.sources.load import load_chunks
from shards.sources.model import Source, SourceList, Store
from shards.workers.pools import Pool

MIN_ALIKE = 0.98
"""Least correlation of two blocks that count as alike."""
MOST_SHARING = 3
"""A block that more other pictures than this have is ignored."""
MIN_BLOCKS = 6
"""Rare blocks that two pictures must share."""
LEAST_ALIKE = 0.97
"""Least correlation of two blocks at matching positions."""
MIN_SHARE = 0.86
"""Least share of the blocks of one picture lying in the other that must be alike there. Neighbouring cells of ELPV
reach 0.85. Copies of its cells that are missed have too few rare blocks, or were also compressed or relit:
tests/bench/results/2026-11-30-edited-copies.md."""
_NEAR = 3.0
"""Tolerance of a shared block's position in pixels."""
_SCALES = (0.7, 1.43)
_TRIALS = 40
_SPREAD = SIDE / 5
"""Extent in pixels, in both directions, that shared blocks must cover: a stamp in a corner does not make a copy."""
_AXES, _SAMPLE = 16, 1024
_TABLES, _BITS = 8, 20
_BUCKET = 16
"""Larger buckets are skipped."""
_CHUNK = 16384


def find_edited_copies(
    listed: SourceList, examined: Examined, options: DecodeOptions, pool: Pool, progress: Progress
) -> Pairs:
    """Return the edited copies among the sources; every source is decoded once more.

    Args:
        examined: Facts and thumbnails of the same sources.
    """
    blocks = _examine_blocks(listed, options, pool, progress)
    facts = examined.facts
    sides = np.minimum(facts["width"].fill_null(0).to_numpy(), facts["height"].fill_null(0).to_numpy())
    large = np.flatnonzero(sides >= MIN_SIDE)
    pairs = sorted({*find_edited(blocks), *find_turned(examined.thumbnails, drop_flat(examined.thumbnails, large))})
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    alike = [correlate(examined.thumbnails[[one]], examined.thumbnails[[two]]) for one, two in pairs]
    return Pairs(left, right, np.concatenate([np.empty(0, np.float32), *alike]), np.zeros(len(left), np.bool_))


def _examine_blocks(listed: SourceList, options: DecodeOptions, pool: Pool, progress: Progress) -> list[Blocks]:
    """Return the blocks of every source; none for an unreadable one."""
    place = {source.name: number for number, source in enumerate(listed.sources)}
    found = [NO_BLOCKS] * len(place)
    chunks: list[Sequence[Source]] = []

    def todo() -> Iterator[tuple[Sequence[Source], list[bytes] | None]]:
        for sources, data in load_chunks(listed.store, listed.sources, CHUNK):
            chunks.append(sources)
            yield sources, data

    done = 0
    for blocks in pool.run(partial(_find_blocks_of, listed.store, options), todo()):
        sources = chunks.pop(0)
        for source, each in zip(sources, blocks, strict=True):
            found[place[source.name]] = each
        done += len(sources)
        progress("edited copies", done, len(found), sum(source.size for source in sources))
    return found


def _find_blocks_of(
    store: Store, options: DecodeOptions, chunk: tuple[Sequence[Source], list[bytes] | None]
) -> list[Blocks]:
    sources, data = chunk
    found = []
    for number, source in enumerate(sources):
        try:
            pixels = decode.examine(data[number] if data else store.read(source), options)[1]
            found.append(find_blocks(pixels) if min(pixels.shape[:2]) >= MIN_SIDE else NO_BLOCKS)
        except (DecodeError, OSError):  # the first examination rejected it with a reason
            found.append(NO_BLOCKS)
    return found


def find_turned(thumbnails: npt.NDArray[np.uint8], rows: Ints) -> set[tuple[int, int]]:
    """Return pairs of `rows`, left < right, whose thumbnails correlate when one is mirrored or turned."""
    if len(rows) < 2:
        return set()
    sample = normalise(thumbnails[rows[:: -(-len(rows) // _SAMPLE)]])
    axes = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][:_AXES].T
    parts = [rows[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK)]
    tree = cKDTree(np.concatenate([normalise(thumbnails[part]) @ axes for part in parts]))
    radius = np.sqrt(2 - 2 * MIN_CORRELATION) + 1e-3
    found = set()
    for turn in TURNS[1:]:
        for part in parts:
            square = thumbnails[part].reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
            turned: npt.NDArray[np.uint8] = np.ascontiguousarray(turn.values(square)).reshape(len(part), -1)
            near = tree.query(normalise(turned) @ axes, NEIGHBOURS, distance_upper_bound=radius)[1]
            own, column = np.nonzero(near < len(rows))
            left, right = part[own], rows[near[own, column]]
            equal = (left != right) & (correlate(turned[own], thumbnails[right]) >= MIN_CORRELATION)
            ends = np.sort(np.stack([left[equal], right[equal]], axis=1), axis=1)
            found |= {(one, two) for one, two in ends.tolist()}
    return found


def find_edited(blocks: list[Blocks]) -> list[tuple[int, int]]:
    """Return pairs of pictures, left < right, that are copies of each other by their blocks."""
    owners = np.repeat(np.arange(len(blocks)), [len(each.places) for each in blocks])
    if len(owners) < 2:
        return []
    values = np.concatenate([each.values for each in blocks])
    places = np.concatenate([each.places for each in blocks])
    both = Blocks(places, values)
    hashing = _Hashing(values.reshape(len(values), -1))
    found: set[tuple[int, int]] = set()
    for turn in TURNS:
        turned = np.ascontiguousarray(turn.values(values)).reshape(len(values), -1)
        matches = _keep_rare(hashing.match(turned), owners)
        found |= _vote(matches, owners, Blocks(turn.places(places).astype(np.float32), turn.values(values)), both)
    return sorted(found)


class _Hashing:
    """Finds alike blocks by hash tables; a key holds the sides of random planes on which a block lies.

    Blocks that many pictures have fill their buckets, which are skipped: there is no all-pairs comparison.
    """

    def __init__(self, flat: Floats) -> None:
        rng = np.random.default_rng(0)
        self._flat = flat
        self._planes = rng.standard_normal((_TABLES, flat.shape[1], _BITS)).astype(np.float32)
        keys = [self._hash(flat, planes) for planes in self._planes]
        self._orders = [np.argsort(each, kind="stable") for each in keys]
        self._sorted = [each[order] for each, order in zip(keys, self._orders, strict=True)]

    def _hash(self, flat: Floats, planes: Floats) -> Ints:
        """Return int64[n], the keys."""
        powers = 1 << np.arange(_BITS)
        parts = [(flat[at : at + _CHUNK] @ planes > 0) @ powers for at in range(0, len(flat), _CHUNK)]
        return np.concatenate(parts).astype(np.int64)

    def match(self, turned: Floats) -> Ints:
        """Return int64[n, 2], unique: turned blocks and the blocks that they match, including themselves."""
        found = [np.empty(0, np.int64)]
        for planes, order, keys in zip(self._planes, self._orders, self._sorted, strict=True):
            asked = self._hash(turned, planes)
            first, end = np.searchsorted(keys, asked, "left"), np.searchsorted(keys, asked, "right")
            counts = np.where(end - first <= _BUCKET, end - first, 0)
            left = np.repeat(np.arange(len(turned)), counts)
            steps = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
            right = order[np.repeat(first, counts) + steps]
            for at in range(0, len(left), _CHUNK):
                one, two = left[at : at + _CHUNK], right[at : at + _CHUNK]
                alike = np.einsum("ij,ij->i", turned[one], self._flat[two]) >= MIN_ALIKE
                found.append(one[alike] * len(turned) + two[alike])
        pairs = np.unique(np.concatenate(found))
        return np.stack([pairs // len(turned), pairs % len(turned)], axis=1)


def _keep_rare(matches: Ints, owners: Ints) -> Ints:
    """Return the matches between different pictures, without blocks that more than MOST_SHARING others have."""
    matches = matches[owners[matches[:, 0]] != owners[matches[:, 1]]]
    sharing = np.unique(matches[:, 0] * len(owners) + owners[matches[:, 1]]) // len(owners)
    counts = np.bincount(sharing, minlength=len(owners))
    return matches[counts[matches[:, 0]] <= MOST_SHARING]


def _vote(matches: Ints, owners: Ints, turned: Blocks, blocks: Blocks) -> set[tuple[int, int]]:
    """Return the pairs of pictures whose shared blocks have the same relative positions.

    matches: Pairs of rare blocks. owners: The picture of each block. turned, blocks: All blocks of either side.
    """
    ends = owners[matches]
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    matches, ends = matches[order], ends[order]
    cuts = np.flatnonzero((ends[1:] != ends[:-1]).any(axis=1)) + 1
    found = set()
    for group in np.split(matches, cuts):
        if len(group) < MIN_BLOCKS:
            continue
        move = _find_move(turned.places[group[:, 0]], blocks.places[group[:, 1]])
        left, right = owners[group[0]].tolist()
        if move is not None and _share(turned.of(owners, left), blocks.of(owners, right), move) >= MIN_SHARE:
            found.add((min(left, right), max(left, right)))
    return found


def _find_move(left: Floats, right: Floats) -> tuple[float, Floats] | None:
    """Return the scale and shift that map enough positions float32[n, 2] onto the others; None if there are none."""
    rng = np.random.default_rng(len(left))
    best, most = None, MIN_BLOCKS - 1
    for _ in range(_TRIALS):
        one, two = rng.choice(len(left), 2, replace=False)
        apart = float(np.linalg.norm(left[one] - left[two]))
        scale = float(np.linalg.norm(right[one] - right[two])) / max(apart, 1e-6)
        if apart < _SPREAD / 2 or not _SCALES[0] <= scale <= _SCALES[1]:
            continue
        shift = (right[one] + right[two] - (left[one] + left[two]) * scale) / 2
        near = np.linalg.norm(left * scale + shift - right, axis=1) <= _NEAR
        if near.sum() > most and (np.ptp(left[near], axis=0) >= _SPREAD).all():
            best, most = (scale, shift), int(near.sum())
    return best


def _share(left: Blocks, right: Blocks, move: tuple[float, Floats]) -> float:
    """Return the share of alike blocks at matching positions, among the blocks of one picture that lie in the other."""
    scale, shift = move
    places = left.places * scale + shift
    inside = ((places >= right.places.min(axis=0) - 1) & (places <= right.places.max(axis=0) + 1)).all(axis=1)
    near = np.linalg.norm(places[:, None] - right.places, axis=2) <= _NEAR
    flat = [each.values.reshape(len(each.values), -1) for each in (left, right)]
    alike = (near & (flat[0] @ flat[1].T >= LEAST_ALIKE)).any(axis=1)
    return float(alike[inside].sum()) / max(int(inside.sum()), 2 * MIN_BLOCKS)
