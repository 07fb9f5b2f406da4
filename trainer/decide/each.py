"""Operating points where each class is a question of its own."""

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
    """Return what is wished for, for one class or for each that some pictures have and some have not.

    Args:
        wish: What the decision shall have.
        classes: K names.
        seen: N pictures with labels int64[N, K] of 0 and 1.
        probabilities: float64[N, K], of each class for itself.
        notes: Those of the fit are added.

    Raises:
        ShardError: A goal that cannot be reached, or no class that has both kinds of pictures.
    """
    if wish.point is None:
        return None
    wanted = classes if wish.positive is None else [wish.positive]
    counts = {name: int(seen.labels[:, classes.index(name)].sum()) for name in wanted}
    bare = [name for name, count in counts.items() if count in (0, len(seen.labels))]
    if len(bare) == len(wanted):
        raise ShardError(
            f"{seen.part} has no pictures of {', '.join(bare)}, or no others, among {len(seen.labels)}; an operating "
            "point needs pictures of a class and others"
        )
    if bare:
        notes.append(
            f"{', '.join(bare)}: {seen.part} has no pictures of it, or no others, so its threshold stays as it is"
        )
    points = []
    for name in wanted:
        if name not in bare:
            number = classes.index(name)
            shares = np.stack([1 - probabilities[:, number], probabilities[:, number]], axis=1)
            two = [f"no {name}", name]
            points.append(fit_point(wish.point, two, 1, shares, seen.labels[:, number], None, seen.units))
    return points
