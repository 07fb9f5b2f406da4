"""`make demo`: the whole line on real pictures; each step is a command that a user would type."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

PACKED = "data/elpv-shards"
RUN, SWEEP = "runs/demo", "runs/demo-sweep"
READY_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60


class StepFailedError(Exception):
    """A command ended with an exit code other than 0."""

    def __init__(self, command: list[str], code: int) -> None:
        super().__init__(f"`{show(command)}` ended with code {code}")
        self.code = code


@dataclass
class Step:
    """One line of the table at the end."""

    name: str
    command: list[str]
    seconds: float = 0.0
    outcome: str = ""


@dataclass
class Demo:
    """The steps so far."""

    steps: list[Step] = field(default_factory=list)

    def run(self, name: str, *command: str) -> Step:
        """Run `python -m command...` and return its step.

        Raises:
            StepFailedError: It ended with an exit code other than 0.
        """
        step = Step(name, list(command))
        print(f"\n== {name}: {show(step.command)}", flush=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", *command], check=False).returncode
        step.seconds = time.monotonic() - started
        if code:
            raise StepFailedError(step.command, code)
        self.steps.append(step)
        return step


def main() -> int:
    demo, started = Demo(), time.monotonic()
    try:
        run_line(demo)
    except StepFailedError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.code
    except KeyboardInterrupt:
        print("\ninterrupted; `make demo` resumes where this one stopped", file=sys.stderr)
        return 130
    print_summary(demo.steps, time.monotonic() - started)
    return 0


def run_line(demo: Demo) -> None:
    """Run all steps; steps that an earlier call finished are not repeated."""
    demo.run("pictures", "trainer.recipes.data.elpv", "data/elpv").outcome = "2,624 solar cells"
    demo.run("pack", "shards", "pack", "data/elpv", PACKED, "--shard-bytes", "4MiB").outcome = PACKED
    step = demo.run("train", "trainer.run", "demo")
    step.outcome = f"test accuracy {read_accuracy(f'{RUN}/evaluation/test'):.4f}, touched once"
    step = demo.run("evaluate", "trainer.evaluate", f"{RUN}/bundle", f"{PACKED}:val", "--out", f"{RUN}/evaluation/val")
    step.outcome = f"validation accuracy {read_accuracy(f'{RUN}/evaluation/val'):.4f}"
    options = ("name=demo-sweep", "epochs=3", "image_size=96")
    step = demo.run("sweep", "tune.run", "demo", "demo", *options)
    with open(f"{SWEEP}/table.csv", newline="", encoding="utf-8") as file:
        step.outcome = f"{len(list(csv.DictReader(file)))} trials, best bundle in {SWEEP}/best/bundle"
    serve_and_ask(demo)
    pictures = [f"data/elpv/test/{name}" for name in ("DEFECTIVE", "NORMAL")]
    demo.run(
        "predict", "trainer.predict", f"{RUN}/bundle", *pictures, "--out", f"{RUN}/predictions.csv"
    ).outcome = f"{RUN}/predictions.csv"


def serve_and_ask(demo: Demo) -> None:
    """Start the endpoint, send it two pictures of each class, and stop it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    command = ["cluster.serve", f"{RUN}/bundle", "--port", port]
    step = Step("serve", command)
    print(f"\n== serve: {show(command)}", flush=True)
    started = time.monotonic()
    server = subprocess.Popen([sys.executable, "-m", *command])
    try:
        pictures = [
            str(path) for name in ("DEFECTIVE", "NORMAL") for path in sorted(Path("data/elpv/test", name).iterdir())[:2]
        ]
        demo.run("ask", "cluster.client", f"http://127.0.0.1:{port}", *pictures, "--wait-s", str(READY_TIMEOUT_S))
        demo.steps[-1].outcome = f"{len(pictures)} pictures answered over HTTP"
    finally:
        code = stop(server)
    if code not in (0, 130):  # 130: the endpoint answered, but was stopped before it printed that it was ready
        raise StepFailedError(command, code)
    step.seconds = time.monotonic() - started
    step.outcome = "started, answered, stopped"
    demo.steps.insert(-1, step)


def stop(server: subprocess.Popen[bytes]) -> int:
    """Stop a server and return its exit code; by SIGTERM, since background shells ignore Ctrl-C."""
    server.terminate()
    try:
        return server.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


def read_accuracy(folder: str) -> float:
    """Return the accuracy in an evaluation's files."""
    return float(json.loads(Path(folder, "metrics.json").read_text(encoding="utf-8"))["accuracy"])


def show(command: list[str]) -> str:
    """Return the command as a user types it."""
    return "python -m " + " ".join(command)


def print_summary(steps: list[Step], seconds: float) -> None:
    """Print what was done, where the outputs are, and the command of each step."""
    print("\nWhat was done")
    for step in steps:
        print(f"  {step.name:9} {step.seconds:6.0f} s  {step.outcome}")
    print(f"  {'in all':9} {seconds:6.0f} s")  # less than the sum: pictures are sent while the endpoint is served
    offline = sorted(Path(RUN, "wandb").glob("*run-*"))
    outputs = {
        "report": f"{RUN}/report.html",
        "bundle": f"{RUN}/bundle",
        "sweep": f"{SWEEP}/ablation.html",
        "W&B": str(offline[-1]) if offline else "not recorded (WANDB_MODE=disabled)",
    }
    print("\nOutputs")
    for name, place in outputs.items():
        print(f"  {name:12} {place}")
    print("\nTo run a step alone, after `source .venv/bin/activate`")
    for step in steps:
        print(f"  {show(step.command)}")
    print("\nNothing is left running; `make serve` keeps an endpoint up.")


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    sys.exit(main())
