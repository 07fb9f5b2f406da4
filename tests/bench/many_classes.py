"""An evaluation of many classes: CPU, memory and files, of what an epoch computes and of all that is written.

`PYTHONPATH=. python tests/bench/many_classes.py [--classes 10000] --out RESULT.md`. Logits are drawn: half of the
answers are right. Each line is a process of its own, whose highest memory is counted above its logits.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from pack import describe_run

from trainer.contract.task import ONE_LABEL
from trainer.evaluate.files import write_evaluation
from trainer.evaluate.kinds import find_kind
from trainer.evaluate.metrics.metrics import compute_metrics, compute_scalars
from trainer.evaluate.metrics.resampling import find_units
from trainer.evaluate.metrics.rule import find_rule
from trainer.evaluate.predictions import Predictions, write_predictions

GOAL = "an epoch's metrics within 10 CPU-seconds and 1 GB above the logits, of 10,000 classes and 10,000 pictures"
PARTS = ("an epoch's metrics", "metrics with their tables", "intervals", "predictions", "trainer.evaluate's files")


def draw(number: int) -> Predictions:
    """As many pictures as classes, one of each; in blocks, so that drawing is not what needs most memory."""
    labels, logits = np.arange(number), np.empty((number, number), np.float32)
    rng = np.random.default_rng(0)
    for row in logits:
        rng.standard_normal(out=row, dtype=np.float32)
    logits[labels, labels] += 4
    classes = [f"class-{number:05d}" for number in labels.tolist()]
    known = pa.table({"sample_id": labels, "path": [f"{name}/picture.jpg" for name in classes]})
    return Predictions(classes, classes, labels, logits, known, {})


def run_part(name: str, predictions: Predictions, out: Path) -> None:
    """Do one of PARTS."""
    classes, rule = predictions.classes, find_rule(ONE_LABEL, predictions.classes)
    given = predictions.labels, predictions.logits, classes, rule
    parts: dict[str, Callable[[], Any]] = {
        "an epoch's metrics": lambda: compute_scalars(*given),
        "metrics with their tables": lambda: compute_metrics(*given),
        "intervals": lambda: find_kind(ONE_LABEL).bound(
            predictions, predictions.logits.argmax(axis=1), rule, find_units(len(classes), None)
        ),
        "predictions": lambda: write_predictions(out, predictions, predictions.logits.argmax(axis=1)),
        "trainer.evaluate's files": lambda: write_evaluation(out, predictions),
    }
    parts[name]()


def _measure(name: str, number: int) -> dict[str, Any]:
    predictions = draw(number)
    before, cpu, wall = _read_peak(), time.process_time(), time.perf_counter()
    with TemporaryDirectory() as folder:
        run_part(name, predictions, Path(folder))
        files = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
    used = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    return used | {"above_gb": (_read_peak() - before) / 1e9, "files": files}


def _read_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--part", choices=PARTS, help="measure one, print JSON")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(_measure(arguments.part, arguments.classes)))
        return
    lines = ["# Many classes", "", *describe_run(), f"- goal: {GOAL}", ""]
    lines += [f"{arguments.classes:,} classes, one picture of each, one process a line.", ""]
    lines += ["| part | CPU s | wall s | GB above the logits | files |", "| --- | --- | --- | --- | --- |"]
    for name in PARTS:
        command = [sys.executable, __file__, "--classes", str(arguments.classes), "--part", name]
        done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        files = ", ".join(f"{file} {size / 1e6:.1f} MB" for file, size in done["files"].items() if size > 1e6)
        row = f"{done['cpu_s']:.1f} | {done['wall_s']:.1f} | {done['above_gb']:.2f} | {files or '-'}"
        lines.append(f"| {name} | {row} |")
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
