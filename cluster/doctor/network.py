"""All-reduce bandwidth between the nodes, by torch.distributed: NCCL where all have GPUs, else gloo."""

from __future__ import annotations

import re
import statistics
import textwrap
import time
from itertools import combinations
from typing import Any

from cluster.doctor.gpus import show_all
from cluster.doctor.nodes import Nodes
from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import FAILED, Facts, Node, Verdict, View
from shards.cli.sentences import join_some
from shards.workers.network import use_interface

_FIRST, _MOST = 1 << 20, 256 << 20
"""Bytes of the first tensor and of the largest."""
_ROUND_S = 0.25
"""A larger tensor is taken until a round takes as long."""
_FEW = 4
"""Nodes up to which pairs are measured unasked."""
_FEW_AFTER_FAILURE, _AFTER_FAILURE_S = 6, 10.0
"""Then pairs are measured, each within so many seconds."""
_LEAST_MB_S = 10.0
"""Below the rate of a 100 Mbit/s card: gradients of ResNet-50 (100 MB) then take 10 s each step."""
_UNEVEN = 4.0
"""A pair this many times slower than the median is worth a look."""

_stores: list[Any] = []  # a store lives as long as the process


def open_store(address: str) -> int:
    """Return the port of a new store at this node's address, where ranks find each other."""
    dist = _load_distributed()
    store = dist.TCPStore(address, 0, None, is_master=True, wait_for_workers=False)
    _stores.append(store)
    return int(store.port)


def _load_distributed() -> Any:
    import torch.distributed  # late: it takes seconds

    return torch.distributed


def all_reduce(backend: str, address: str, port: int, key: str, rank: int, num_ranks: int, limit_s: float) -> Facts:
    """Return MB/s (10^6 bytes) of an all-reduce as this rank sees it, `mb_s`, or the `error`.

    The rate is that of the bus, 2 (n - 1) / n of the tensor in its time, which can be compared to the network's rate.
    """
    import datetime

    show_all()
    import ray
    import torch

    use_interface(ray.util.get_node_ip_address())  # as the ranks of a run do

    dist = _load_distributed()
    timeout = datetime.timedelta(seconds=limit_s)
    try:
        joined = dist.TCPStore(address, port, None, is_master=False, timeout=timeout, wait_for_workers=False)
        store = dist.PrefixStore(key, joined)
        kind = dist.ProcessGroupNCCL if backend == "nccl" else dist.ProcessGroupGloo
        group = kind(store, rank, num_ranks, timeout)
        device = torch.device("cuda" if backend == "nccl" else "cpu")
        size, seconds = _measure(group, device)
        store.set(f"ended {rank}", "")  # no rank closes its sockets while another still sends
        store.wait([f"ended {other}" for other in range(num_ranks)], timeout)
    except Exception as err:  # torch raises RuntimeErrors of its own
        return {"error": shorten(str(err))}
    return {"mb_s": 2 * (num_ranks - 1) / num_ranks * size / seconds / 1e6, "bytes": size}


def shorten(error: str) -> str:
    """Return what an operator needs of torch's error.

    >>> shorten("Gloo connectFullMesh failed with [/w/pair.cc:152] timed out connecting: remote=[127.0.1.1]:7090$1")
    'another node does not answer at 127.0.1.1 port 7090'
    >>> shorten("wait timeout after 3500ms, keys: /4a9d2e/0/1")
    'another node did not come in time'
    """
    remote = re.search(r"remote=\[([^\]]+)\]:(\d+)", error)
    if remote:
        return f"another node does not answer at {remote[1]} port {remote[2]}"
    if "wait timeout" in error:
        return "another node did not come in time"
    return textwrap.shorten(error.partition("\n")[0], 160, placeholder=" ...")


def _measure(group: Any, device: Any) -> tuple[int, float]:
    """Return the bytes of a tensor, and the median seconds of its all-reduce; all ranks decide alike."""
    import torch

    size = _FIRST
    _reduce(group, torch.ones(1, device=device))  # connects
    while True:
        tensor = torch.ones(size // 4, device=device)
        taken = torch.tensor([_reduce(group, tensor)], device=device)
        _reduce(group, taken)
        if float(taken) / group.size() > _ROUND_S / 4 or size >= _MOST:
            return size, statistics.median(_reduce(group, tensor) for _ in range(3))
        size *= 4


def _reduce(group: Any, tensor: Any) -> float:
    began = time.monotonic()
    group.allreduce([tensor]).wait()
    if tensor.is_cuda:
        import torch

        torch.cuda.synchronize()
    return time.monotonic() - began


def choose_backend(nodes: tuple[Node, ...]) -> str:
    return "nccl" if all(node.resources.get("GPU", 0) >= 1 for node in nodes) else "gloo"


def list_computing(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the nodes that ranks can run on: Ray has CPUs or GPUs there."""
    return tuple(node for node in nodes if node.resources.get("CPU") or node.resources.get("GPU"))


def survey(nodes: Nodes, options: DoctorOptions) -> dict[str, Facts]:
    """Return by node its rate among all, and `pairs`: other node -> its facts with that one alone, if measured."""
    ranks = list_computing(nodes.nodes)
    if len(ranks) < 2:
        return {}
    first = ranks[0]
    ports = nodes.ask("cluster.doctor.network:open_store", {first.name: (first.address,)}, options.timeout_s)
    port = ports.get(first.name)
    if not isinstance(port, int):
        why = port[FAILED] if port else "the first node does not answer"
        return {node.name: {FAILED: why} for node in ranks}
    meeting = (first.address, port)
    found = _ask(nodes, ranks, meeting, options.timeout_s)
    failed = any("mb_s" not in facts for facts in found.values())
    most = _FEW_AFTER_FAILURE if failed else _FEW
    facts: dict[str, Any] = {name: {**each, "pairs": {}} for name, each in found.items()}
    if options.pairs or 2 < len(ranks) <= most:
        for one, other in combinations(ranks, 2):
            both = _ask(
                nodes, (one, other), meeting, min(options.timeout_s, _AFTER_FAILURE_S) if failed else options.timeout_s
            )
            for here, there in ((one.name, other.name), (other.name, one.name)):
                if here in both and here in facts:
                    facts[here]["pairs"][there] = both[here]
    return facts


def _ask(nodes: Nodes, ranks: tuple[Node, ...], meeting: tuple[str, int], limit_s: float) -> dict[str, Any]:
    backend, key = choose_backend(ranks), " ".join(node.node_id for node in ranks)
    given = {node.name: (backend, *meeting, key, rank, len(ranks), limit_s / 3) for rank, node in enumerate(ranks)}
    found = nodes.ask("cluster.doctor.network:all_reduce", given, limit_s)
    return {name: {**facts, "backend": backend} for name, facts in found.items()}


def judge(view: View) -> Verdict:
    """Find an all-reduce that fails or crawls, and pairs that do."""
    verdict = Verdict()
    if len(list_computing(view.nodes)) < 2:
        verdict.skipped = "no two nodes with CPUs or GPUs"
        return verdict
    for node, facts in view.each():
        verdict.cells[node.name] = f"{facts['backend']} {facts['mb_s']:.0f} MB/s" if "mb_s" in facts else "no"
    _judge_all(view, verdict)
    _judge_pairs(view, verdict)
    return verdict


def _judge_all(view: View, verdict: Verdict) -> None:
    errors = {node.name: facts for node, facts in view.each() if "error" in facts}
    if errors:
        first = next(iter(errors.values()))
        verdict.red(
            tuple(errors),
            f"an all-reduce of all nodes by {first['backend']} fails: {first['error']}",
            _spell_remedy(str(first["backend"])),
        )
    slow = {node.name: facts for node, facts in view.each() if facts.get("mb_s", _LEAST_MB_S) < _LEAST_MB_S}
    if slow:
        least = min(facts["mb_s"] for facts in slow.values())
        backend = str(next(iter(slow.values()))["backend"])
        fact = f"an all-reduce of all nodes by {backend} has {least:.1f} MB/s"
        verdict.red(tuple(slow), fact, _spell_remedy(backend))


def _judge_pairs(view: View, verdict: Verdict) -> None:
    pairs = list_pairs(view)
    rates = [facts["mb_s"] for facts in pairs.values() if "mb_s" in facts]
    usual = statistics.median(rates) if rates else 0.0
    broken = [pair for pair, facts in pairs.items() if "mb_s" not in facts]
    if broken and len(broken) < len(pairs):  # if all are, it is said already
        fact = f"an all-reduce of two fails between {join_some([' and '.join(pair) for pair in broken], 4)}"
        verdict.red(find_culprits(broken), fact, _spell_remedy(str(pairs[broken[0]]["backend"])))
    for pair, facts in pairs.items():
        if facts.get("mb_s", usual) < usual / _UNEVEN:
            fact = f"these two have {facts['mb_s']:.0f} MB/s, and the median pair {usual:.0f}"
            verdict.note(pair, fact, "look at their cards and cables: `ethtool` shows the speed of a card")


def find_culprits(broken: list[tuple[str, str]]) -> tuple[str, ...]:
    """Return the nodes that all broken pairs have in common, or else all of them.

    >>> find_culprits([("a", "c"), ("b", "c")]), find_culprits([("a", "b"), ("c", "d")])
    (('c',), ('a', 'b', 'c', 'd'))
    """
    names = sorted({name for pair in broken for name in pair})
    return tuple(name for name in names if all(name in pair for pair in broken)) or tuple(names)


def list_pairs(view: View) -> dict[tuple[str, str], Facts]:
    """Return the facts of each pair of nodes that was measured: an error of one of them, or the slower rate."""
    found: dict[tuple[str, str], Facts] = {}
    for node, facts in view.each():
        for other, each in facts.get("pairs", {}).items():
            pair = (min(node.name, other), max(node.name, other))
            before = found.get(pair)
            if before is None or "error" in each or each.get("mb_s", 0.0) < before.get("mb_s", 0.0):
                found[pair] = each
    return found


def _spell_remedy(backend: str) -> str:
    variable = "NCCL_SOCKET_IFNAME" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
    return (
        f"mend what `names` says; set {variable} to the interface between the nodes (`ip -br address` lists them) "
        "before `ray start`, and open all TCP ports between them"
    )
