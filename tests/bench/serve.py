"""Pictures per second, CPU and latency of the endpoint, against the bare model and a plain FastAPI application.

  python tests/bench/serve.py [--seconds 15] [--rounds 2] [--model mobilenet_v3_small] [--out FILE.md]
      [--peers-python /tmp/peers-serve/bin/python]    # with litserve, see README.md; without it, LitServe is left out

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
from contextlib import contextmanager, suppress
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
SERVERS = ("ours", "batch 1", "plain", "litserve")
PLAIN, LITSERVE = (Path(__file__).with_name(name) for name in ("serve_plain.py", "serve_litserve.py"))
JPEG, FORM = "image/jpeg", "multipart/form-data; boundary=picture"
WRK = """
local bodies = {}
for i = 0, 31 do
  local file = io.open("%s/" .. i .. ".%s", "rb"); bodies[i] = file:read("*all"); file:close()
end
local n = 0
request = function()
  n = (n + 1) %% 32
  return wrk.format("POST", "/v1/predict", {["content-type"] = "%s"}, bodies[n])
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


def write_scripts(folder: Path, files: list[bytes]) -> dict[str, Path]:
    """Write the scripts of wrk that send the pictures, and return them by the content type that they send.

    LitServe takes no raw bytes: a form with one field.
    """
    head = b'--picture\r\ncontent-disposition: form-data; name="request"; filename="picture.jpg"\r\n\r\n'
    for number, data in enumerate(files):
        (folder / f"{number}.form").write_bytes(head + data + b"\r\n--picture--\r\n")
    scripts = {kind: folder / f"{ending}.lua" for kind, ending in ((JPEG, "jpg"), (FORM, "form"))}
    for kind, script in scripts.items():
        script.write_text(WRK % (folder, script.stem, kind))
    return scripts


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
def serving(name: str, bundle: Path, result: Result, peers: str | None) -> Iterator[tuple[str, int]]:
    """Run a server; yield its address and the id of its process. LitServe runs by the interpreter `peers`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    commands = {
        "ours": ["-m", "cluster.serve", str(bundle), "--port", str(port)],
        "batch 1": ["-m", "cluster.serve", str(bundle), "--port", str(port), "--max-batch-size", "1"],
        "plain": [str(PLAIN), str(bundle), str(port)],
        "litserve": [str(LITSERVE), str(bundle), str(port)],
    }
    env = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "PYTHONDONTWRITEBYTECODE")}
    env |= {"GOMP_SPINCOUNT": "10000", "PYTHONPATH": str(Path(__file__).parents[2])}  # as our packages set it for torch
    began = time.monotonic()
    python = str(peers) if name == "litserve" else sys.executable
    server = subprocess.Popen([python, *commands[name]], env=env, stdout=subprocess.DEVNULL)
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
        family = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        for each in family:  # LitServe's go on, and would take CPU time from the next server
            with suppress(psutil.NoSuchProcess):
                each.kill()


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


def run_round(
    name: str, bundle: Path, scripts: dict[str, Path], seconds: float, result: Result, peers: str | None
) -> None:
    """Start a server, load it, and add what was measured."""
    kind = FORM if name == "litserve" else JPEG
    script = scripts[kind]
    files = [path.read_bytes() for path in sorted(script.parent.glob(f"*.{script.stem}"))]
    with serving(name, bundle, result, peers) as (url, pid):
        load_closed(url, script, 3)
        before, _ = read_family(pid)
        requests, errors, took, p50, p99 = load_closed(url, script, seconds)
        after, memory = read_family(pid)
        result.rate.append((requests - errors) / took)
        result.cpu_ms.append(1e3 * (after - before) / requests)
        result.p50.append(p50)
        result.p99.append(p99)
        result.memory_mb.append(memory)
        half = asyncio.run(load(url, files, result.rate[-1] / 2, seconds, kind))
        result.half_p50.append(half.percentile(0.5))
        result.half_p99.append(half.percentile(0.99))
        result.errors += errors + half.statuses.total() - half.statuses[200]
        over = asyncio.run(load(url, files, OVERLOAD * result.rate[-1], seconds, kind))
        result.overload.append(over.in_time / seconds / result.rate[-1])
        result.overload_p99.append(over.percentile(0.99))
        result.refused_p99.append(over.percentile(0.99, 503))


def half_load_floor(service_ms: float, number: int = 100_000) -> float:
    """Return p99 / p50 of the latency at half load where each answer takes `service_ms` of one thread, in order.

    Requests come as a Poisson process does. Batches that save no time are only worse.
    """
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(2 * service_ms, number))
    free, latencies = 0.0, np.empty(number)
    for place, arrival in enumerate(arrivals):
        free = max(free, arrival) + service_ms
        latencies[place] = free - arrival
    return float(np.percentile(latencies, 99) / np.percentile(latencies, 50))


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
    parser.add_argument("--peers-python", metavar="PATH", help="an interpreter that has litserve")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    tables = []
    for model in arguments.model or ("mobilenet_v3_small", "resnet50"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = write_pictures(folder)
            write_bundle(folder / "bundle", model)
            scripts = write_scripts(folder, files)
            servers = [each for each in arguments.server or SERVERS if each != "litserve" or arguments.peers_python]
            results: dict[str, Any] = {server: Result() for server in servers}
            bare = []
            for _ in range(arguments.rounds):
                bare.append(measure_bare(folder / "bundle", files, arguments.seconds / 2))
                for server, result in results.items():
                    run_round(server, folder / "bundle", scripts, arguments.seconds, result, arguments.peers_python)
                    print(model, server, json.dumps(vars(result)), flush=True)
            floor = f"One by one, in order, p99 at half load is {half_load_floor(median(bare)):.1f} x p50 at best.\n"
            tables.append(draw(model, bare, results) + floor)
            print(tables[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
