"""The clocks of the nodes, compared by round trips."""

from __future__ import annotations

import time

from cluster.doctor.nodes import Nodes
from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import FAILED, Facts, Verdict, View

_TRIPS = 20
_MOST_S = 1.0
"""Difference above which times of logs and trackers mislead, and that no working NTP client leaves."""


def now() -> float:
    """Return this node's time, in seconds since the epoch."""
    return time.time()


def survey(nodes: Nodes, options: DoctorOptions) -> dict[str, Facts]:
    """Return by how many seconds each node's clock is ahead of ours: `least` and `most` of what round trips allow."""
    return {node.name: _measure(nodes, node.name, options.timeout_s) for node in nodes.nodes}


def _measure(nodes: Nodes, name: str, limit_s: float) -> Facts:
    trips = []
    for _ in range(_TRIPS):
        sent = time.time()
        theirs = nodes.ask("cluster.doctor.clock:now", {name: ()}, limit_s).get(name)
        if not isinstance(theirs, float):
            return theirs or {FAILED: "no answer"}
        trips.append((sent, theirs, time.time()))
    return bound(trips)


def bound(trips: list[tuple[float, float, float]]) -> Facts:
    """Return the bounds of an offset from round trips (sent, their time, received): their time lies between ours.

    >>> bound([(10.0, 15.1, 10.2), (20.0, 25.1, 20.4)])["least"]
    4.9
    """
    least = max(theirs - received for _, theirs, received in trips)
    most = min(theirs - sent for sent, theirs, _ in trips)
    return {"least": round(least, 6), "most": round(most, 6)}


def judge(view: View) -> Verdict:
    """Find clocks that differ by more than 1 s from the head's, whatever the round trips hide."""
    verdict = Verdict()
    bounds = {node.name: facts for node, facts in view.each()}
    if len(bounds) < 2:
        verdict.skipped = "one node"
        return verdict
    first = bounds.get(view.head.name) or next(iter(bounds.values()))
    for name, facts in bounds.items():
        least, most = facts["least"] - first["most"], facts["most"] - first["least"]
        offset, uncertain = (0.0, 0.0) if facts is first else ((least + most) / 2, (most - least) / 2)
        verdict.cells[name] = "reference" if facts is first else f"{_spell(offset)} ±{_spell(uncertain, sign='')}"
        if least > _MOST_S or most < -_MOST_S:
            way = "ahead of" if offset > 0 else "behind"
            verdict.red(
                name,
                f"its clock is {abs(offset):.2f} s (±{uncertain:.3f} s) {way} that of the head",
                "run an NTP client there (`timedatectl set-ntp true`, or chrony), and look at it with `timedatectl`",
            )
    return verdict


def _spell(seconds: float, sign: str = "+") -> str:
    """Return a time in seconds, or in milliseconds where it is short.

    >>> _spell(0.0004), _spell(-3.21), _spell(0.02, sign="")
    ('+0.4 ms', '-3.2 s', '20.0 ms')
    """
    scaled, unit = (seconds * 1000, "ms") if abs(seconds) < 1 else (seconds, "s")
    return f"{scaled:{sign}.1f} {unit}"
