"""Pictures per second, CPU and latency of the endpoint, against the bare model and a plain FastAPI application.

  python tests/bench/serve.py [--seconds 15] [--rounds 2] [--model mobilenet_v3_small] [--out FILE.md]

Closed loop: wrk with 32 connections, 500 x 375 JPEGs. Open loop: requests are sent when they are due, at half of the
rate that the closed loop reached, and latency counts from then. CPU is that of all processes of the server, not of wrk.
Servers take turns, each with one thread for its model. `bare` is the same bundle called with full batches in a process.
Overload is an open loop at three times the closed loop's rate: the answers per second, as a share of the closed loop's,
and their 99th percentile; a replica turns away what is more than 64 pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import psutil
from open_loop import load
from PIL import Image

CONNECTIONS, OVERLOAD, BATCH = 32, 3, 16
SERVERS = ("ours", "batch 1", "plain")
PLAIN = Path(__file__).with_name("serve_plain.py")
WRK = """
local bodies = {}
for i = 0, 31 do
  local file = io.open("%s/" .. i .. ".jpg", "rb"); bodies[i] = file:read("*all"); file:close()
end
local n = 0
request = function()
  n = (n + 1) %% 32
  return wrk.format("POST", "/v1/predict", {["content-type"] = "image/jpeg"}, bodies[n])
end
done = function(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  print(string.format("RESULT %%d %%d %%f %%f %%f", summary.requests, bad, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass
class Result:
    """One server under load: pictures per second, CPU-milliseconds a picture, milliseconds of latency, and so on."""

    rate: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    errors: int = 0
    ready_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    overload: list[float] = field(default_factory=list)
    overload_p99: list[float] = field(default_factory=list)
    refused_p99: list[float] = field(default_factory=list)
    half_p50: list[float] = field(default_factory=list)
    half_p99: list[float] = field(default_factory=list)


def write_pictures(folder: Path) -> list[bytes]:
    """Write 32 noisy JPEGs of 500 x 375, and return their bytes."""
    rng, files = np.random.default_rng(0), []
    for number in range(32):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse, np.int16) + rng.integers(-12, 13, (375, 500, 3))
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        (folder / f"{number}.jpg").write_bytes(file.getvalue())
        files.append(file.getvalue())
    return files


def write_bundle(folder: Path, model: str) -> None:
    """Save a bundle of an untrained model with 10 classes and 224 pixels."""
    from trainer.contract.bundle import save_bundle
    from trainer.contract.decision.decision import Decision
    from trainer.contract.model.model import Classifier, ModelSpec
    from trainer.contract.preprocess import PreprocessSpec
    from trainer.contract.probes import synthesise_pictures

    names = [f"class {number}" for number in range(10)]
    save_bundle(
        folder,
        Classifier(ModelSpec(name=model, num_classes=10, in_channels=3)),
        synthesise_pictures(),
        preprocess=PreprocessSpec(size=224),
        classes=names,
        display_names=names,
        decision=Decision(),
        probes="synthetic",
        dataset=None,
        recipe=None,
        metrics=None,
    )


def measure_bare(bundle: Path, files: list[bytes], seconds: float) -> float:
    """Return the CPU-milliseconds a picture of decoding and full batches in a process of its own."""
    code = (
        "import sys, time, torch; torch.set_num_threads(1)\n"
        "from trainer.contract.bundle import Bundle\n"
        "from pathlib import Path\n"
        f"bundle = Bundle.load({str(bundle)!r})\n"
        "files = [p.read_bytes() for p in sorted(Path(sys.argv[1]).glob('*.jpg'))]\n"
        "def step(n):\n"
        f"    images = torch.stack([bundle.prepare(files[(n + k) % len(files)]) for k in range({BATCH})])\n"
        "    return [bundle.answer(*output) for output in bundle.compute(images)]\n"
        "step(0); n, cpu, end = 0, time.process_time(), time.monotonic() + float(sys.argv[2])\n"
        f"while time.monotonic() < end: step(n); n += {BATCH}\n"
        "print((time.process_time() - cpu) * 1e3 / n)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(files):
            (Path(folder) / f"{number}.jpg").write_bytes(data)
        command = [sys.executable, "-c", code, folder, str(seconds)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@contextmanager
def serving(name: str, bundle: Path, result: Result) -> Iterator[tuple[str, int]]:
    """Run a server; yield its address and the id of its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    commands = {
        "ours": ["-m", "cluster.serve", str(bundle), "--port", str(port)],
        "batch 1": ["-m", "cluster.serve", str(bundle), "--port", str(port), "--max-batch-size", "1"],
        "plain": [str(PLAIN), str(bundle), str(port)],
    }
    env = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "PYTHONDONTWRITEBYTECODE")}
    began = time.monotonic()
    server = subprocess.Popen([sys.executable, *commands[name]], env=env, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                if httpx.get(f"{url}/healthz").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        result.ready_s.append(time.monotonic() - began)
        yield url, server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def read_family(pid: int) -> tuple[float, float]:
    """Return CPU-seconds and resident MB of a process and all below it."""
    cpu = memory = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            times = process.cpu_times()
            cpu += times.user + times.system
            memory += process.memory_full_info().pss / 1e6
        except psutil.NoSuchProcess:
            continue
    return cpu, memory


def load_closed(url: str, script: Path, seconds: float) -> tuple[int, int, float, float, float]:
    """Return requests, errors, seconds, and the 50th and 99th percentile of latency in ms, with wrk."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return int(found[1]), int(found[2]), float(found[3]), float(found[4]), float(found[5])


def run_round(name: str, bundle: Path, script: Path, files: list[bytes], seconds: float, result: Result) -> None:
    """Start a server, load it, and add what was measured."""
    with serving(name, bundle, result) as (url, pid):
        load_closed(url, script, 3)
        before, _ = read_family(pid)
        requests, errors, took, p50, p99 = load_closed(url, script, seconds)
        after, memory = read_family(pid)
        result.rate.append((requests - errors) / took)
        result.cpu_ms.append(1e3 * (after - before) / requests)
        result.p50.append(p50)
        result.p99.append(p99)
        result.memory_mb.append(memory)
        half = asyncio.run(load(url, files, result.rate[-1] / 2, seconds))
        result.half_p50.append(half.percentile(0.5))
        result.half_p99.append(half.percentile(0.99))
        result.errors += errors + half.statuses.total() - half.statuses[200]
        over = asyncio.run(load(url, files, OVERLOAD * result.rate[-1], seconds))
        result.overload.append(over.statuses[200] / seconds / result.rate[-1])
        result.overload_p99.append(over.percentile(0.99))
        result.refused_p99.append(over.percentile(0.99, 503))


def draw(model: str, bare: list[float], results: dict[str, Result]) -> str:
    """Return a Markdown table, medians over rounds."""
    names = (
        "server",
        "pictures/s",
        "CPU ms a picture",
        "bare / it",
        "p50 ms",
        "p99 ms",
        "half load p50",
        "p99",
        "overload",
        "p99",
        "refusals' p99",
    )
    head = f"| {' | '.join((*names, 'errors', 'MB', 'ready s'))} |"
    lines = [f"### {model}, bare {median(bare):.1f} CPU ms a picture", "", head, "|---" * 14 + "|"]
    for name, each in results.items():
        cells = [
            name,
            f"{median(each.rate):.1f}",
            f"{median(each.cpu_ms):.1f}",
            f"{median(bare) / median(each.cpu_ms):.2f}",
            f"{median(each.p50):.0f}",
            f"{median(each.p99):.0f}",
            f"{median(each.half_p50):.0f}",
            f"{median(each.half_p99):.0f}",
            f"{median(each.overload):.2f}",
            f"{median(each.overload_p99):.0f}",
            f"{median(each.refused_p99):.0f}",
            str(each.errors),
            f"{median(each.memory_mb):.0f}",
            f"{median(each.ready_s):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", action="append", help="as in a recipe; default: mobilenet_v3_small and resnet50")
    parser.add_argument("--server", action="append", choices=SERVERS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    tables = []
    for model in arguments.model or ("mobilenet_v3_small", "resnet50"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = write_pictures(folder)
            write_bundle(folder / "bundle", model)
            script = folder / "load.lua"
            script.write_text(WRK % folder)
            results: dict[str, Any] = {server: Result() for server in arguments.server or SERVERS}
            bare = []
            for _ in range(arguments.rounds):
                bare.append(measure_bare(folder / "bundle", files, arguments.seconds / 2))
                for server, result in results.items():
                    run_round(server, folder / "bundle", script, files, arguments.seconds, result)
                    print(model, server, json.dumps(vars(result)), flush=True)
            tables.append(draw(model, bare, results))
            print(tables[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
