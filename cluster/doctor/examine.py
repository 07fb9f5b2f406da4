"""The examination: facts of all nodes, then the verdict of each check."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster.doctor.checks import CHECKS
from cluster.doctor.nodes import Here, Nodes
from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import FAILED, Facts, Finding, Level, Node, Verdict, View
from shards.cli.table import load_builder

_READ = "cluster.doctor.nodes:read_facts"


@dataclass(frozen=True)
class Examined:
    """What an examination found.

    nodes: all nodes. silent: those that do not answer, and why. verdicts: check -> verdict. facts: check -> node ->
    facts.
    """

    cluster: str | None
    nodes: tuple[Node, ...]
    silent: Mapping[str, str]
    verdicts: Mapping[str, Verdict]
    facts: Mapping[str, Mapping[str, Facts]]

    def find(self, level: Level) -> list[tuple[str, Finding]]:
        """Return the findings of a level with their checks, in the order of the checks."""
        return [(name, each) for name, verdict in self.verdicts.items() for each in verdict.find(level)]

    def describe(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "cluster": self.cluster,
            "nodes": [{**asdict(node), "silent": node.name in self.silent} for node in self.nodes],
            "red": len(self.find("red")),
            "notes": len(self.find("note")),
            "checks": {name: self._describe_check(name) for name in self.verdicts},
        }

    def _describe_check(self, name: str) -> dict[str, Any]:
        verdict = self.verdicts[name]
        findings = [
            {"level": each.level, "nodes": list(each.nodes), "fact": each.fact, "remedy": each.remedy}
            for each in verdict.findings
        ]
        return {
            "looks_at": CHECKS[name].summary,
            "state": state_of(verdict),
            "skipped": verdict.skipped or None,
            "values": verdict.cells,
            "findings": findings,
            "facts": self.facts[name],
        }


def state_of(verdict: Verdict, node: str | None = None) -> str:
    """Return "red", "note", "skipped" or "ok": of a verdict, or of one node in it."""
    levels = {each.level for each in verdict.findings if node is None or node in each.nodes}
    if "red" in levels:
        return "red"
    return "note" if "note" in levels else "skipped" if verdict.skipped else "ok"


def examine(options: DoctorOptions) -> Examined:
    """Examine the cluster, or this machine if there is none.

    Raises:
        ConnectionError: No cluster answers at the address that was given.
    """
    with open_nodes(options) as nodes:
        return examine_nodes(nodes, options)


@contextlib.contextmanager
def open_nodes(options: DoctorOptions) -> Iterator[Nodes]:
    """Yield the nodes of the cluster that the options or RAY_ADDRESS name, or that runs here; else this machine."""
    address = options.address or os.environ.get("RAY_ADDRESS") or _find_running()
    if address in (None, "local"):
        yield Here()
        return
    from cluster.doctor.ray_nodes import open_cluster  # late: it imports ray

    with open_cluster(address) as nodes:
        yield nodes


def _find_running() -> str | None:
    from shards.workers.ray_private import find_running  # late: it imports ray

    return find_running()


def examine_nodes(nodes: Nodes, options: DoctorOptions) -> Examined:
    """Examine nodes that can be asked."""
    everyone = nodes.nodes
    facts = gather(nodes, options)
    views = {
        name: View(everyone, found, options, nodes.cluster, dict(nodes.silent), nodes.left)
        for name, found in facts.items()
    }
    verdicts = {name: make_verdict(name, view) for name, view in views.items()}
    return Examined(nodes.cluster, everyone, dict(nodes.silent), verdicts, facts)


def gather(nodes: Nodes, options: DoctorOptions) -> dict[str, dict[str, Facts]]:
    """Return the facts of each check that is made, by check and node."""
    asked = {node.name: (options,) for node in nodes.nodes}
    read: dict[str, dict[str, Facts]] = nodes.ask(_READ, asked, options.timeout_s)
    facts: dict[str, dict[str, Facts]] = {}
    for name, check in CHECKS.items():
        if check.slow and options.quick:
            facts[name] = {}
        elif check.survey:
            facts[name] = load_builder(check.survey)(nodes, options)
        else:
            facts[name] = {node: each.get(name, each) for node, each in read.items()}
    return facts


def make_verdict(name: str, view: View) -> Verdict:
    """Return the verdict of a check; facts that could not be read are red."""
    check = CHECKS[name]
    if check.slow and view.options.quick:
        return Verdict(skipped="--quick")
    if len(view.silent) == len(view.nodes) and name != "answers":
        return Verdict(skipped="no node answers")
    verdict: Verdict = load_builder(check.builder)(view)
    for node in view.nodes:
        facts = view.facts.get(node.name, {})
        if FAILED in facts:
            verdict.cells[node.name] = "?"
            fact = f"it could not be examined: {facts[FAILED]}"
            verdict.red(node.name, fact, "mend what the error says, or give a larger --timeout-s if it is only slow")
    return verdict
