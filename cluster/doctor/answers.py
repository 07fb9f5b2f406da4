"""Whether each node answers at all."""

from __future__ import annotations

from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import Facts, Verdict, View


def read(_: DoctorOptions) -> Facts:
    return {}


def judge(view: View) -> Verdict:
    """Find nodes that do not answer, and note those that Ray has lost."""
    verdict = Verdict({node.name: "yes" for node in view.nodes})
    for name, why in view.silent.items():
        verdict.cells[name] = "no"
        verdict.red(name, why, _spell_remedy(why))
    if view.left:
        verdict.note((), f"Ray has lost {'; '.join(view.left)}", "restart Ray there if the node should be in use")
    return verdict


def _spell_remedy(why: str) -> str:
    if "ModuleNotFoundError" in why or "ImportError" in why:
        return "install Shardline there, in the Python environment that Ray runs in, and restart Ray on the node"
    return (
        "look at the node's load and at raylet.out in Ray's logs there; `ray stop` and `ray start` there help if Ray "
        "hangs, and a larger --timeout-s if the node is only busy"
    )
