"""Ray's authentication: its mode on each node, and the file that holds the token."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import Facts, Verdict, View

_FILE = "~/.ray/auth_token"
_LOOPBACK = ("", "127.0.0.1", "::1", "localhost")


def read(_: DoctorOptions) -> Facts:
    """Return RAY_AUTH_MODE, where the token comes from, and mode and path of its file; the token itself is not read."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or _FILE).expanduser()
    facts = {"mode": os.environ.get("RAY_AUTH_MODE", ""), "by_variable": bool(os.environ.get("RAY_AUTH_TOKEN"))}
    try:
        return {**facts, "path": str(path), "permissions": stat.S_IMODE(path.stat().st_mode)}
    except OSError:
        return {**facts, "path": str(path), "permissions": None}


def judge(view: View) -> Verdict:
    """Find token files that others may read, and nodes of different modes; note a cluster that checks no token."""
    verdict = Verdict()
    for node, facts in view.each():
        verdict.cells[node.name] = facts["mode"] or "not set"
        permissions = facts["permissions"]
        if permissions is not None and permissions & 0o077 and facts["mode"] != "disabled" and not facts["by_variable"]:
            verdict.red(
                node.name,
                f"{facts['path']} has mode {permissions:04o}: other users of the node can read Ray's token and "
                "with it run programs on the whole cluster",
                f"`chmod 600 {facts['path']}` (of a Kubernetes secret: defaultMode: 0400)",
            )
    if view.cluster:
        _judge_modes({node.name: facts["mode"] for node, facts in view.each()}, view, verdict)
    return verdict


def _judge_modes(modes: dict[str, str], view: View, verdict: Verdict) -> None:
    usual = modes.get(view.head.name, "")
    for name, mode in modes.items():
        if mode != usual:
            verdict.red(
                name,
                f"RAY_AUTH_MODE is {mode or 'not set'}, and {usual or 'not set'} on the head: its processes are "
                "refused once tokens are checked",
                f"`{f'export RAY_AUTH_MODE={usual}' if usual else 'unset RAY_AUTH_MODE'}` before `ray start` there",
            )
    open_to_all = [node.name for node in view.nodes if node.address not in _LOOPBACK]
    if usual != "token" and open_to_all:
        verdict.note(
            (),
            "Ray checks no token: whoever reaches its ports can run programs on the cluster",
            "`ray get-auth-token --generate`, `chmod 600 ~/.ray/auth_token`, and RAY_AUTH_MODE=token on all nodes",
        )
