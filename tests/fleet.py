"""Several machines on one: each has a network of its own, a host name that nobody resolves, and private disks.

A machine is a network namespace on a bridge, with Ray's processes in it. Its home and Ray's folder are file systems
that no other machine sees. Cables can be pulled, machines switched off as by a power cut, and on again.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RAY = str(Path(sys.executable).with_name("ray"))
START_S = 120.0
TIMERS = {
    "RAY_health_check_initial_delay_ms": "3000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""What docs/cluster.md recommends for the head: a machine that is gone is known to be so after 10 s, not after 64."""


class Fleet:
    """The machines, the network of which this process is a part, and the head's address."""

    def __init__(self, folder: Path, token: str, redis: bool) -> None:
        self.folder, self.token, self.redis = folder, token, redis
        self.subnet = f"10.{213 + secrets.randbelow(40)}.{1 + secrets.randbelow(250)}"
        self.tag = secrets.token_hex(2)
        self.host = f"{self.subnet}.254"
        self.machines: list[Machine] = []
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_metrics_report_interval_ms": "1000",
            **TIMERS,
        }
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.host}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")

    @property
    def bridge(self) -> str:
        return f"br{self.tag}"

    @property
    def head(self) -> Machine:
        return self.machines[0]

    @property
    def jobs(self) -> str:
        """The head's address for jobs."""
        return f"http://{self.head.address}:8265"

    def add(self, cpus: int) -> Machine:
        """Switch a new machine on; the first is the head."""
        machine = Machine(self, len(self.machines) + 1, cpus)
        self.machines.append(machine)
        machine.start()
        return machine

    def call(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m WORDS` here, which the machines' network reaches as well."""
        variables = {**os.environ, **self.environment, "RAY_ADDRESS": self.jobs, "PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(
            [sys.executable, "-m", *words], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
        )

    def count_nodes(self) -> int:
        """Return how many machines the head believes to be there; 0 if it does not answer."""
        request = urllib.request.Request(
            f"{self.jobs}/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(json.load(answer)["data"]["result"]["num_filtered"])
        except (OSError, KeyError, TypeError):
            return 0

    def wait_for_nodes(self, count: int, within_s: float = START_S) -> float:
        """Return the seconds until the head knows exactly so many machines."""
        begun = time.monotonic()
        while self.count_nodes() != count:
            assert time.monotonic() - begun < within_s, f"not {count} nodes within {within_s} s"
            time.sleep(0.2)
        return time.monotonic() - begun

    def close(self) -> None:
        for machine in self.machines:
            machine.kill()
            machine.remove()
        _ip("link", "del", self.bridge)


class Machine:
    """One machine; `address` is its IP."""

    def __init__(self, fleet: Fleet, number: int, cpus: int) -> None:
        self.fleet, self.number, self.cpus = fleet, number, cpus
        self.address = f"{fleet.subnet}.{number}"
        self.namespace = f"m{fleet.tag}n{number}"
        self._cable = f"v{fleet.tag}n{number}"
        self._process: subprocess.Popen[bytes] | None = None
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        _ip("link", "set", self._cable, "master", fleet.bridge)
        _ip("link", "set", self._cable, "up")
        for words in (("link", "set", "lo", "up"), ("addr", "add", f"{self.address}/24", "dev", "eth0")):
            _ip("-n", self.namespace, *words)
        _ip("-n", self.namespace, "link", "set", "eth0", "up")
        _ip("-n", self.namespace, "route", "add", "default", "via", fleet.host)

    def start(self) -> None:
        """Switch it on; a head returns when it answers."""
        joins = [f"--address={self.fleet.head.address}:6379"]
        head = ["--head", "--port=6379", "--dashboard-host=0.0.0.0", "--dashboard-port=8265"]
        options = [f"--num-cpus={self.cpus}", f"--node-ip-address={self.address}", "--object-store-memory=100000000"]
        options += [f"--temp-dir={self.fleet.folder}/ray"] if self.number == 1 else []
        command = [RAY, "start", "--block", "--disable-usage-stats", *(head if self.number == 1 else joins), *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
        environment |= {**self.fleet.environment, "HOME": f"{self.fleet.folder}/home"}
        if self.fleet.redis and self.number == 1:
            environment |= {"RAY_REDIS_ADDRESS": f"{self.fleet.host}:6390", "RAY_external_storage_namespace": "fleet"}
        private = " && ".join(
            f"mkdir -p {self.fleet.folder}/{name} && mount -t tmpfs none {self.fleet.folder}/{name}"
            for name in ("home", "ray")
        )
        script = f"hostname machine{self.number} && {private} && exec " + " ".join(command)
        with open(self.fleet.folder / f"{self.namespace}.log", "ab") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c", script],
                env=environment, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip

    def kill(self) -> None:
        """End all its processes at once, as a power cut does."""
        for _ in range(50):
            found = _ip("netns", "pids", self.namespace).split()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if not found:
                break
            time.sleep(0.05)
        if self._process is not None:
            self._process.wait(30)

    def remove(self) -> None:
        _ip("link", "del", self._cable)  # the namespace itself goes later, with the last of its sockets
        _ip("netns", "del", self.namespace)

    def pull(self) -> None:
        """Pull its cable: what is sent to it or by it is lost, and no connection is closed."""
        _ip("link", "set", self._cable, "down")

    def plug(self) -> None:
        """Plug the cable in again."""
        _ip("link", "set", self._cable, "up")


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def can_have_fleets() -> bool:
    """Return whether this machine lets us make namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"try{secrets.token_hex(2)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return False
    _ip("netns", "del", name)
    return True


needs_fleet = pytest.mark.skipif(
    not can_have_fleets(), reason="no network namespaces here: they need root and iproute2"
)


@contextlib.contextmanager
def run_fleet(cpus: tuple[int, ...], redis: bool = False) -> Iterator[Fleet]:
    """Switch on machines with so many CPUs each, the head first; all are gone after the block."""
    folder = Path(tempfile.mkdtemp(prefix="fl", dir="/tmp"))  # short: sockets have their names in it
    fleet = Fleet(folder, secrets.token_hex(32), redis)
    store: subprocess.Popen[bytes] | None = None
    try:
        if redis:
            options = ["--bind", fleet.host, "--port", "6390", "--save", "", "--protected-mode", "no"]
            store = subprocess.Popen(["redis-server", *options, "--dir", str(folder)], stdout=subprocess.DEVNULL)
        for each in cpus:
            fleet.add(each)
        fleet.wait_for_nodes(len(cpus))
        yield fleet
    finally:
        fleet.close()
        if store is not None:
            store.kill()
            store.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
