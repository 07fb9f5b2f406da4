"""What waiting threads of torch cost beside other processes: a training step by policy, interleaved. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pack import describe_run

CONTENDERS = {
    "default": {},
    "1,000 spins": {"GOMP_SPINCOUNT": "1000"},
    "10,000 spins": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SET_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
LOADS = (0, 1, 3)


@dataclass(frozen=True)
class Work:
    """Training steps of one model, as many of them a round as take about a second of a quiet machine."""

    model: str
    size: int
    batch: int
    steps: int


WORKS = (Work("mobilenet_v3_small", 64, 64, 5), Work("resnet18", 224, 8, 2))


def main() -> None:
    arguments = _parse()
    if arguments.step:
        _answer(Work(**json.loads(arguments.step)))
        return
    print("# Threads that wait: what a training step costs beside other processes\n")
    print("\n".join(describe_run()))
    for work in WORKS:
        print(f"\n## {work.model}, {work.size} pixels, batches of {work.batch}, {work.steps} steps a round\n")
        with ExitStack() as stack:
            steppers = {name: stack.enter_context(_start(work, more)) for name, more in CONTENDERS.items()}
            for busy in LOADS:
                with _busy_processes(busy):
                    _report(busy, _clock(steppers, arguments.rounds))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser.parse_args()


@contextmanager
def _start(work: Work, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Yield a process of its own for one policy: OpenMP reads it once, when torch is loaded."""
    kept = {name: value for name, value in os.environ.items() if name not in SET_BY_USER}
    command = [sys.executable, str(Path(__file__).resolve()), "--step", json.dumps(vars(work))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=kept | environment
    ) as process:
        _ask(process)  # warm
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _ask(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Return wall and CPU seconds a step of one round in that process."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    wall, cpu = json.loads(process.stdout.readline())
    return wall, cpu


def _answer(work: Work) -> None:
    """Take a round of steps for each line of standard input; write their wall and CPU seconds a step."""
    import torch
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.get_model(work.model, weights=None, num_classes=10).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.rand(work.batch, 3, work.size, work.size), torch.arange(work.batch) % 10
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(work.steps):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        spent = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps([seconds / work.steps for seconds in spent]), flush=True)


def _clock(steppers: dict[str, subprocess.Popen[str]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return wall and CPU seconds a step for each contender in each round; the order turns every other round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steppers}
    for number in range(rounds):
        for name in sorted(steppers, reverse=bool(number % 2)):
            seconds[name].append(_ask(steppers[name]))
    return seconds


def _report(busy: int, seconds: dict[str, list[tuple[float, float]]]) -> None:
    print(f"Beside {busy} busy processes:\n" if busy else "Quiet:\n")
    print("| policy | wall ms a step | to default | CPU ms a step | to default |\n| --- | --- | --- | --- | --- |")
    for name, rounds in seconds.items():
        cells = [name]
        for column in (0, 1):
            values, base = [spent[column] for spent in rounds], [spent[column] for spent in seconds["default"]]
            ratio = median(mine / theirs for mine, theirs in zip(values, base, strict=True))
            cells += [f"{1000 * median(values):,.0f}", f"{ratio:.2f}"]
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


if __name__ == "__main__":
    main()
