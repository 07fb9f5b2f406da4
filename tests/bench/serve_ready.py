"""Seconds from the command to an endpoint that answers, against a bare Ray Serve application, in turns.

  python tests/bench/serve_ready.py [--rounds 3] [--model mobilenet_v3_small]

Both start Ray by themselves, behind HAProxy set up alike. `bare` is one deployment without torch, started by
`serve.run`. The stages are what `cluster.serve` does one after the other, seen from a process that calls it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx
from serve import write_bundle

PORT = 18_731
BARE = f"""
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from cluster.serve.haproxy import use_haproxy
use_haproxy()
from shards.workers.ray_cluster import join_or_start
join_or_start()
from ray import serve

@serve.deployment
class Bare:
    async def __call__(self, request):
        return "ok"

serve.start(http_options={{"host": "127.0.0.1", "port": {PORT}}}, logging_config={{"log_level": "WARNING"}})
serve.run(Bare.bind(), name="bare")
time.sleep(1000)
"""
STAGES = f"""
import sys, time
began = time.monotonic()
def say(stage):
    global began
    print(f"STAGE {{stage}}: {{time.monotonic() - began:.2f}}", flush=True)
    began = time.monotonic()
from cluster.serve.haproxy import use_haproxy
use_haproxy()
from cluster.serve.__main__ import _check_before_ray
from cluster.serve.options import read_options
options = read_options({{"bundle": sys.argv[1]}})
_check_before_ray(options)
say("options and bundle")
from cluster.serve import endpoint
say("imports of Ray")
from shards.workers.ray_cluster import join_or_start
join_or_start()
say("start of Ray")
import threading
from ray import serve
from shards.workers.ray_private import read_serve_port
threading.Thread(target=endpoint.deploy, args=(options, "127.0.0.1", {PORT}), daemon=True).start()
while read_serve_port() is None: time.sleep(0.02)
say("start of Serve's controller")
def replicas():
    found = serve.status().applications.get("shardline")
    return dict(found.deployments["Replica"].replica_states) if found and found.deployments else {{}}
while not replicas(): time.sleep(0.02)
say("building the application, beside the proxy's start")
while "RUNNING" not in replicas(): time.sleep(0.02)
say("the replica, with its imports of torch and the probes")
"""


def wait_until_it_answers(path: str) -> None:
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{PORT}{path}", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)


def measure(words: list[str], path: str) -> tuple[float, list[str]]:
    """Return the seconds from a command to its first answer, and the lines that it printed about its stages."""
    env = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "PYTHONDONTWRITEBYTECODE")}
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *words], env=env, stdout=subprocess.PIPE, text=True)
    try:
        wait_until_it_answers(path)
        seconds = time.monotonic() - began
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    return seconds, [line.removeprefix("STAGE ") for line in out.splitlines() if line.startswith("STAGE ")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="mobilenet_v3_small", help="as in a recipe")
    arguments = parser.parse_args()
    bare, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_bundle(bundle, arguments.model)
        for _ in range(arguments.rounds):
            bare.append(measure(["-c", BARE], "/")[0])
            ours.append(measure(["-m", "cluster.serve", str(bundle), "--port", str(PORT)], "/readyz")[0])
            print(f"bare {bare[-1]:.1f} s, ours {ours[-1]:.1f} s", flush=True)
        _, stages = measure(["-c", STAGES, str(bundle)], "/readyz")
    print("\n".join(stages))
    print(f"medians: bare {median(bare):.1f} s, ours {median(ours):.1f} s, more: {median(ours) - median(bare):.1f} s")


if __name__ == "__main__":
    main()
