"""An endpoint in the tests' Ray cluster: its options, its address, and clients that do not behave."""

from __future__ import annotations

import asyncio
import functools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from cluster.serve.api import build_api
from cluster.serve.options import read_options
from cluster.serve.predictor import Predictor
from cluster.serve.rollout import Rollout

TRITON = "tritonclient[http,grpc]==2.73.0"

MAX_MIB = 0.5
OPTIONS: dict[str, Any] = {
    "max_batch_size": 8,
    "batch_wait_ms": 50,
    "max_mib": MAX_MIB,
    "max_request_mib": 2,
    "max_pictures": 4,
    "max_megapixels": 4,
    "max_waiting": 48,
}


def fill_path(path: str) -> str:
    """Return the address of a page, with the endpoint's model in place of the path's parameters."""
    return path.format(name="shardline", version="1")


def find_free_port() -> int:
    """Return a TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stall(port: int, number: int, stack: ExitStack) -> list[socket.socket]:
    """Open requests that send their headers and three bytes of their bodies, until the stack is closed."""
    connections = []
    for _ in range(number):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\nabc")
        connections.append(connection)
    return connections


@functools.cache
def find_triton() -> tuple[str, ...]:
    """Return the command that runs a script with NVIDIA's clients, in an environment of its own; skip without one."""
    command = (sys.executable, "-m", "uv", "run", "--no-project", "--with", TRITON, "python")
    imports = ["-c", "import tritonclient.http, tritonclient.grpc"]
    done = subprocess.run([*command, *imports], capture_output=True, text=True, timeout=500)
    if done.returncode:
        pytest.skip(f"{TRITON} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return command


@contextmanager
def run_http(folder: Path, **options: Any) -> Iterator[str]:
    """Serve a bundle over HTTP in this process, without Ray; yield the address."""
    port, read = find_free_port(), read_options({"bundle": folder, **OPTIONS, **options})
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        predictor = Predictor(read)
        await predictor.follow(Rollout(bundle=str(folder)))
        servers.append(uvicorn.Server(uvicorn.Config(build_api(predictor, read), port=port, log_level="error")))
        await servers[0].serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        servers[0].should_exit = True
        thread.join()
