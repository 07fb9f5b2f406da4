"""Operating points with several labels, one per class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shards.errors import ShardError
from trainer.contract.decision.operating_point import OperatingPoint
from trainer.decide.point import fit_point
from trainer.decide.seen import Seen
from trainer.decide.wish import Wish

Floats = npt.NDArray[np.float64]


def fit_points(
    wish: Wish, classes: list[str], seen: Seen, probabilities: Floats, notes: list[str]
) -> list[OperatingPoint] | None:
    """Return the requested operating points, for one class or for each class that some pictures have and others lack.

    Args:
        wish: The requested parts of the decision.
        classes: K names.
        seen: N pictures with labels int64[N, K] of 0 and 1.
        probabilities: float64[N, K], one per class.
        notes: Notes of the fit are appended.

    Raises:
        ShardError: A goal cannot be reached, or no class has both kinds of pictures.
    """
    if wish.point is None:
        return None
    wanted = classes if wish.positive is None else [wish.positive]
    counts = {name: int(seen.labels[:, classes.index(name)].sum()) for name in wanted}
    bare = [name for name, count in counts.items() if count in (0, len(seen.labels))]
    if len(bare) == len(wanted):
        raise ShardError(
            f"{seen.part} has no pictures with {', '.join(bare)}, or none without, of {len(seen.labels)}; an operating "
            "point needs pictures of both kinds"
        )
    if bare:
        notes.append(
            f"{', '.join(bare)}: {seen.part} has no pictures with it, or none without, so its threshold is unchanged"
        )
    points = []
    for name in wanted:
        if name not in bare:
            number = classes.index(name)
            shares = np.stack([1 - probabilities[:, number], probabilities[:, number]], axis=1)
            two = [f"no {name}", name]
            points.append(fit_point(wish.point, two, 1, shares, seen.labels[:, number], None, seen.units))
    return points
