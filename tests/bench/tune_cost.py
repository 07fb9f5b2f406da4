"""What Ray and Tune cost a trial: CPU-seconds of a sweep's processes, less those of the same runs in one process.

    PYTHONPATH=. python tests/bench/tune_cost.py --trials 200 --out tests/bench/results/DATE-tune-cost.md

Both train the same recipes on the same tiny dataset with the same seeds and one thread. The sweep is the command with
all processes that it starts, Ray's daemons included, until the last has ended; what a command costs once (start of Ray,
imports, report) is measured by a sweep of 2 trials and taken off. The other side is `trainer.train` in one warm
process. The driver's memory is that of its process at every twentieth trial.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

import shards

COMMON = ["track.wandb=disabled", "epochs=1", "model=timm/test_efficientnet_gn", "workers=1", "evaluate_on=[]"]
FEW = 2
COMMANDS: set[int] = set()
"""Processes that are waited for elsewhere."""


def make_data(root: Path) -> Path:
    """Pack 64 pictures of two classes."""
    rng = np.random.default_rng(0)
    for number in range(64):
        folder = root / "pictures" / ("dark", "light")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (32, 32, 3), dtype=np.uint8) + 127 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    shards.pack(root / "pictures", root / "data", split="val=0.2")
    return root / "data"


def list_rates(trials: int) -> list[float]:
    return [round(0.001 + number * 1e-5, 6) for number in range(trials)]


def measure_sweep(root: Path, data: Path, trials: int) -> tuple[float, list[tuple[int, int]]]:
    """Return the CPU-seconds of the command and its processes, and (ended trials, bytes of the driver) as it ran."""
    name = f"sweep{trials}"
    space = {
        "factors": {
            "rate": {f"r{number:03}": {"optim.peak_lr": rate} for number, rate in enumerate(list_rates(trials))}
        }
    }
    (root / f"{name}.yaml").write_text(yaml.safe_dump(space | {"screen": {"stop": "none"}}), encoding="utf-8")
    command = [sys.executable, "-m", "tune.run", "smoke", str(root / f"{name}.yaml"), f"data={data}", f"name={name}"]
    process = subprocess.Popen([*command, f"storage.root={root}", *COMMON], stdout=subprocess.DEVNULL, env=os.environ)
    COMMANDS.add(process.pid)
    others = set(list_descendants()) - {process.pid}
    sizes: list[tuple[int, int]] = []
    spent: dict[int, float] = {}
    while process.poll() is None or set(list_descendants()) - others:
        spent |= {pid: max(read_cpu(pid), spent.get(pid, 0.0)) for pid in list_descendants() if pid not in others}
        sizes.append((len(list((root / name / "trials").glob("*/result.json"))), read_resident(process.pid)))
        time.sleep(0.25)
        reap()
    if process.returncode != 0:
        raise SystemExit("the sweep failed")
    return sum(spent.values()), sizes


def list_descendants() -> list[int]:
    """Return the processes below this one, which adopts orphans."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                parents[int(path.parent.name)] = int(fields[1])
    found, new = set[int](), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


def read_cpu(pid: int) -> float:
    """Return the CPU-seconds of a process so far, without its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def become_subreaper() -> None:
    """Make this process the parent of orphans below it, so that their CPU time is counted."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def reap() -> None:
    """Wait for adopted orphans that have ended; the command itself is waited for by its own object."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ChildProcessError):
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            if fields[0] == "Z" and int(fields[1]) == os.getpid() and pid not in COMMANDS:
                os.waitpid(pid, os.WNOHANG)


def measure_calls(root: Path, data: Path, trials: int) -> float:
    """Return the CPU-seconds of the same runs in one process, without its imports and first run."""
    fixed = [f"data={data}", f"storage.root={root}/calls", *COMMON]
    code = f"""
import resource, torch, trainer
from trainer.recipes.file import load_recipe
torch.set_num_threads(1)
for number, rate in enumerate({[0.0009, *list_rates(trials)]}):
    trainer.train(load_recipe("smoke", {fixed} + [f"name=r{{number}}", f"optim.peak_lr={{rate}}"]))
    if number == 0:
        first = resource.getrusage(resource.RUSAGE_SELF)
last = resource.getrusage(resource.RUSAGE_SELF)
print("CPU", last.ru_utime + last.ru_stime - first.ru_utime - first.ru_stime)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split("CPU")[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--out", type=Path, help="Markdown file for the result")
    arguments = parser.parse_args()
    become_subreaper()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = make_data(root)
        few, _ = measure_sweep(root, data, FEW)
        many, sizes = measure_sweep(root, data, arguments.trials)
        calls = measure_calls(root, data, arguments.trials)
    each = (many - few) / (arguments.trials - FEW) - calls / arguments.trials
    lines = [
        f"# What a trial costs beside its training, {datetime.date.today()}",
        "",
        f"`{shlex.join(['python', *sys.argv])}`; {platform.machine()}, {os.cpu_count()} cores.",
        "",
        f"{arguments.trials} trials: {many:.1f} CPU-seconds with all processes; {FEW} trials: {few:.1f}; the same "
        f"{arguments.trials} runs by `trainer.train` in one warm process: {calls:.1f}. Ray's and Tune's share is "
        f"{each:.3f} CPU-seconds a trial (at most 0.5), without what a command costs once; with it, "
        f"{(many - calls) / arguments.trials:.3f}.",
        "",
        "| trials ended | MiB of the driver |",
        "|---|---|",
        *(f"| {ended} | {size / 2**20:.0f} |" for ended, size in thin(sizes)),
    ]
    print("\n".join(lines))
    print(json.dumps({"each": each}))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if each < 0.5 else 1


def thin(sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return one row for each twentieth trial."""
    found: dict[int, tuple[int, int]] = {}
    for ended, size in sizes:
        if size:
            found.setdefault(ended // 20, (ended, size))
    return list(found.values())


if __name__ == "__main__":
    sys.exit(main())
