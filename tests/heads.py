"""A Ray head that takes jobs and asks for a token, in processes of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from object_stores import free_ports

RAY = os.path.join(os.path.dirname(sys.executable), "ray")
START_S = 90.0


@dataclass(frozen=True)
class RunningHead:
    """Its address for jobs, the HOST:PORT of its cluster, and the environment that its clients need."""

    address: str
    cluster: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}


@contextlib.contextmanager
def run_head(cpus: int = 4) -> Iterator[RunningHead]:
    """Run a head during the block."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: sockets have their names in it
    port, jobs_port, agent_port = free_ports(3)
    head = RunningHead(f"http://127.0.0.1:{jobs_port}", f"127.0.0.1:{port}", secrets.token_hex(32))
    options = [f"--port={port}", f"--dashboard-port={jobs_port}", f"--num-cpus={cpus}", f"--temp-dir={folder}"]
    options += [f"--dashboard-agent-listen-port={agent_port}"]  # another cluster here may have the default one
    command = [RAY, "start", "--head", "--block", "--disable-usage-stats", "--object-store-memory=200000000", *options]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | head.environment
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_S
        while not _is_up(f"{head.address}/api/version"):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        yield head
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _is_up(page: str) -> bool:
    try:
        urllib.request.urlopen(page, timeout=5).close()
    except urllib.error.HTTPError:  # it asks for the token
        return True
    except OSError:
        return False
    return True
