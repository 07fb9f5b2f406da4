"""Prometheus and the node exporter as an operator runs them, with the repository's configuration at a test's pace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from object_stores import free_ports

ROOT = Path(__file__).parent.parent
MONITORING = ROOT / "infra/monitoring"
TOOLS = ("prometheus", "promtool", "prometheus-node-exporter")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".tools/usr/bin")])

needs_prometheus = pytest.mark.skipif(
    any(shutil.which(tool, path=_PATH) is None for tool in TOOLS),
    reason="needs prometheus, promtool and prometheus-node-exporter; infra/monitoring/fetch.sh fetches them on Debian",
)


def find_tool(name: str) -> str:
    """Return the path of a program."""
    found = shutil.which(name, path=_PATH)
    assert found is not None
    return found


def run_promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([find_tool("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60)


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that scrapes every second.

    textfiles: The node exporter's folder. agents: The file of Ray's agents.
    """

    url: str
    textfiles: Path
    agents: Path

    def follow(self, addresses: list[str]) -> None:
        """Scrape Ray's agents, as Ray's own file names them."""
        targets = [address.removeprefix("http://").removesuffix("/metrics") for address in addresses]
        temporary = self.agents.with_suffix(".new")
        temporary.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": targets}]))
        temporary.replace(self.agents)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the series that a query gives now, with `value` as a number."""
        said = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=30).json()
        assert said["status"] == "success", said
        return [{"labels": each["metric"], "value": float(each["value"][1])} for each in said["data"]["result"]]

    def wait_for(self, query: str, timeout_s: float = 30.0) -> list[dict[str, Any]]:
        """Return the series of a query once there are any."""
        until = time.monotonic() + timeout_s
        while not (found := self.ask(query)):
            assert time.monotonic() < until, f"no data within {timeout_s:g} s for {query}"
            time.sleep(0.3)
        return found

    def wait_for_alert(self, name: str, timeout_s: float = 30.0, **labels: str) -> None:
        """Return once an alert fires."""
        wanted = ", ".join(f'{key}="{value}"' for key, value in {"alertname": name, **labels}.items())
        self.wait_for(f'ALERTS{{alertstate="firing", {wanted}}}', timeout_s)


@contextlib.contextmanager
def run_prometheus(folder: Path) -> Iterator[Prometheus]:
    """Run both in a folder; alerts fire at once, without the time for which they must hold."""
    textfiles, agents = folder / "textfiles", folder / "agents.json"
    textfiles.mkdir()
    agents.write_text("[]")
    ports = free_ports(2)  # below those that the kernel gives to others meanwhile
    _write_configuration(folder, agents, ports[1])
    exporter = ["--collector.disable-defaults", "--collector.textfile"]
    with contextlib.ExitStack() as stack:
        for command in (
            [
                find_tool("prometheus-node-exporter"),
                *exporter,
                f"--collector.textfile.directory={textfiles}",
                f"--web.listen-address=127.0.0.1:{ports[1]}",
            ],
            [
                find_tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{ports[0]}",
            ],
        ):
            stack.enter_context(_running(command, folder))
        prometheus = Prometheus(f"http://127.0.0.1:{ports[0]}", textfiles, agents)
        _wait_until_ready(prometheus, folder)
        yield prometheus


def _write_configuration(folder: Path, agents: Path, port: int) -> None:
    page = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    page["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    ray, textfile = page["scrape_configs"]
    ray["file_sd_configs"] = [{"files": [str(agents)], "refresh_interval": "1s"}]
    textfile["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(page))
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    for rule in (rule for group in alerts["groups"] for rule in group["rules"]):
        rule.pop("for", None)
    (folder / "alerts.yml").write_text(yaml.safe_dump(alerts))


@contextlib.contextmanager
def _running(command: list[str], folder: Path) -> Iterator[None]:
    with open(folder / f"{Path(command[0]).name}.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_ready(prometheus: Prometheus, folder: Path) -> None:
    until = time.monotonic() + 30
    while True:
        with contextlib.suppress(httpx.HTTPError):
            is_up = httpx.get(f"{prometheus.url}/-/ready").is_success  # before, it answers questions with plain text
            if is_up and prometheus.ask('up{job="shardline-textfile"} == 1'):
                return
        assert time.monotonic() < until, (folder / "prometheus.log").read_text()[-2000:]
        time.sleep(0.2)
