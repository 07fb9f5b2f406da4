"""Names: to which address each node resolves its own host name, and whether the other nodes reach it there.

gloo by itself listens at that address and gives it to the other ranks: where it is loopback, they wait for it in vain.
Shardline's ranks listen at the node's own address, so a wrong host name is a note; an address out of reach is red.
torch also asks for the name of each address that it connects to, and waits for a name server that does not answer.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cluster.doctor.nodes import Nodes
from cluster.doctor.options import DoctorOptions
from cluster.doctor.patience import explain
from cluster.doctor.verdict import FAILED, Facts, Node, Verdict, View

_MOST_OTHERS = 32
"""Nodes that each node connects to: those that follow it in the list."""
_CONNECT_S = 4.0
_WORD_BYTES = 8
_SLOW_S = 2.0
"""Seconds of a look-up from which on it is worth a note; resolvers give up after 5 for each server and attempt."""


def listen() -> Facts:
    """Return this node's host name, the addresses that it resolves to, and a port at which it says a secret word.

    It listens until this process ends, at most some minutes.
    """
    name, word = socket.gethostname(), secrets.token_bytes(_WORD_BYTES)
    server = _open_port()
    threading.Thread(target=_serve, args=(server, word), daemon=True).start()
    interface = os.environ.get("GLOO_SOCKET_IFNAME", "")
    facts = {"host": name, "port": server.getsockname()[1], "word": word.hex(), "interface": interface}
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as err:
        return {**facts, "addresses": [], "error": explain(err)}
    return {**facts, "addresses": list(dict.fromkeys(row[4][0] for row in found))}


def _open_port() -> socket.socket:
    """Return a socket that listens at all addresses of this node, those of IPv6 included if it has it."""
    try:
        return socket.create_server(("", 0), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
    except (OSError, ValueError):
        return socket.create_server(("", 0), backlog=128)


def _serve(server: socket.socket, word: bytes) -> None:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(word)


def connect(targets: dict[str, tuple[str, int, str]]) -> Facts:
    """Return for each target (address, port, word) "" if its word is heard there, or what happens instead.

    `lookup_s` beside them is how long it takes to ask for the name of the first target's address.
    """
    with ThreadPoolExecutor(16) as pool:
        waiting = pool.submit(_time_lookup, next(iter(targets.values()))[0]) if targets else None
        heard = dict(zip(targets, pool.map(_hear, targets.values()), strict=True))
        return {**heard, "lookup_s": waiting.result() if waiting else 0.0}


def _time_lookup(address: str) -> float:
    began = time.monotonic()
    with contextlib.suppress(OSError):
        socket.getnameinfo((address, 0), 0)
    return time.monotonic() - began


def _hear(target: tuple[str, int, str]) -> str:
    address, port, word = target
    try:
        with socket.create_connection((address, port), timeout=_CONNECT_S) as connection:
            heard = connection.recv(_WORD_BYTES, socket.MSG_WAITALL)
    except OSError as err:
        return explain(err)
    return "" if heard.hex() == word else "another machine answers there"


def survey(nodes: Nodes, options: DoctorOptions) -> dict[str, Facts]:
    """Return by node what `listen` does, and what other nodes hear from it: node -> what `connect` says.

    It is split into `by_name`, the first address that the host name has, and `by_ray`, the address in Ray's list.
    `lookup_s` is how long this node looks for the name of another's address.
    """
    found = nodes.ask("cluster.doctor.names:listen", {node.name: () for node in nodes.nodes}, options.timeout_s)
    heard = {name: facts for name, facts in found.items() if FAILED not in facts}
    asked = {node.name: (_list_targets(node, nodes.nodes, heard),) for node in nodes.nodes if node.name in heard}
    reached = nodes.ask("cluster.doctor.names:connect", asked, options.timeout_s)
    for name, facts in heard.items():
        others = {each: answers for each, answers in reached.items() if FAILED not in answers}
        found[name] = {
            **facts,
            "by_name": {
                other: answers[f"name {name}"] for other, answers in others.items() if f"name {name}" in answers
            },
            "by_ray": {other: answers[f"ray {name}"] for other, answers in others.items() if f"ray {name}" in answers},
            "lookup_s": others.get(name, {}).get("lookup_s", 0.0),
        }
    return found


def _list_targets(node: Node, nodes: tuple[Node, ...], heard: dict[str, Any]) -> dict[str, tuple[str, int, str]]:
    place = nodes.index(node)
    targets = {}
    for other in [*nodes[place + 1 :], *nodes[:place]][:_MOST_OTHERS]:
        facts = heard.get(other.name)
        if facts is not None:
            targets[f"ray {other.name}"] = (other.address, facts["port"], facts["word"])
            if facts["addresses"]:
                targets[f"name {other.name}"] = (facts["addresses"][0], facts["port"], facts["word"])
    return targets


def judge(view: View) -> Verdict:
    """Find nodes whose host name leads nowhere, to themselves alone, or to where others cannot reach them."""
    verdict = Verdict()
    several = len(view.nodes) > 1
    for node, facts in view.each():
        addresses = facts["addresses"]
        verdict.cells[node.name] = addresses[0] if addresses else "no address"
        cut = {other: said for other, said in facts.get("by_ray", {}).items() if said}
        if cut:
            verdict.red(
                node.name,
                f"a port at its address {node.address} cannot be reached from {', '.join(cut)} "
                f"({next(iter(cut.values()))}): ranks do not find each other",
                "open all TCP ports between the nodes (firewall, security group, NetworkPolicy)",
            )
        elif several and not facts["interface"]:
            _judge_name(node, facts, verdict)
        if (lookup_s := facts.get("lookup_s", 0.0)) > _SLOW_S:
            verdict.note(
                node.name,
                f"the name of another node's address is looked up for {lookup_s:.0f} s, so that ranks find each other "
                "that much later: no name server answers",
                "put all nodes' addresses and names into /etc/hosts there, or a name server that answers into "
                "/etc/resolv.conf",
            )
    return verdict


def _judge_name(node: Node, facts: Facts, verdict: Verdict) -> None:
    cut = {other: said for other, said in facts.get("by_name", {}).items() if said}
    remedy = (
        "nothing, for Shardline, whose ranks use the node's own address; for other programs, put the line "
        f"`{node.address} {facts['host']}` into /etc/hosts there, and take the name out of those of 127.0.0.1 and "
        "127.0.1.1"
    )
    if not facts["addresses"]:
        verdict.note(node.name, f"its host name {facts['host']} has no address ({facts.get('error', '')})", remedy)
    elif cut:
        first = facts["addresses"][0]
        loopback = ipaddress.ip_address(first.partition("%")[0]).is_loopback
        why = "which is loopback" if loopback else f"where {', '.join(cut)} cannot reach it"
        verdict.note(node.name, f"its host name {facts['host']} resolves to {first}, {why}", remedy)
