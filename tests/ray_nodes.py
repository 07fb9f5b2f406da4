"""A Ray cluster of several nodes on this machine, in a process of its own; nodes come and go as a test says.

`python ray_nodes.py` reads lines from standard input and answers each with one: `add CPUS`, `kill NUMBER`,
`drain NUMBER SECONDS`. At the end of its input all nodes end.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Nodes:
    """The test's side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._read()
        self.count = 0

    def add(self, cpus: int) -> int:
        """Start a node; return its number."""
        self._tell(f"add {cpus}")
        self.count += 1
        return self.count - 1

    def kill(self, number: int) -> None:
        """End all processes of a node by SIGKILL."""
        self._tell(f"kill {number}")

    def drain(self, number: int, seconds: int) -> None:
        """Give notice that a node will be taken away in so many seconds."""
        self._tell(f"drain {number} {seconds}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._read() == "done"

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster has ended"
        return line.strip()


@contextlib.contextmanager
def run_nodes() -> Iterator[Nodes]:
    """Start a head without CPUs, and end every node with the block."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__))],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Nodes(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints, too
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes: list[Any] = []
    print(cluster.address, file=answers, flush=True)
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "add":
            nodes.append(cluster.add_node(num_cpus=int(numbers[0])))
        elif command == "kill":
            cluster.remove_node(nodes[int(numbers[0])], allow_graceful=False)
        else:
            _drain(cluster.address, nodes[int(numbers[0])].node_id, numbers[1])
        print("done", file=answers, flush=True)
    cluster.shutdown()


def _drain(address: str, node_id: str, seconds: str) -> None:
    ray = str(Path(sys.executable).with_name("ray"))
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    command = [ray, "drain-node", "--address", address, "--node-id", node_id, *reason]
    subprocess.run([*command, "--deadline-remaining-seconds", seconds], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
