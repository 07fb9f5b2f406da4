"""Every command of the README and of the pages in docs/ is run here, on small data of the names that it has.

A command is run as it is written, in this process, in a folder that holds what it names. What would cost minutes gets
words behind it that make it smaller (SMALLER), or is marked slow (SLOW). What cannot be run is in NOT_RUN with the
reason, and the page says so in a comment of its source.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_pictures
from PIL import Image
from test_docs import DOCS

from shards.cli.ending import run_command

ROOT = Path(__file__).parents[1]

_TINY = "model=timm/test_efficientnet_gn image_size=32 epochs=1 track.wandb=disabled launch=local num_ranks=1"
SMALLER = {
    "python -m shards pack": "--workers 1",
    "python -m shards audit": "--workers 1",
    "python -m trainer.run demo": f"{_TINY} epochs=4 weights=none freeze=[] batch_size_global=16",
    "python -m trainer.run demo name=demo-more weights=runs/demo/bundle epochs=4": f"{_TINY} freeze=[]",
    "python -m trainer.run smoke": _TINY,
    "python -m trainer.run --help": "",
    "python -m trainer.evaluate runs/demo/bundle data/elpv-shards:test --by width,mode": "--num-ranks 1",
    "python -m trainer.bench": "--backend eager --seconds 0.01 --batch-size 1",
    "python -m trainer.recipes.data.lookalike": "--samples 40 --size 48",
}
"""Beginning of a command -> words that are put behind it; the longest beginning counts."""

SLOW = {
    "python -m tune.run demo demo name=demo-sweep epochs=3 image_size=96": "Ray Tune, eight trials",
    "python -m cluster.serve": "an endpoint on Ray Serve",
    "python -m cluster.client": "an endpoint on Ray Serve",
    "python -m cluster.verify": "an endpoint on Ray Serve",
    "curl": "an endpoint on Ray Serve",
    "python -m trainer.recipes.data.elpv": "2,624 pictures of an optional package",
}

NOT_RUN = {
    "make": "it builds .venv, or runs these tests",
    "source": "it changes the shell that types it",
    "export": "it changes the shell that types it",
    "chmod": "it changes the home folder; tests/test_cluster_jobs.py has a token of its own",
    "mkdir": "part of a backup; tests/test_operating.py runs the block",
    "until": "it copies a run that writes; tests/test_operating.py runs it",
    "tar": "part of a backup; tests/test_operating.py runs the block",
    "docker": "a daemon; tests/test_infra_docker.py lints the files and installs the serving image's packages",
    "kubectl": "a cluster; tests/test_infra_k8s.py renders every overlay with `kubectl kustomize`",
    "sbatch": "Slurm; tests/test_infra_ray.py runs the script's functions",
    "ray up": "a cloud; tests/test_infra_ray.py checks the files with Ray's schema",
    "ray": "it changes this machine's Ray; tests/e2e/test_job_submit.py starts a head with a token and submits a job",
    "python -m cluster.submit": "a head that takes jobs; tests/test_cluster_jobs.py has one",
    "python -m cluster.jobs": "a head that takes jobs; tests/test_cluster_jobs.py has one",
    "python -m cluster.stop": "a head that takes jobs; tests/test_cluster_jobs.py has one",
    "serve": "Ray's command takes port 8000; tests/test_cluster_serve.py builds the same application",
    "prometheus-node-exporter": "it stays up; tests/test_infra_monitoring.py runs it",
    "prometheus": "it stays up; tests/test_infra_monitoring.py runs it with this configuration",
    "python -m cluster.promote": "a running endpoint; tests/test_cluster_swap.py has one",
    "python -m cluster.rollback": "a running endpoint; tests/test_cluster_swap.py has one",
    "python -m cluster.status": "a running endpoint; tests/test_cluster_swap.py has one",
    "python -m cluster.doctor --address HEAD": "a cluster; tests/test_cluster_doctor.py has one",
    "python -m tune.compare": "runs of two variants with several seeds each; tests/test_tune_compare.py makes them",
    "python -m tune.dashboard": "the tracked runs of a sweep; tests/test_tune_dashboard.py makes them",
    "python -m shards pack scans.csv s3://": "a store and a cluster; tests/test_shards_packing_remote.py has both",
    "python -m trainer.predict runs/demo/bundle s3://": "a store and a cluster; tests/test_trainer_predict.py has both",
}

NEEDS = {
    "python -m trainer.evaluate --rows": "python -m trainer.evaluate runs/demo/bundle data/elpv-shards:test",
    "python runs/demo/bundle/exports/": "python -m trainer.export runs/demo/bundle --to onnx",
    "python -m trainer.evaluate runs/mine": "python -m trainer.run smoke data=data/mine",
    "python -m trainer.run smoke data=data/mine": "python -m shards pack pictures data/mine",
}
"""Beginning of a command -> beginning of one that comes before it."""

REFUSES = {"python -m trainer.decide runs/demo/bundle data/elpv-shards --point 'recall>=0.98 with 95 %'": 3}
"""Commands that need more pictures than these tests have, and how they end here."""


def find(table: dict[str, str], command: str) -> str | None:
    """Return what a table has for the longest beginning of a command, in whole words."""
    fitting = [
        start for start in table if re.match(re.escape(start) + (r"(?!\w)" if start[-1].isalnum() else ""), command)
    ]
    return table[max(fitting, key=len)] if fitting else None


def list_commands() -> dict[str, list[str]]:
    """Return each command of the pages, without its comment, and the hand-written pages that have it."""
    found: dict[str, list[str]] = {}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for line in DOCS.list_shell_lines(path.read_text(encoding="utf-8")):
            pages = found.setdefault(DOCS.strip_comment(line), [])
            pages += [] if path.parent.name == "commands" else [path.relative_to(ROOT).as_posix()]
    return found


COMMANDS = list_commands()
QUICK = [command for command in COMMANDS if not find(SLOW, command) and not find(NOT_RUN, command)]
ON_ENDPOINT = [command for command in COMMANDS if find(SLOW, command) == "an endpoint on Ray Serve"]


@dataclass
class World:
    """The folder that commands are run in, and how those ended that were."""

    folder: Path
    ended: dict[str, int] = field(default_factory=dict)
    said: str = ""

    def run(self, command: str) -> int:
        """Return the exit code of a command, run once, after those that it needs."""
        if command not in self.ended:
            if start := find(NEEDS, command):
                assert self.run(next(each for each in COMMANDS if each.startswith(start))) == 0, self.said
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                self.ended[command] = self._run(command)
            self.said = out.getvalue()
        return self.ended[command]

    def _run(self, command: str) -> int:
        words = shlex.split(f"{command} {find(SMALLER, command) or ''}")
        if words[1] != "-m":
            return run_script(words[1:])
        before = signal.getsignal(signal.SIGTERM)
        try:
            return run_command(find_main(words[2]), words[3:])
        except SystemExit as end:  # argparse's, after --help
            return int(end.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)


def find_main(module: str):  # type: ignore[no-untyped-def]
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.import_module(f"{module}.__main__").main
    return importlib.import_module(module).main


def run_script(words: list[str]) -> int:
    before, sys.argv = sys.argv, words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)


def write_world(folder: Path, multi: Path) -> None:
    """Write what the commands name and do not make."""
    from torchvision.models import resnet18

    from trainer.recipes.data.lookalike import LookAlikeOptions, make_look_alike

    def imitate(name: str, out: str, samples: int) -> None:
        make_look_alike(LookAlikeOptions(name=name, out=folder / out, samples=samples, size=48))

    imitate("elpv", "data/elpv", 800)
    imitate("elpv", "data/cells", 60)
    imitate("elpv", "new-cells.zip", 60)
    imitate("elpv", "scans.zip", 30)
    imitate("chest_xray", "chest.zip", 80)
    make_pictures(folder / "sorted", {"train": 12})
    (folder / "sorted/train").rename(folder / "pictures")
    for number in range(12):
        draw(folder / f"images/ISIC_{number}.jpg", number)
    rows = [f"ISIC_{number},{','.join(str(int(number % 3 == each)) for each in range(3))}" for number in range(12)]
    (folder / "isic.csv").write_text("\n".join(["image,MEL,NV,BCC", *rows]) + "\n")
    draw(folder / "more/deep/a.png", 100)
    draw(folder / "cell.png", 101)
    cells = sorted(path.relative_to(folder / "data/elpv").as_posix() for path in (folder / "data/elpv").glob("*/*/*"))
    sites = [f"{path},{'east' if number % 2 else 'west'}" for number, path in enumerate(cells)]
    (folder / "sites.csv").write_text("\n".join(["path,site", *sites]) + "\n")
    torch.save(resnet18(num_classes=2).state_dict(), folder / "theirs.pth")
    (folder / "scans-shards").symlink_to(multi)
    (folder / "my-shards").symlink_to(folder / "data/elpv-shards")


@pytest.fixture(scope="module")
def world(multi_path: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Data, and the demo's dataset and run, made by the demo's own commands."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, multi_path)
    made = World(folder)
    with contextlib.chdir(folder):
        for command in (
            "python -m shards pack data/elpv data/elpv-shards --shard-bytes 4MiB",
            "python -m trainer.run demo",
        ):
            assert made.run(command) == 0, made.said
    return made


@pytest.mark.parametrize("command", QUICK)
def test_command_of_the_pages_ends_as_it_should(command: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    wanted = next((code for start, code in REFUSES.items() if command.startswith(start)), 0)
    assert world.run(command) == wanted, world.said


def test_the_commands_of_the_pages_were_looked_at() -> None:
    assert len(QUICK) > 40
    tables = [*SMALLER, *SLOW, *NOT_RUN, *NEEDS, *REFUSES]
    idle = [start for start in tables if not any(command.startswith(start) for command in COMMANDS)]
    assert not idle, f"no page has a command that begins with {idle[0]}; leave it out here"


@pytest.mark.parametrize("command", [command for command in COMMANDS if find(NOT_RUN, command)])
def test_a_page_says_in_its_source_which_of_its_commands_no_test_runs(command: str) -> None:
    for page in COMMANDS[command]:
        text = (ROOT / page).read_text(encoding="utf-8")
        marked = re.findall(r"<!-- not run by tests: (.+?) -->", text, re.DOTALL)
        names = [name for each in marked for name in re.findall(r"`([^`]+)`", each)]
        assert any(command.startswith(name) for name in names), (
            f"{page} has `{command}`, which no test runs ({find(NOT_RUN, command)}); say so above its block: "
            "<!-- not run by tests: `BEGINNING OF THE COMMAND`, REASON -->"
        )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_of_an_endpoint_are_answered_and_ctrl_c_ends_it(world: World) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    assert ON_ENDPOINT[0].startswith("python -m cluster.serve")
    serve = [sys.executable, "-m", "cluster.serve", "runs/demo/bundle", "--port", port]
    # Earlier tests of this process may have left the address of their own Ray cluster.
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(serve, cwd=world.folder, env=alone, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any(line.startswith("ready:") for line in process.stdout)
        for command in ON_ENDPOINT:
            if not command.startswith("python -m cluster.serve"):
                typed = command.replace(":8000", f":{port}").replace("python ", f"{sys.executable} ", 1)
                done = subprocess.run(["bash", "-c", typed.replace("curl", "curl -sf")], cwd=world.folder, check=False)
                assert done.returncode == 0, command
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode in (0, 130)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", [each for each in COMMANDS if find(SLOW, each) and each not in ON_ENDPOINT])
def test_command_of_the_pages_that_takes_minutes_ends_as_it_should(command: str, world: World, tmp_path: Path) -> None:
    folder = tmp_path if "recipes.data.elpv" in command else world.folder
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
