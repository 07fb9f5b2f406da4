"""What an examination knows and what it concludes: nodes, their facts, and findings with remedies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.doctor.options import DoctorOptions

Facts = Mapping[str, Any]
Level = Literal["red", "note"]
FAILED = "failed"
"""The key of facts that could not be read; its value is the error."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster, or this machine.

    name: unique in the cluster. address: under which the others reach it. resources: what Ray was told that it has;
    empty without Ray. head: whether the cluster's control service runs there.
    """

    name: str
    address: str = ""
    node_id: str = ""
    resources: Mapping[str, float] = field(default_factory=dict)
    head: bool = False


@dataclass(frozen=True)
class Finding:
    """Something wrong (red) or worth knowing (note) on some nodes; the texts do not name the nodes."""

    level: Level
    nodes: tuple[str, ...]
    fact: str
    remedy: str


@dataclass
class Verdict:
    """What a check concludes.

    cells: node -> its value in a few characters. skipped: why it was not made.
    """

    cells: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    skipped: str = ""

    def add(self, level: Level, nodes: str | Iterable[str], fact: str, remedy: str) -> None:
        """Add a finding; one that says the same of other nodes is extended."""
        names = (nodes,) if isinstance(nodes, str) else tuple(nodes)
        for place, each in enumerate(self.findings):
            if (each.level, each.fact, each.remedy) == (level, fact, remedy):
                self.findings[place] = Finding(level, (*each.nodes, *names), fact, remedy)
                return
        self.findings.append(Finding(level, names, fact, remedy))

    def red(self, nodes: str | Iterable[str], fact: str, remedy: str) -> None:
        self.add("red", nodes, fact, remedy)

    def note(self, nodes: str | Iterable[str], fact: str, remedy: str) -> None:
        self.add("note", nodes, fact, remedy)

    def find(self, level: Level) -> list[Finding]:
        return [each for each in self.findings if each.level == level]


@dataclass(frozen=True)
class View:
    """What a check's verdict is made from.

    nodes: all of them. facts: node's name -> its facts for this check, if it answered. silent: node's name -> why it
    did not answer, then or later. left: nodes that Ray has lost. cluster: its address, None for this machine alone.
    """

    nodes: tuple[Node, ...]
    facts: Mapping[str, Facts]
    options: DoctorOptions = field(default_factory=DoctorOptions)
    cluster: str | None = None
    silent: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def each(self) -> Iterable[tuple[Node, Facts]]:
        """Yield the nodes whose facts could be read, with them."""
        return [(node, self.facts[node.name]) for node in self.nodes if self.is_read(node)]

    def is_read(self, node: Node) -> bool:
        return node.name in self.facts and FAILED not in self.facts[node.name]

    @property
    def head(self) -> Node:
        """The node of the cluster's control service, or else the first."""
        return next((node for node in self.nodes if node.head), self.nodes[0])


Judge = Callable[[View], Verdict]
