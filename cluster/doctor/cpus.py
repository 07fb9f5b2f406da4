"""CPUs that a node may use, against those that Ray was told."""

from __future__ import annotations

import math
import os

from cluster.doctor.cgroups import read_limits
from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import Facts, Verdict, View


def read(_: DoctorOptions) -> Facts:
    """Return CPUs of the machine, those that this process may run on, and those whose time its control group has."""
    allowed = len(os.sched_getaffinity(0))
    return {"machine": os.cpu_count() or 1, "allowed": allowed, "quota": read_limits().cpus}


def judge(view: View) -> Verdict:
    """Find nodes that were told more CPUs than they may use; fewer are a choice."""
    verdict = Verdict()
    for node, facts in view.each():
        usable = min(facts["allowed"], facts["quota"] or math.inf)
        told = node.resources.get("CPU", 0.0)
        verdict.cells[node.name] = f"{told:g} of {usable:g}" if view.cluster else f"{usable:g}"
        if told > math.ceil(usable):
            limit = "its control group allows" if (facts["quota"] or math.inf) <= facts["allowed"] else "it may run on"
            verdict.red(
                node.name,
                f"Ray was told {told:g} CPUs and {limit} {usable:g}: tasks wait for each other there",
                f"restart Ray there with `ray start --num-cpus {math.ceil(usable)}`, or raise the container's limit",
            )
    return verdict
