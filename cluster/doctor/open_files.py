"""How many files a process of Ray may open on a node."""

from __future__ import annotations

import resource

from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import Facts, Verdict, View

_LEAST = 4096
"""Ray itself warns below it: connections fail."""
_GOOD = 65536


def read(_: DoctorOptions) -> Facts:
    """Return the soft and the hard limit; -1 is no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"soft": soft, "hard": hard}


def judge(view: View) -> Verdict:
    """Find nodes with a low limit."""
    verdict = Verdict()
    for node, facts in view.each():
        soft = facts["soft"]
        verdict.cells[node.name] = "unlimited" if soft < 0 else f"{soft:,}"
        if 0 <= soft < _LEAST:
            verdict.red(
                node.name,
                f"a process may open {soft:,} files, and Ray needs at least {_LEAST:,}: connections fail under load",
                f"`ulimit -n {_GOOD}` before `ray start` there (systemd: LimitNOFILE={_GOOD}; Docker: --ulimit "
                f"nofile={_GOOD})",
            )
    return verdict
