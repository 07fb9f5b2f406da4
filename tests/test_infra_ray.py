"""Ray's cluster launcher and Slurm: the files are read by Ray, bash and shellcheck; (slow) the script's cluster trains.

No cloud and no Slurm are asked. What Slurm would place on two nodes runs here as two Ray nodes of one machine.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from entrypoints import read_entrypoint
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli

from shards.errors import UsageError
from trainer.record.run_folder import RunFolder

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "infra/ray"
SCRIPT = FOLDER / "slurm.sbatch"
BIN = Path(sys.executable).parent
TEXT = SCRIPT.read_text(encoding="utf-8")
NODE_FIELDS = {
    "aws": "BlockDeviceMappings IamInstanceProfile ImageId InstanceMarketOptions InstanceType KeyName MetadataOptions "
    "SecurityGroupIds SubnetIds TagSpecifications",
    "gcp": "disks guestAccelerators labels machineType metadata networkInterfaces scheduling serviceAccounts tags",
}
"""Cloud -> fields of a machine that are of use here, by hand: Ray hands a node_config to the cloud as it is."""
CLOUDS = sorted(NODE_FIELDS)
SCHEMA = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text(encoding="utf-8"))


def read_launcher(cloud: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((FOLDER / f"{cloud}.yaml").read_text(encoding="utf-8"))
    return values


def check_launcher(values: dict[str, Any]) -> dict[str, Any]:
    """Return a launcher's file with Ray's defaults.

    Raises:
        jsonschema.ValidationError: `ray up` would refuse it.
        ValueError: It has a field that `ray up` would ignore, or that the cloud would refuse.
    """
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(values))
    validate_config(prepared)
    unknown = set(values["provider"]) - set(SCHEMA["properties"]["provider"]["properties"])
    for each in values["available_node_types"].values():
        unknown |= set(each["node_config"]) - set(NODE_FIELDS[values["provider"]["type"]].split())
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    return prepared


@pytest.mark.parametrize("cloud", CLOUDS)
def test_launcher_is_as_rays_schema_says_and_has_spot_workers(cloud: str) -> None:
    values = check_launcher(read_launcher(cloud))
    types = values["available_node_types"]
    assert types[values["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["head"]["max_workers"] == 0
    assert "spot" in str(types["spot"]["node_config"]).lower()
    assert "spot" not in str(types["demand"]["node_config"]).lower()
    assert values["max_workers"] == types["spot"]["max_workers"] + types["demand"]["max_workers"]
    assert not values["provider"].get("cache_stopped_nodes", True) or cloud == "gcp"


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize(
    "path", ["", "provider", "auth", "available_node_types.spot", "available_node_types.spot.node_config"]
)
def test_misspelt_field_of_a_launcher_is_found(cloud: str, path: str) -> None:
    values = read_launcher(cloud)
    tree = values
    for key in filter(None, path.split(".")):
        tree = tree[key]
    tree["max_worker"] = 3
    with pytest.raises((jsonschema.ValidationError, ValueError), match=r"max_worker\b"):
        check_launcher(values)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_node_of_a_launcher_asks_for_the_token(cloud: str) -> None:
    values = read_launcher(cloud)
    assert "--env RAY_AUTH_MODE=token" in values["docker"]["run_options"]
    assert values["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


def list_starts(text: str) -> list[list[str]]:
    """Return the options of each `ray start`, with 1 for variables."""
    lines = re.findall(r"\bray start (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(re.sub(r"\$\(\([^)]+\)\)|\$\{[^}]+\}|\$\w+", "1", line)) for line in lines]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_launcher_starts_ray_with_options_that_it_has(cloud: str) -> None:
    values = read_launcher(cloud)
    (head,) = list_starts("\n".join(values["head_start_ray_commands"]))
    (worker,) = list_starts("\n".join(values["worker_start_ray_commands"]))
    assert parse_start(head)["dashboard_host"] == "127.0.0.1"
    assert parse_start(worker)["address"] == "1:6379"


def parse_start(options: list[str]) -> dict[str, Any]:
    return cli.commands["start"].make_context("start", list(options)).params


def test_slurm_script_starts_ray_with_options_that_it_has() -> None:
    head, worker = (parse_start(options) for options in list_starts(TEXT))
    assert (head["head"], head["block"], head["include_dashboard"]) == (True, True, False)
    assert (worker["head"], worker["block"], worker["address"]) == (False, True, "1")


def lint(text: str, folder: Path) -> tuple[int, str]:
    path = folder / "slurm.sbatch"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run([BIN / "shellcheck", path], capture_output=True, text=True, timeout=60, check=False)
    return subprocess.run(["bash", "-n", path], check=False).returncode, done.stdout


def test_slurm_script_is_one_for_bash_and_has_no_finding_of_shellcheck(tmp_path: Path) -> None:
    assert lint(TEXT, tmp_path) == (0, "")
    assert lint(TEXT.replace("\n    done\n", "\n", 1), tmp_path)[0] != 0
    assert "SC2086" in lint(TEXT.replace('prepare "$SLURM_JOB_ID"', "prepare $SLURM_JOB_ID"), tmp_path)[1]


def test_slurm_is_asked_to_requeue_and_to_give_notice_before_the_end() -> None:
    options = re.findall(r"^#SBATCH (\S+)$", TEXT, re.MULTILINE)
    assert {"--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= set(options)
    (notice,) = [option for option in options if option.startswith("--signal")]
    assert re.fullmatch(r"--signal=B:USR1@\d+", notice)
    assert "' USR1" in TEXT


def test_each_start_of_the_slurm_script_has_a_token_of_its_own() -> None:
    script = (
        'source "$1"; for job in 7 7; do prepare $job 10.0.0.1; echo $RAY_AUTH_MODE $RAY_AUTH_TOKEN $RAY_ADDRESS; done'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    (mode, first, address), (_, second, _) = (line.split() for line in done.stdout.splitlines())
    assert (mode, address) == ("token", "10.0.0.1:20014")
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert first != second


def test_command_in_the_script_is_one_of_this_project() -> None:
    (command,) = re.findall(r"slurm\.sbatch (trainer\.run .*?)\n#\n", TEXT, re.DOTALL)
    words = shlex.split(command.replace("\\\n#", " "))
    read = read_entrypoint(["python", "-m", *words])
    assert read.recipe is not None
    assert (read.recipe.least_ranks, read.recipe.most_ranks, read.recipe.launch) == (2, 4, "ray")
    with pytest.raises(UsageError, match="did you mean"):
        read_entrypoint(["python", "-m", *[word.replace("num_ranks", "num_rank") for word in words]])


ON_TWO_NODES = """
set -euo pipefail
source "$1"
prepare "$2" 127.0.0.1
trap clean_up EXIT
bash -c ray_head > head.log 2>&1 & steps+=($!)
wait_for_nodes 1
bash -c ray_worker > worker.log 2>&1 & steps+=($!)
wait_for_nodes 2
echo ready
code=0
run_until_notice "${@:3}" || code=$?
echo "ended $code ${noticed:-unnoticed}"
noticed= code=0
run_until_notice "${@:3}" || code=$?
echo "ended $code ${noticed:-unnoticed}"
"""
"""What `main` of the script does, with two nodes on this machine in place of srun's, and a second start as after a
requeue."""


@pytest.fixture
def job(dataset_path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    run = ["smoke", f"data={dataset_path}", f"storage.root={tmp_path}/runs", "name=job", "launch=ray", "num_ranks=2"]
    run += ["epochs=30", "track.wandb=disabled", "ledger=true"]
    words = ["bash", "-c", ON_TWO_NODES, "bash", SCRIPT, str(os.getpid()), "trainer.run", *run]
    paths = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, env={**os.environ, **paths}, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    yield process
    process.terminate()
    process.communicate(timeout=120)
    shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)


def read_until(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout is not None
    return next(line.strip() for line in process.stdout if line.startswith(start))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cluster_of_the_slurm_script_trains_saves_on_notice_and_goes_on(
    job: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert read_until(job, "ready") == "ready"
    metrics, until = tmp_path / "runs/job/metrics.jsonl", time.monotonic() + 300
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert read_until(job, "ended") == "ended 130 time"
    folder, seen = RunFolder(tmp_path / "runs/job"), len(metrics.read_text().splitlines())
    assert not folder.is_finished
    assert seen < 30
    assert read_until(job, "ended") == "ended 0 unnoticed"
    assert folder.is_finished
    epochs = [yaml.safe_load(line)["epoch"] for line in metrics.read_text().splitlines()]
    assert epochs == sorted(set(epochs)), "no epoch was trained twice"
    assert len(epochs) == 30
    assert job.wait(timeout=120) == 0
