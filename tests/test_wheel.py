"""The wheel of this repository: all that its packages are made of, and the console command."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "trainer", "tune", "cluster")


def list_tracked() -> list[str]:
    command = ["git", "ls-files", "--", *PACKAGES]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def copy_tracked(out: Path) -> None:
    """Copy what a wheel is made of: a build writes beside its sources."""
    for name in [*list_tracked(), "pyproject.toml", "README.md", "LICENSE"]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, out / name)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("setuptools") is None:
        pytest.skip("a wheel is built by setuptools, which is not installed here")
    root, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    copy_tracked(root)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*pip, "--wheel-dir", str(out), str(root)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("shardline-*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = set(list_tracked())
    assert tracked - held == set(), "name the missing files under [tool.setuptools.package-data] in pyproject.toml"
    assert held - tracked == set()
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert {"trainer/recipes/smoke.yaml", "tune/space/spaces/smoke.yaml", "shards/audit/page.html"} <= held
    assert {f"cluster/serve/web/{name}" for name in ("page.html", "page.css", "page.js", "icon.svg")} <= held


@pytest.mark.slow
def test_wheel_declares_the_console_command_which_runs_from_it_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (declared,) = tmp_path.glob("*.dist-info/entry_points.txt")
    entries = configparser.ConfigParser()
    entries.read_string(declared.read_text(encoding="utf-8"))
    module, _, function = entries["console_scripts"]["shardline"].partition(":")
    call = f"import sys; from {module} import {function}; print(sys.modules['shards'].__file__); sys.exit({function}())"
    done = subprocess.run(
        [sys.executable, "-c", call, "run"], cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith(f"{tmp_path}/shards/__init__.py\nname a recipe")
    assert "  smoke  " in done.stdout


@pytest.mark.slow
def test_wheel_gives_the_names_that_python_imports(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = "import shards, trainer, cluster; print(shards.__file__, shards.pack, trainer.train, cluster.Client)"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {script}"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/shards/__init__.py <function pack")
