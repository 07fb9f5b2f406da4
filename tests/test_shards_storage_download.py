from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fault_proxy import PASS, Fault, FaultProxy
from object_stores import SeaweedFS, run_seaweedfs

from shards.errors import ShardError
from shards.storage.download import download, fetch
from shards.storage.storage import open_readable, open_storage

CONTENT = np.random.default_rng(0).bytes(20_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FAULTS = {
    "reset once": lambda i: Fault("reset", 5_000_000) if i == 0 else PASS,
    "every connection reset": lambda _: Fault("reset", 6_000_000),
    "cut short once": lambda i: Fault("close", 5_000_000) if i == 0 else PASS,
    "refused for a while": lambda i: Fault("refuse") if i < 4 else PASS,
    "throttled": lambda _: Fault("throttle", rate=40_000_000),
}


@pytest.fixture(scope="module")
def stored(seaweedfs: SeaweedFS) -> SeaweedFS:
    """The store, with CONTENT at download/x."""
    open_storage(seaweedfs.s3.format(path="download")).write("x", CONTENT)
    return seaweedfs


def proxied(store: SeaweedFS, scheme: str, proxy: FaultProxy) -> str:
    """Return the location of CONTENT's folder behind a proxy."""
    return (store.s3_at if scheme == "s3" else store.http_at)(proxy.port).format(path="download")


def upstream(store: SeaweedFS, scheme: str) -> int:
    return store.s3_port if scheme == "s3" else store.http_port


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_every_byte_comes_once_through_faults(stored: SeaweedFS, scheme: str, fault: str) -> None:
    file = io.BytesIO()
    with FaultProxy(upstream(stored, scheme), FAULTS[fault]) as proxy:
        readable = open_readable(proxied(stored, scheme, proxy))
        download(readable, "x", file, sha256=SHA256, size=len(CONTENT), deadline_s=60)
        assert proxy.struck.is_set()
    assert file.getvalue() == CONTENT


def test_a_stalled_connection_is_left_for_another(gcs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.storage.download._STALL_S", 1.0)  # gs:// has no such limit of its own
    open_storage(gcs.format(path="stall")).write("x", CONTENT)
    port = int(gcs.rpartition(":")[2])
    file = io.BytesIO()
    with FaultProxy(port, lambda i: Fault("stall", 9_000_000) if i == 0 else PASS) as proxy:
        readable = open_readable(gcs.replace(f":{port}", f":{proxy.port}").format(path="stall"))
        received = download(readable, "x", file, sha256=SHA256, size=len(CONTENT), deadline_s=20)
        assert proxy.struck.is_set()
    assert received == len(CONTENT)
    assert file.getvalue() == CONTENT


def test_http_download_goes_on_at_the_byte_where_it_was_cut(stored: SeaweedFS) -> None:
    with FaultProxy(stored.http_port, lambda i: Fault("close", 15_000_000) if i == 0 else PASS) as proxy:
        download(
            open_readable(proxied(stored, "http", proxy)), "x", io.BytesIO(), sha256=SHA256, size=None, deadline_s=60
        )
        assert proxy.sent < len(CONTENT) * 1.05


def test_gcs_download_is_exact(gcs: str) -> None:
    open_storage(gcs.format(path="download")).write("x", CONTENT)
    assert fetch(open_readable(gcs.format(path="download")), "x", deadline_s=30, sha256=SHA256) == CONTENT


@pytest.mark.parametrize("size", [0, 1, 8 << 20])
@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_files_of_any_size_come_whole(seaweedfs: SeaweedFS, scheme: str, size: int) -> None:
    open_storage(seaweedfs.s3.format(path="sizes")).write(str(size), CONTENT[:size])
    location = (seaweedfs.s3 if scheme == "s3" else seaweedfs.http).format(path="sizes")
    assert fetch(open_readable(location), str(size), deadline_s=10) == CONTENT[:size]


def test_beginning_that_is_there_is_kept(stored: SeaweedFS) -> None:
    file = io.BytesIO(CONTENT[:15_000_000])
    readable = open_readable(stored.http.format(path="download"))
    assert download(readable, "x", file, sha256=SHA256, size=len(CONTENT), deadline_s=30) == 5_000_000
    assert file.getvalue() == CONTENT


@pytest.mark.parametrize("beginning", [b"something else", CONTENT + b"and more"])
def test_beginning_of_another_file_is_replaced(stored: SeaweedFS, beginning: bytes) -> None:
    file = io.BytesIO(beginning)
    readable = open_readable(stored.http.format(path="download"))
    download(readable, "x", file, sha256=SHA256, size=len(CONTENT), deadline_s=30)
    assert file.getvalue() == CONTENT


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_missing_file_is_said_at_once_with_its_whole_uri(stored: SeaweedFS, scheme: str) -> None:
    with FaultProxy(upstream(stored, scheme)) as proxy:
        location = proxied(stored, scheme, proxy)
        with pytest.raises(FileNotFoundError) as caught:
            fetch(open_readable(location), "never/there", deadline_s=60)
        assert caught.value.filename == f"{location.partition('?')[0]}/never/there"
        assert proxy.connections == 1


def test_wrong_keys_are_said_at_once(stored: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(PermissionError, match=r"denies access .*check the keys in the environment"):
        fetch(open_readable(stored.s3.format(path="download")), "x", deadline_s=60)


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_wrong_content_is_fetched_once_more_and_refused_with_both_digests(stored: SeaweedFS, scheme: str) -> None:
    with FaultProxy(upstream(stored, scheme)) as proxy:
        readable = open_readable(proxied(stored, scheme, proxy))
        with pytest.raises(ShardError, match=rf"x: sha256 is {SHA256}, but the dataset's tables have {'0' * 64}"):
            download(readable, "x", io.BytesIO(), sha256="0" * 64, size=None, deadline_s=60)
        assert 2 * len(CONTENT) < proxy.sent < 2.1 * len(CONTENT)


def test_wrong_size_is_refused_before_anything_is_fetched(stored: SeaweedFS) -> None:
    with FaultProxy(stored.s3_port) as proxy:
        readable = open_readable(proxied(stored, "s3", proxy))
        with pytest.raises(ShardError, match="has 20,000,000 bytes, but the dataset's tables have 5"):
            download(readable, "x", io.BytesIO(), sha256=SHA256, size=5, deadline_s=60)
        assert proxy.sent < 100_000


@pytest.mark.parametrize(
    "location",
    [
        "s3://b/a?endpoint_override=127.0.0.1:1&scheme=http",
        "gs://anonymous@b/a?scheme=http&endpoint_override=127.0.0.1:1",
        "http://127.0.0.1:1/a",
    ],
)
def test_unreachable_store_is_one_sentence_when_the_deadline_has_passed(location: str) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not come within 1 s \(0 bytes arrived; last cause: .*\); check that"):
        fetch(open_readable(location), "x", deadline_s=1)
    assert 1 <= time.monotonic() - start < 20  # the deadline is the claim; pyarrow alone would take 15 minutes


def test_deadline_that_began_earlier_is_told_as_the_whole_time(stored: SeaweedFS) -> None:
    """A file that waited for its turn: what it says is the option that the user set, not what was left of it."""
    readable = open_readable(stored.http.format(path="download"))
    with pytest.raises(TimeoutError, match=r"did not come within 4 s \("):
        download(readable, "x", io.BytesIO(), sha256=SHA256, size=None, deadline_s=4, until=time.monotonic() - 0.1)


def test_deadline_holds_while_a_call_hangs(stored: SeaweedFS) -> None:
    with FaultProxy(stored.s3_port, lambda _: Fault("stall", 1_000)) as proxy:
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="did not come within 1 s"):
            fetch(open_readable(proxied(stored, "s3", proxy)), "x", deadline_s=1)
        assert time.monotonic() - start < 5  # the SDK itself gives a stalled request up after 10 s
        assert proxy.struck.is_set()


EXITS = """
import sys
from shards.storage.download import fetch
from shards.storage.storage import open_readable
try:
    fetch(open_readable(sys.argv[1]), "x", deadline_s=0.5)
except TimeoutError:
    print("in time", flush=True)
"""


def test_process_ends_while_a_call_hangs(gcs: str) -> None:
    open_storage(gcs.format(path="exit")).write("x", CONTENT)
    port = int(gcs.rpartition(":")[2])
    with FaultProxy(port, lambda _: Fault("stall", 1_000)) as proxy:  # gs:// would wait for minutes
        location = gcs.replace(f":{port}", f":{proxy.port}").format(path="exit")
        command = [sys.executable, "-c", EXITS, location]
        done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "in time\n", "")


def test_cancelled_download_ends(stored: SeaweedFS) -> None:
    cancelled = threading.Event()
    with FaultProxy(stored.http_port, lambda _: Fault("stall", 1_000)) as proxy:
        threading.Thread(target=lambda: proxy.struck.wait(30) and cancelled.set()).start()
        readable = open_readable(proxied(stored, "http", proxy))
        with pytest.raises(InterruptedError):
            download(readable, "x", io.BytesIO(), sha256=None, size=None, deadline_s=60, cancelled=cancelled)


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_store_that_is_killed_and_comes_back_costs_nothing_but_time(tmp_path: Path, scheme: str) -> None:
    keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    with run_seaweedfs(tmp_path / "store", *keys) as store:
        open_storage(store.s3.format(path="download")).write("x", CONTENT)
        # The first connection becomes slow in the middle of the file: there the store is killed.
        slow = Fault("throttle", 9_000_000, rate=1_000_000)
        with FaultProxy(upstream(store, scheme), lambda i: slow if i == 0 else PASS) as proxy:
            file, errors, received = io.BytesIO(), [], []

            def run() -> None:
                try:
                    readable = open_readable(proxied(store, scheme, proxy))
                    received.append(download(readable, "x", file, sha256=SHA256, size=len(CONTENT), deadline_s=60))
                except BaseException as err:
                    errors.append(err)

            thread = threading.Thread(target=run)
            thread.start()
            assert proxy.struck.wait(30)
            store.kill()
            store.start()
            thread.join(60)
            assert (errors, received) == ([], [len(CONTENT)])
            assert file.getvalue() == CONTENT
