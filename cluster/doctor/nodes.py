"""The nodes that are examined, and how they are asked: this machine's here, those of a Ray cluster in `ray_nodes`."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from cluster.doctor.checks import CHECKS
from cluster.doctor.options import DoctorOptions
from cluster.doctor.patience import Slow, explain, run_all
from cluster.doctor.verdict import FAILED, Facts, Node
from shards.cli.table import load_builder


class Nodes(Protocol):
    """Nodes that can be asked.

    nodes: those that have answered so far. silent: name -> why it does not answer. left: nodes that Ray has lost.
    """

    nodes: tuple[Node, ...]
    silent: dict[str, str]
    left: tuple[str, ...]
    cluster: str | None

    def ask(self, function: str, arguments: Mapping[str, tuple[Any, ...]], limit_s: float) -> dict[str, Any]:
        """Return the results of package.module:function on nodes, called with the arguments of each, by their names.

        An error is returned as facts that failed. A node that does not answer within the limit is silent from then on,
        and is not in the result.
        """
        ...


@dataclass
class Here:
    """This machine alone, without Ray."""

    nodes: tuple[Node, ...] = field(default_factory=lambda: (Node(socket.gethostname()),))
    silent: dict[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    cluster: str | None = None

    def ask(self, function: str, arguments: Mapping[str, tuple[Any, ...]], limit_s: float) -> dict[str, Any]:
        calls = {name: partial(call, function, given) for name, given in arguments.items()}
        return {name: describe_failure(found, limit_s) for name, found in run_all(calls, limit_s).items()}


def call(function: str, arguments: tuple[Any, ...]) -> Any:
    return load_builder(function)(*arguments)


def describe_failure(found: object, limit_s: float) -> Any:
    """Return a result as it is, and an error or a call that hangs as facts that failed."""
    if isinstance(found, Slow):
        return {FAILED: f"no answer within {limit_s:g} s"}
    return {FAILED: explain(found)} if isinstance(found, Exception) else found


def read_facts(options: DoctorOptions) -> dict[str, Facts]:
    """Return this node's facts for each check that has a reader, by the check's name; each is given half the limit."""
    limit_s = options.timeout_s / 2
    readers = {name: partial(call, check.reader, (options,)) for name, check in CHECKS.items() if check.reader}
    return {name: describe_failure(found, limit_s) for name, found in run_all(readers, limit_s).items()}
