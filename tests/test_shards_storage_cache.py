from __future__ import annotations

import errno
import gc
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fault_proxy import PASS, Fault, FaultProxy
from object_stores import SeaweedFS

from shards.errors import ShardError, UsageError
from shards.storage.cache import CacheCounts, ShardCache, Wanted
from shards.storage.storage import open_readable, open_storage

SIZE = 1_000_000
LARGE = 20_000_000
CONTENTS = {f"train/{number}.tar": np.random.default_rng(number).bytes(SIZE) for number in range(8)}
CONTENTS["large.tar"] = np.random.default_rng(99).bytes(LARGE)
A, B, C, D, E, F, G, H, BIG = (
    Wanted(name, hashlib.sha256(content).hexdigest(), len(content)) for name, content in CONTENTS.items()
)
MakeCache = Callable[..., ShardCache]


@pytest.fixture(scope="module")
def store(seaweedfs: SeaweedFS) -> SeaweedFS:
    """The store, with CONTENTS below cache/."""
    storage = open_storage(seaweedfs.s3.format(path="cache"))
    for name, content in CONTENTS.items():
        storage.write(name, content)
    return seaweedfs


@pytest.fixture
def make_cache(store: SeaweedFS, tmp_path: Path) -> Iterator[MakeCache]:
    """Makes caches on one folder, each like one that another process has; room for 3 small files."""
    made = []

    def make(
        port: int = store.http_port,
        limit: int = 3 * SIZE,
        deadline_s: float = 30,
        folder: str = "cache",
        threads: int = 4,
    ) -> ShardCache:
        readable = open_readable(store.http_at(port).format(path="cache"))
        made.append(ShardCache(readable, tmp_path / folder, limit_bytes=limit, deadline_s=deadline_s, threads=threads))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def use(cache: ShardCache, *files: Wanted) -> None:
    for wanted in files:
        with cache.lease(wanted) as lease:
            assert lease.path.read_bytes() == CONTENTS[wanted.name]


def kept(folder: Path) -> set[str]:
    """Return the names, as in the store, of what is in a cache, and those of all else in it as they are."""
    names = {wanted.key: wanted.name for wanted in (A, B, C, D, E, F, G, H, BIG)}
    return {names.get(name, name) for name in os.listdir(folder)}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


PROCESS = """
import json, sys
from pathlib import Path
from shards.storage.cache import ShardCache, Wanted
from shards.storage.storage import open_readable
location, folder, limit, then, *wanted = json.loads(sys.argv[1])
cache = ShardCache(open_readable(location), Path(folder), limit_bytes=limit, deadline_s=30)
print("ready", flush=True)
sys.stdin.readline()
if then == "prefetch":
    cache.prefetch([Wanted(*each) for each in wanted])
leases = [cache.lease(Wanted(*each)) for each in wanted]
print(cache.counts().bytes_downloaded, flush=True)
if then == "hold":
    sys.stdin.readline()
"""


class Process:
    """Another process that leases files, one after another, from its own cache on the same folder."""

    def __init__(self, location: str, folder: Path, files: list[Wanted], limit: int = 3 * SIZE, then: str = "") -> None:
        wanted = [(each.name, each.sha256, each.size) for each in files]
        arguments = json.dumps([location, str(folder), limit, then, *wanted])
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, arguments],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Let it come to its end, and return what it said."""
        said, errors = self.process.communicate("\n", timeout=60)
        assert (self.process.returncode, errors) == (0, "")
        return said.strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_file_is_fetched_once_and_then_there(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache()
    use(cache, A, A, Wanted(A.name, A.sha256, None))
    counts = cache.counts()
    assert (counts.hits, counts.misses, counts.bytes_downloaded, counts.refetched) == (2, 1, SIZE, 0)
    assert kept(tmp_path / "cache") == {A.name}


def test_size_that_no_table_says_is_asked_for(make_cache: MakeCache) -> None:
    use(make_cache(), Wanted(A.name, A.sha256, None))


def test_four_processes_fetch_each_file_once(store: SeaweedFS, tmp_path: Path) -> None:
    files = [A, B, C, D, E, F]
    with FaultProxy(store.http_port) as proxy:
        location = store.http_at(proxy.port).format(path="cache")
        processes = [
            Process(location, tmp_path / "cache", random.Random(n).sample(files, 6), 6 * SIZE, "prefetch")
            for n in range(4)
        ]
        for process in processes:
            process.go()
        downloaded = [int(process.end()) for process in processes]
        assert sum(downloaded) == 6 * SIZE
        assert proxy.sent < 6.1 * SIZE
    assert kept(tmp_path / "cache") == {wanted.name for wanted in files}


def test_waiter_takes_over_from_a_killed_process_where_it_stopped(
    store: SeaweedFS, make_cache: MakeCache, tmp_path: Path
) -> None:
    with FaultProxy(store.http_port, lambda _: Fault("stall", LARGE - 1_000)) as proxy:
        other = Process(store.http_at(proxy.port).format(path="cache"), tmp_path / "cache", [BIG], LARGE)
        other.go()
        assert proxy.struck.wait(30)
        partial = tmp_path / "cache" / f"{BIG.key}.{LARGE}.partial"
        wait_until(lambda: partial.stat().st_size >= 16 << 20)
        cache = make_cache(limit=LARGE)
        waiter = threading.Thread(target=use, args=(cache, BIG))
        waiter.start()
        other.kill()
        waiter.join(30)
    use(cache, BIG)
    assert cache.counts().bytes_downloaded == LARGE - (16 << 20)
    assert kept(tmp_path / "cache") == {BIG.name}


def test_partial_file_of_a_killed_process_makes_room(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache()
    (tmp_path / "cache" / f"{A.key}.{3 * SIZE}.partial").write_bytes(b"x")
    use(cache, B)
    assert kept(tmp_path / "cache") == {B.name}


def test_longest_unused_file_leaves_first(make_cache: MakeCache, tmp_path: Path) -> None:
    use(make_cache(), A, B, C)
    other = make_cache()
    use(other, A, D)
    assert kept(tmp_path / "cache") == {A.name, C.name, D.name}
    use(other, E)
    assert kept(tmp_path / "cache") == {A.name, D.name, E.name}


@pytest.mark.parametrize("found", [True, False])
def test_file_that_another_process_uses_stays_until_it_is_killed(
    store: SeaweedFS, make_cache: MakeCache, tmp_path: Path, found: bool
) -> None:
    if found:
        use(make_cache(), A)
    holder = Process(store.http.format(path="cache"), tmp_path / "cache", [A], then="hold")
    holder.go()
    assert int(holder.line()) == (0 if found else SIZE)
    cache = make_cache()
    use(cache, B, C, D, E)
    assert kept(tmp_path / "cache") == {A.name, D.name, E.name}
    holder.kill()
    use(cache, F)
    assert kept(tmp_path / "cache") == {F.name, D.name, E.name}


def test_needed_file_without_room_is_one_sentence(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache()
    leases = [cache.lease(wanted) for wanted in (A, B, C)]
    sentence = r"full of files in use: 3,000,000 of its 3,000,000 bytes, and 1,000,000 more are needed; raise storage"
    with pytest.raises(UsageError, match=sentence):
        cache.lease(D)
    leases[1].close()
    leases[1].close()
    use(cache, D)
    assert kept(tmp_path / "cache") == {A.name, C.name, D.name}


def test_needed_file_waits_a_moment_for_room(make_cache: MakeCache) -> None:
    cache = make_cache()
    leases = [cache.lease(wanted) for wanted in (A, B, C)]
    waiter = threading.Thread(target=use, args=(cache, D))
    waiter.start()
    waiter.join(0.3)
    assert waiter.is_alive()
    leases[0].close()
    waiter.join(30)
    assert cache.counts().bytes_downloaded == 4 * SIZE


def test_long_use_counts_until_its_end(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache()
    with cache.lease(A):
        use(cache, B, C)
    use(cache, D)
    assert kept(tmp_path / "cache") == {A.name, C.name, D.name}


def test_file_above_the_limit_is_one_sentence(make_cache: MakeCache) -> None:
    with pytest.raises(UsageError, match=r"20,000,000 bytes does not fit .* limit is 3,000,000 bytes; raise storage"):
        make_cache().lease(BIG)


def test_prefetched_files_are_there_when_leased(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache()
    cache.prefetch([A, B, C])
    wait_until(lambda: kept(tmp_path / "cache") == {A.name, B.name, C.name})
    use(cache, A, B, C)
    assert (cache.counts().hits, cache.counts().misses) == (3, 0)


def test_lease_waits_for_the_prefetch_of_its_file(store: SeaweedFS, make_cache: MakeCache) -> None:
    with FaultProxy(store.http_port, lambda _: Fault("throttle", 100_000, rate=2_000_000)) as proxy:
        cache = make_cache(proxy.port)
        cache.prefetch([A])
        assert proxy.struck.wait(30)
        use(cache, A)
        assert proxy.connections == 1
    assert cache.counts().misses == 1


def test_new_list_replaces_what_was_not_begun(store: SeaweedFS, make_cache: MakeCache, tmp_path: Path) -> None:
    slow = Fault("throttle", 100_000, rate=2_000_000)
    with FaultProxy(store.http_port, lambda i: slow if i == 0 else PASS) as proxy:
        cache = make_cache(proxy.port, threads=1)
        cache.prefetch([A, B])
        assert proxy.struck.wait(30)
        cache.prefetch([C, D])
        wait_until(lambda: D.name in kept(tmp_path / "cache"))
    assert kept(tmp_path / "cache") == {A.name, C.name, D.name}


def test_prefetch_drives_out_what_was_used_but_not_what_is_awaited(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache(threads=1)
    use(cache, A, B)
    cache.prefetch([C, D, E, F, G])
    wait_until(lambda: kept(tmp_path / "cache") == {C.name, D.name, E.name})
    cache.prefetch([F, C])
    wait_until(lambda: not cache._queue)
    use(cache, C, D, E)
    assert cache.counts().refetched == 0


def test_needed_file_drives_out_the_prefetched_one_that_comes_last(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache(threads=1)
    cache.prefetch([A, B, C])
    wait_until(lambda: kept(tmp_path / "cache") == {A.name, B.name, C.name})
    use(cache, D)
    assert kept(tmp_path / "cache") == {A.name, B.name, D.name}


def test_failed_prefetch_is_quiet_until_its_file_is_leased(make_cache: MakeCache) -> None:
    cache = make_cache(threads=1)
    missing = Wanted("never/there.tar", "0" * 64, 5)
    cache.prefetch([missing, BIG, A])
    wait_until(lambda: cache.counts().bytes_downloaded == SIZE)
    with pytest.raises(FileNotFoundError, match=r"buckets/shards/cache/never/there\.tar"):
        cache.lease(missing)


@pytest.mark.parametrize("size", [SIZE, None])
def test_wrong_content_never_enters(make_cache: MakeCache, tmp_path: Path, size: int | None) -> None:
    with pytest.raises(ShardError, match=r"train/0\.tar: sha256 is"):
        make_cache().lease(Wanted(A.name, B.sha256, size))
    assert kept(tmp_path / "cache") == set()


def test_digest_that_is_a_path_is_refused(make_cache: MakeCache) -> None:
    with pytest.raises(ShardError, match="is not a sha256"):
        make_cache().lease(Wanted(A.name, "../" + "0" * 61, SIZE))


def test_file_of_a_wrong_size_is_fetched_anew(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache()
    use(cache, A)
    os.truncate(tmp_path / "cache" / A.key, 5)
    use(cache, A)
    assert cache.counts().refetched == 1


def test_unreachable_store_leaves_nothing(make_cache: MakeCache, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match=r"did not come within 0\.5 s"):
        make_cache(port=1, deadline_s=0.5).lease(A)
    assert kept(tmp_path / "cache") == set()


def test_other_files_in_the_folder_are_left_alone(make_cache: MakeCache, tmp_path: Path) -> None:
    cache = make_cache()
    (tmp_path / "cache" / "notes.txt").write_bytes(b"x" * 3 * SIZE)
    use(cache, A, B, C, D)
    assert kept(tmp_path / "cache") == {B.name, C.name, D.name, "notes.txt"}


def test_full_disk_is_one_sentence_and_leaves_nothing(make_cache: MakeCache, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.decode().strip()}")
    try:
        cache = make_cache(folder="disk")
        use(cache, A)
        with pytest.raises(
            OSError, match=r"disk of the cache is full .* bytes free, 1,000,000 needed\); free"
        ) as caught:
            cache.lease(B)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(folder))
        assert kept(folder) == {A.name}
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("then", ["", "prefetch"])
def test_ctrl_c_leaves_no_partial_file(store: SeaweedFS, tmp_path: Path, then: str) -> None:
    with FaultProxy(store.http_port, lambda _: Fault("stall", 500_000)) as proxy:
        location = store.http_at(proxy.port).format(path="cache")
        process = Process(location, tmp_path / "cache", [A, B], then=then)
        process.go()
        assert proxy.struck.wait(30)
        assert kept(tmp_path / "cache") != set()
        process.process.send_signal(signal.SIGINT)
        _, errors = process.process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert kept(tmp_path / "cache") == set()


def test_closing_gives_up_what_is_being_prefetched(store: SeaweedFS, make_cache: MakeCache, tmp_path: Path) -> None:
    before = set(threading.enumerate())  # caches of other tests in this process may still be open
    with FaultProxy(store.http_port, lambda _: Fault("stall", 500_000)) as proxy:
        cache = make_cache(proxy.port)
        cache.prefetch([A, B])
        assert proxy.struck.wait(30)
        cache.close()
    assert kept(tmp_path / "cache") == set()
    assert "shards-prefetch" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_two_thousand_leases_need_no_more_files_and_threads(make_cache: MakeCache) -> None:
    cache = make_cache()
    cache.prefetch([A, B, C])
    use(cache, A, B, C)
    wait_until(lambda: not any(thread.name.startswith("shards-read") for thread in threading.enumerate()))
    gc.collect()  # what earlier tests have left open is not to close in between
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(2_000):
        cache.lease(A).close()
    use(cache, D, E)
    wait_until(lambda: not any(thread.name.startswith("shards-read") for thread in threading.enumerate()))
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_limit_is_never_passed_and_no_content_mixed_up_between_threads(make_cache: MakeCache, tmp_path: Path) -> None:
    caches = [make_cache(limit=5 * SIZE) for _ in range(2)]
    files, errors, most, ended = [A, B, C, D, E, F, G, H], [], 0, threading.Event()

    def work(number: int) -> None:
        dice = random.Random(number)
        try:
            for _ in range(40):
                caches[number % 2].prefetch(dice.sample(files, 2))
                use(caches[number % 2], dice.choice(files))
        except BaseException as err:
            errors.append(err)

    def watch() -> None:
        nonlocal most
        while not ended.is_set():
            most = max(most, sum(entry.stat().st_size for entry in snapshot(tmp_path / "cache")))

    watcher = threading.Thread(target=watch)
    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in (watcher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    ended.set()
    watcher.join()
    assert errors == []
    assert 3 * SIZE < most <= 5 * SIZE


def snapshot(folder: Path) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        try:
            entry.stat()
        except FileNotFoundError:
            continue
        yield entry


def test_counts_begin_at_nothing(make_cache: MakeCache) -> None:
    assert make_cache().counts() == CacheCounts()
