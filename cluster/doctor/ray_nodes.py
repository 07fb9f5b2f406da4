"""The nodes of a Ray cluster, asked through a process on each that needs no free CPU."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from shards.workers.ray_cluster import join_running  # isort: skip, it quiets Ray

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.doctor.nodes import call
from cluster.doctor.patience import explain
from cluster.doctor.verdict import FAILED, Node

_HEAD = "node:__internal_head__"
_THREADS = 8
"""Calls that a node answers at a time: those that hang are left behind."""
_PING_S = 3.0


_LATE = object()


class Probe:
    """Answers on its node."""

    def call(self, function: str, arguments: tuple[Any, ...]) -> Any:
        return call(function, arguments)


class RayNodes:
    """The nodes of the cluster that this process has joined; use it as a context."""

    def __init__(self, cluster: str) -> None:
        self.cluster: str | None = cluster
        rows = ray.nodes()
        self.nodes = name_nodes([row for row in rows if row["Alive"]])
        self.left = tuple(_describe_lost(row) for row in rows if not row["Alive"])
        self.silent: dict[str, str] = {}
        self._probes = {node.name: _start(node) for node in self.nodes}

    def ask(self, function: str, arguments: Mapping[str, tuple[Any, ...]], limit_s: float) -> dict[str, Any]:
        """See `Nodes`."""
        asked = {
            name: self._probes[name].call.remote(function, given)
            for name, given in arguments.items()
            if name not in self.silent
        }
        until = time.monotonic() + limit_s
        results = {name: self._answer(name, reference, until) for name, reference in asked.items()}
        self._explain_late([name for name, result in results.items() if result is _LATE], results, limit_s)
        self.nodes = tuple(node for node in self.nodes if node.name not in self.silent)
        return {name: result for name, result in results.items() if name not in self.silent}

    def _explain_late(self, late: list[str], results: dict[str, Any], limit_s: float) -> None:
        """Tell a call that hangs, which has failed, from a node that answers nothing any more, which is silent."""
        until = time.monotonic() + _PING_S
        pings = {name: self._probes[name].call.remote("cluster.doctor.clock:now", ()) for name in late}
        for name, ping in pings.items():
            if isinstance(self._answer(name, ping, until), float):
                results[name] = {FAILED: f"no answer within {limit_s:g} s"}
            else:
                self.silent.setdefault(name, f"does not answer within {limit_s:g} s")

    def _answer(self, name: str, reference: Any, until: float) -> Any:
        try:
            return ray.get(reference, timeout=max(0.0, until - time.monotonic()))
        except GetTimeoutError:
            return _LATE
        except RayActorError as err:
            self.silent[name] = f"runs no process of ours: {_last_line(err)}"
        except RayTaskError as err:
            return {FAILED: explain(err.cause)}
        except RayError as err:
            self.silent[name] = f"cannot be asked: {_last_line(err)}"
        return None

    def close(self) -> None:
        for probe in self._probes.values():
            ray.kill(probe)


@contextlib.contextmanager
def open_cluster(address: str) -> Iterator[RayNodes]:
    """Join the Ray cluster at HOST:PORT, and yield its nodes.

    Raises:
        ConnectionError: No cluster answers.
    """
    joined = not ray.is_initialized()
    try:
        join_running(address, log_to_driver=False)
    except ConnectionError as err:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({explain(err.__cause__ or err)}); give the --address of its head, "
            "HOST:PORT with the --port of `ray start --head`, or --address local to examine this machine alone"
        ) from err
    nodes = RayNodes(address)
    try:
        yield nodes
    finally:
        nodes.close()
        if joined:
            ray.shutdown()


def name_nodes(rows: list[Mapping[str, Any]]) -> tuple[Node, ...]:
    """Return the nodes of Ray's list, the head first, named by their hosts, and by their ids where hosts have several.

    >>> row = {"NodeID": "abcdef01", "NodeManagerHostname": "gpu-1", "NodeManagerAddress": "10.0.0.1", "Resources": {}}
    >>> [node.name for node in name_nodes([row, {**row, "NodeID": "123456789"}])]
    ['gpu-1:123456', 'gpu-1:abcdef']
    """
    hosts = Counter(row["NodeManagerHostname"] for row in rows)
    nodes = [
        Node(
            _name(row, hosts),
            row["NodeManagerAddress"],
            row["NodeID"],
            dict(row["Resources"]),
            head=_HEAD in row["Resources"],
        )
        for row in rows
    ]
    return tuple(sorted(nodes, key=lambda node: (not node.head, node.name)))


def _name(row: Mapping[str, Any], hosts: Counter[str]) -> str:
    host = str(row["NodeManagerHostname"])
    return host if hosts[host] == 1 else f"{host}:{row['NodeID'][:6]}"


def _describe_lost(row: Mapping[str, Any]) -> str:
    why = str(row.get("DeathReasonMessage") or "").partition("\n")[0].strip()
    return f"{row['NodeManagerHostname']} ({row['NodeManagerAddress']}){f': {why}' if why else ''}"


def _start(node: Node) -> Any:
    pinned = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return ray.remote(num_cpus=0, max_restarts=0, max_concurrency=_THREADS, scheduling_strategy=pinned)(Probe).remote()


def _last_line(err: Exception) -> str:
    """Return the line of an error that names the cause: that of an exception, or else the first."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    named = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception")) and ": " in line]
    return (named or lines or [type(err).__name__])[-1 if named else 0]
