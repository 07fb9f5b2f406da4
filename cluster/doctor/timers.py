"""Ray's node timers: after how long a node that says nothing counts as lost."""

from __future__ import annotations

from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import Facts, Verdict, View

_LEAST_S, _MOST_S = 5.0, 300.0
_NAMES = ("period_ms", "timeout_ms", "failure_threshold")


def read(_: DoctorOptions) -> Facts:
    """Return the timers that this node's environment gives Ray; those of the head's node are in force.

    They are empty on a machine without Ray, where nobody is to be lost.
    """
    import sys

    if "ray" not in sys.modules:
        return {}
    from shards.workers.ray_private import read_node_timers  # late: it imports ray

    return read_node_timers()


def lost_after_s(facts: Facts) -> float:
    """Return the longest time in seconds until Ray counts a silent node as lost.

    >>> lost_after_s({"period_ms": 3000, "timeout_ms": 10000, "failure_threshold": 5})
    65.0
    """
    return (facts["period_ms"] + facts["timeout_ms"]) * facts["failure_threshold"] / 1000


def judge(view: View) -> Verdict:
    """Find timers that are too short or too long, and those that were set where they have no effect."""
    verdict = Verdict()
    if not view.cluster or not view.is_read(view.head):
        verdict.skipped = "no cluster" if not view.cluster else "the head does not answer"
        return verdict
    in_force = view.facts[view.head.name]
    seconds = lost_after_s(in_force)
    for node, facts in view.each():
        verdict.cells[node.name] = f"lost in {seconds:.0f} s"
        for name in _NAMES:
            if facts[name] != in_force[name]:
                verdict.red(
                    node.name,
                    f"RAY_health_check_{name} is {facts[name]} there, and {in_force[name]} on the head, which alone "
                    "counts: it has no effect",
                    "set it before `ray start --head`, for the whole cluster",
                )
    if not _LEAST_S <= seconds <= _MOST_S:
        verdict.red(view.head.name, *_explain(seconds))
    return verdict


def _explain(seconds: float) -> tuple[str, str]:
    effect = "a busy node is taken for lost" if seconds < _LEAST_S else "runs wait that long for ranks that are gone"
    return (
        f"Ray counts a silent node as lost after {seconds:.0f} s: {effect}",
        "restart the head with RAY_health_check_period_ms=3000, RAY_health_check_timeout_ms=10000 and "
        "RAY_health_check_failure_threshold=5, Ray's defaults (65 s)",
    )
