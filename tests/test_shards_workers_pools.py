from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.errors import ShardError, UsageError
from shards.workers.pools import Pool, open_pool

ROOT = Path(__file__).parent.parent


def double(task: int) -> int:
    time.sleep(0.02 if task == 0 else 0)  # the first task is done last
    return 2 * task


def refuse_three(task: int) -> int:
    if task == 3:
        raise ShardError("three is refused")
    return task


def die(task: int) -> int:
    os._exit(9)


def name_process(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@pytest.fixture(scope="module", params=[1, 2])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    with open_pool(request.param) as opened:
        yield opened


def test_results_come_in_the_order_of_the_tasks(pool: Pool) -> None:
    assert list(pool.run(double, range(50))) == [2 * task for task in range(50)]


def test_no_tasks_give_no_results(pool: Pool) -> None:
    assert list(pool.run(double, [])) == []


def test_exception_of_a_task_is_raised_as_it_was(pool: Pool) -> None:
    results = pool.run(refuse_three, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ShardError, match=r"^three is refused$"):
        next(results)


def test_pool_serves_again_after_a_refusal(pool: Pool) -> None:
    with pytest.raises(ShardError):
        list(pool.run(refuse_three, range(10)))
    assert list(pool.run(double, range(3))) == [0, 2, 4]


def test_tasks_are_taken_as_they_are_worked_on(pool: Pool) -> None:
    taken: list[int] = []

    def tasks():  # type: ignore[no-untyped-def]
        for task in range(1000):
            taken.append(task)
            yield task

    results = pool.run(double, tasks())
    next(results)
    assert len(taken) <= 6


def test_two_workers_are_two_processes_and_neither_is_this_one() -> None:
    with open_pool(2) as pool:
        found = set(pool.run(name_process, range(20)))
    assert len(found) == 2
    assert os.getpid() not in found


def test_killed_worker_is_told_in_a_sentence() -> None:
    with (
        open_pool(2) as pool,
        pytest.raises(UsageError, match="a worker process was killed, most likely because memory"),
    ):
        list(pool.run(die, range(3)))


ORPHANS = """
import os, sys, time
sys.path.insert(0, {tests!r})
from shards.workers.pools import open_pool
from test_shards_workers_pools import name_process
if __name__ == "__main__":
    with open_pool(2) as pool:
        print(*set(pool.run(name_process, range(20))), flush=True)
        time.sleep(60)
"""


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ORPHANS.format(tests=str(ROOT / "tests")))
    with subprocess.Popen([sys.executable, str(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    assert len(workers) == 2


INTERRUPTED = """
import os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
from shards.workers.pools import open_pool
from test_shards_workers_pools import double
if __name__ == "__main__":
    threading.Thread(target=time.sleep, args=(5,), daemon=True).start()  # it takes the signal
    with open_pool(2) as pool:
        submit, done = pool._executor.submit, []

        def interrupted(*words):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            done.append(submit(*words))
            return done[-1]

        pool._executor.submit = interrupted
        try:
            list(pool.run(double, range(4)))
        except KeyboardInterrupt:
            print("submitted", len(done), flush=True)
"""


def test_interrupt_during_a_submit_waits_for_its_end(tmp_path: Path) -> None:
    """A worker that is half started would be nobody's, and complain when its parent is gone."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.format(tests=str(ROOT / "tests")))
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("submitted 1\n", "", 0)
