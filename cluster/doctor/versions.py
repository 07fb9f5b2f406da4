"""Versions of what a run computes with, on each node."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from cluster.doctor.nodes import Nodes
from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import FAILED, Facts, Verdict, View
from shards.cli.messages import PACKAGES

_MUST = ("python", "ray", "torch", "shardline", "code")
_SHOULD = ("torchvision", "timm", "numpy", "pillow", "simplejpeg", "pyarrow", "albumentations")
"""Libraries whose versions change pixels, order or speed."""
_ABSENT = "not installed"


def read(_: DoctorOptions) -> Facts:
    """Return versions by name; "code" is a digest of Shardline's own files, whatever their version says."""
    found = {name: read_version(name) for name in ("ray", "torch", "shardline", *_SHOULD)}
    return {"python": platform.python_version(), **found, "code": hash_code()}


def survey(nodes: Nodes, options: DoctorOptions) -> dict[str, Facts]:
    """Return by node what `read` does, and under "here" what it does in this process, without a cluster None."""
    found = nodes.ask(
        "cluster.doctor.versions:read", {node.name: (options,) for node in nodes.nodes}, options.timeout_s
    )
    here = read(options) if nodes.cluster else None
    return {name: facts if FAILED in facts else {**facts, "here": here} for name, facts in found.items()}


def read_version(name: str) -> str:
    """Return the version of an installed distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return _ABSENT


def hash_code() -> str:
    """Return a digest of 8 digits of the Python files of Shardline's packages, as they are imported here."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = find_spec(package)
        root = Path(next(iter(spec.submodule_search_locations or [""]))) if spec else Path()
        for path in sorted(root.rglob("*.py")) if spec else []:
            digest.update(f"{package}/{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def judge(view: View) -> Verdict:
    """Find versions that are not those of most nodes."""
    verdict = Verdict()
    here = next((facts["here"] for _, facts in view.each()), None)
    for name in (*_MUST, *_SHOULD):
        _compare(name, {node.name: facts[name] for node, facts in view.each()}, here, verdict)
    for node, facts in view.each():
        differing = [each for each in verdict.findings if node.name in each.nodes]
        verdict.cells[node.name] = "differ" if differing else f"shardline {facts['shardline']}"
    return verdict


def _compare(name: str, found: dict[str, str], here: Facts | None, verdict: Verdict) -> None:
    if not found:
        return
    usual = Counter(found.values()).most_common(1)[0][0]
    if here and here[name] in found.values():
        usual = here[name]  # jobs are submitted with the code and the versions of this environment
    what = "Shardline's code" if name == "code" else name
    add = verdict.red if name in _MUST else verdict.note
    for value in sorted(set(found.values()) - {usual}):
        others = [node for node, each in found.items() if each == value]
        add(others, f"{what} is {value}, and {usual} on the other nodes", _spell_remedy(name, usual))
    if here and here[name] not in found.values():
        fact = f"{what} is {usual} on the nodes, and {here[name]} where this command runs"
        add((), fact, _spell_remedy(name, usual, "here"))


def _spell_remedy(name: str, usual: str, where: str = "there") -> str:
    if name == "python":
        return f"make the environment with Python {usual} {where}, and restart Ray"
    if name in ("code", "shardline"):
        return f"install the same Shardline {where} (the same commit, if it is a checkout), and restart Ray on the node"
    if usual == _ABSENT:
        return f"uninstall {name} {where}, or install it everywhere"
    return f"`pip install {name}=={usual}` {where}, and restart Ray on the node"
