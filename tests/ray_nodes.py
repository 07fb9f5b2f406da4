"""A Ray cluster of several nodes on this machine, in a process of its own; nodes come and go as a test says.

`python ray_nodes.py` reads lines from standard input and answers each with one: `add CPUS`, `start CPUS HOW`,
`stop NUMBER`, `kill NUMBER`, `drain NUMBER SECONDS`, `freeze NUMBER`, `thaw NUMBER`. At its input's end all nodes end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

_RAY = str(Path(sys.executable).with_name("ray"))


class Nodes:
    """The test's side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._read()
        self.count = 0

    def add(self, cpus: int) -> int:
        """Start a node; return its number."""
        return self._count(f"add {cpus}")

    def start(self, cpus: int, **how: Any) -> int:
        """Start a node by `ray start`, and return its number once Ray lists it.

        how: what it has for itself. variables: environment variables. open_files: its soft limit. host: its host name.
        disks: folder -> size of an empty disk that it alone sees there. files: path -> file or folder that it alone
        sees there. groups: folders of control groups that it belongs to. network: its network namespace. options: of
        `ray start`.
        """
        return self._count(f"start {cpus} {json.dumps(how)}")

    def stop(self, number: int) -> None:
        """End a node that `start` has started."""
        self._tell(f"stop {number}")

    def _count(self, line: str) -> int:
        self._tell(line)
        self.count += 1
        return self.count - 1

    def kill(self, number: int) -> None:
        """End all processes of a node by SIGKILL."""
        self._tell(f"kill {number}")

    def freeze(self, number: int) -> None:
        """Stop a node's raylet by SIGSTOP, as a machine that swaps or a hypervisor does."""
        self._tell(f"freeze {number}")

    def thaw(self, number: int) -> None:
        """Let it go on."""
        self._tell(f"thaw {number}")

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
        command, *numbers = line.split(maxsplit=2)
        if command == "add":
            nodes.append(cluster.add_node(num_cpus=int(numbers[0])))
        elif command == "start":
            alive = sum(node["Alive"] for node in cluster.global_state.node_table())
            nodes.append(_Started(cluster.address, numbers[0], json.loads(numbers[1])))
            _await_nodes(cluster, alive + 1)
        elif command == "stop":
            nodes[int(numbers[0])].stop()
        elif command in ("freeze", "thaw"):
            raylet = nodes[int(numbers[0])].find_raylet()
            raylet.send_signal(signal.SIGSTOP if command == "freeze" else signal.SIGCONT)
        elif command == "kill":
            cluster.remove_node(nodes[int(numbers[0])], allow_graceful=False)
        else:
            _drain(cluster.address, nodes[int(numbers[0])].node_id, numbers[1])
        print("done", file=answers, flush=True)
    for node in nodes:
        if isinstance(node, _Started) and node.is_running:
            node.stop()
    cluster.shutdown()


class _Started:
    """A node that `ray start` runs, with what it has for itself."""

    def __init__(self, address: str, cpus: str, how: dict[str, Any]) -> None:
        words = [_RAY, "start", "--block", "--address", address, "--num-cpus", cpus, *how.get("options", [])]
        self._process = psutil.Popen(
            [*_make_private(how), *words],
            env={**os.environ, **how.get("variables", {})},
            stdout=sys.stderr,
            start_new_session=True,
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def find_raylet(self) -> psutil.Process:
        family = [self._process, *self._process.children(recursive=True)]
        return next(each for each in family if each.name() == "raylet")

    def stop(self) -> None:
        """End it as its operator does; `ray start --block` then ends what it has started."""
        self._process.terminate()
        self._process.wait(60)


def _make_private(how: dict[str, Any]) -> list[str]:
    """Return the words before a command that give it mounts, a host name, limits and groups of its own."""
    lines = [f"echo $$ > {folder}/cgroup.procs" for folder in how.get("groups", [])]
    lines += [f"ulimit -Sn {how['open_files']}"] if "open_files" in how else []
    lines += [f"mount -t tmpfs -o size={size} tmpfs {folder}" for folder, size in how.get("disks", {}).items()]
    lines += [f"mount --bind {file} {path}" for path, file in how.get("files", {}).items()]
    lines += [f"hostname {how['host']}"] if "host" in how else []
    network = ["ip", "netns", "exec", how["network"]] if "network" in how else []
    return [*network, "unshare", "--mount", "--uts", "bash", "-ec", "; ".join([*lines, 'exec "$@"']), "bash"]


def _await_nodes(cluster: Any, count: int) -> None:
    for _ in range(1200):
        if sum(node["Alive"] for node in cluster.global_state.node_table()) == count:
            return
        time.sleep(0.1)
    raise TimeoutError(f"{count} nodes")


def _drain(address: str, node_id: str, seconds: str) -> None:
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    command = [_RAY, "drain-node", "--address", address, "--node-id", node_id, *reason]
    subprocess.run([*command, "--deadline-remaining-seconds", seconds], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
