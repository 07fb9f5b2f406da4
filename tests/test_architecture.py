"""Who may import whom, read from the source: relative imports and imports inside functions count as well."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "trainer", "tune", "cluster")
FILES = sorted(path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# For each package the own modules that it may import; the longest name that fits decides.
MAY_IMPORT = {
    "shards": ("shards",),
    "trainer.contract": ("shards", "trainer.contract"),
    "trainer": ("shards", "trainer"),
    "tune": ("shards", "trainer", "tune"),
    "cluster": ("shards", "trainer.contract", "cluster"),
}

# Rooms of a package, in the order of the data: none imports a later one, and what the stream needs imports no room of
# `shards`.
ROOMS = {
    "shards": ("sources", "audit", "packing", "commands"),
    "trainer": (
        "contract",
        "options",
        "weights",
        "augment",
        "feed",
        "step",
        "record",
        "evaluation",
        "fitting",
        "deploy",
        "answering",
        "report",
    ),
}
STREAM = (
    "access", "ahead", "dataset", "decode", "dicom", "deep", "draws", "index", "manifest", "pages", "plan", "read",
    "remote", "shrink", "storage",
)  # fmt: skip
SHARED = ("shards.sources.model",)  # the names of the splits, and what a source is

# For each guarded library the files that may import it, as patterns whose * crosses folders.
# A new door is a decision, not a habit.
DOORS = {
    "ray": ("shards/ray_*.py", "trainer/launch.py", "trainer/ray_*.py", "tune/*", "cluster/*"),
    "wandb": ("trainer/record/wandb_run.py",),
    "tensorboardX": ("trainer/record/tensorboard.py",),
    "albumentations": ("trainer/augment/albumentations_policies.py",),
    "webdataset": (),
    "pydicom": ("shards/dicom.py",),
    "onnxruntime": ("trainer/contract/onnx_backend.py", "trainer/deploy/standalone/program.py"),
    "openvino": ("trainer/contract/openvino_backend.py",),
}


def imported_names(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Yield the full dotted name of everything that `source`, the text of `module`, imports anywhere in it.

    `from a.b import c` yields a.b.c, whether c is a module or not: the rules go by prefixes.
    """
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__", "importorskip"):
            yield from (
                arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def is_within(name: str, package: str) -> bool:
    """Say whether a dotted name is `package` or lies in it."""
    return name == package or name.startswith(package + ".")


def find_violations(source: str, file: str) -> list[str]:
    """Return a line for each import of `source` that the rules forbid to `file`, a path below the repository."""
    path = Path(file)
    is_package = path.name == "__init__.py"
    module = ".".join((path.parent if is_package else path.with_suffix("")).parts)
    home = max((package for package in MAY_IMPORT if is_within(module, package)), key=len)
    violations = []
    for name in imported_names(source, module, is_package):
        if name.partition(".")[0] in PACKAGES and not any(is_within(name, allowed) for allowed in MAY_IMPORT[home]):
            violations.append(f"{file} imports {name}; {home} may import {', '.join(MAY_IMPORT[home])} only")
        doors = DOORS.get(name.partition(".")[0])
        if doors is not None and not any(fnmatch(file, door) for door in doors):
            violations.append(f"{file} imports {name}; its doors are {', '.join(doors) or 'none so far'}")
    return violations


@pytest.mark.parametrize("file", FILES)
def test_file_imports_only_what_it_may(file: str) -> None:
    assert find_violations((ROOT / file).read_text(encoding="utf-8"), file) == []


def find_later_rooms(source: str, file: str) -> list[str]:
    """Return the imports of `source` by which a room knows a later one of its package, or the stream knows any."""
    package, place = (parts := Path(file).with_suffix("").parts)[:2]
    rooms = ROOMS[package]
    is_stream = package == "shards" and place in STREAM
    first = rooms.index(place) + 1 if place in rooms else 0 if is_stream else len(rooms)
    names = [name for name in imported_names(source, ".".join(parts), False) if not _is_shared(name)]
    later = [f"{package}.{room}" for room in rooms[first:]]
    return [f"{file} imports {name}" for name in names if any(is_within(name, room) for room in later)]


def _is_shared(name: str) -> bool:
    return any(is_within(name, module) for module in SHARED)


@pytest.mark.parametrize("file", [file for file in FILES if file.partition("/")[0] in ROOMS])
def test_room_knows_no_later_room(file: str) -> None:
    assert find_later_rooms((ROOT / file).read_text(encoding="utf-8"), file) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("shards/sources/folder.py", "from shards.audit.facts import examine"),
        ("shards/audit/table.py", "from shards.packing import claim"),
        ("shards/packing/pack.py", "import shards.commands.progress"),
        ("shards/read.py", "from shards.packing.encode import Stored"),
        ("shards/manifest.py", "from shards.sources.find import find_sources"),
        ("trainer/options/augment.py", "from trainer.augment.policies import POLICIES"),
        ("trainer/feed/stream.py", "def late():\n    from trainer.step.engine import Engine"),
    ],
)
def test_planted_import_of_a_later_room_is_seen(file: str, source: str) -> None:
    assert len(find_later_rooms(source, file)) == 1


def test_every_package_was_looked_at() -> None:
    assert {"shards", "trainer"} <= {file.partition("/")[0] for file in FILES}


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("shards/pack.py", "import trainer.loop"),
        ("shards/pack.py", "from trainer import loop"),
        ("shards/pack.py", "import tune"),
        ("shards/__init__.py", "from cluster.serve import app"),
        ("trainer/loop.py", "from tune.run import main"),
        ("trainer/loop.py", "import cluster"),
        ("tune/run.py", "from cluster import serve"),
        ("trainer/contract/model.py", "from trainer.loop import train"),
        ("trainer/contract/model.py", "from trainer import loop"),
        ("trainer/contract/model.py", "from ..loop import train"),
        ("trainer/contract/model.py", "from .. import loop"),
        ("trainer/contract/__init__.py", "from ..loop import train"),
        ("trainer/contract/deep/er.py", "from ...loop import train"),
        ("cluster/serve/app.py", "from trainer.loop import train"),
        ("cluster/serve/app.py", "import trainer"),
        ("cluster/serve/app.py", "from trainer import *"),
        ("cluster/serve/app.py", "from trainer.contractor import x"),
        ("cluster/client.py", "import tune.report"),
        ("shards/pack.py", "def late():\n    import ray"),
        ("trainer/loop.py", "def late():\n    from ray import train"),
        ("trainer/loop.py", "if TYPE_CHECKING:\n    import ray.data"),
        ("trainer/loop.py", "try:\n    import ray\nexcept ImportError:\n    ray = None"),
        ("trainer/loop.py", "import importlib\nimportlib.import_module('ray.train')"),
        ("trainer/contract/ray_hook.py", "import ray"),
        ("trainer/tune/x.py", "import ray"),
        ("trainer/loop.py", "import numpy, wandb"),
        ("tune/run.py", "from wandb import init"),
        ("trainer/augment/policies.py", "import albumentations as A"),
        ("shards/read.py", "from webdataset import WebDataset"),
    ],
)
def test_checker_sees_a_planted_violation(file: str, source: str) -> None:
    assert len(find_violations(source, file)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("shards/pack.py", "from . import tar\nfrom .tar import Member\nimport shards.plan\nimport numpy"),
        ("trainer/loop.py", "from .contract import model\nfrom shards.plan import EpochPlan\nimport trainer.feed.feed"),
        ("trainer/contract/model.py", "from . import decision\nfrom .decision import x\nfrom shards import decode"),
        ("trainer/contract/__init__.py", "from .model import Classifier\nfrom . import model"),
        ("tune/run.py", "import ray.tune\nfrom trainer.loop import train\nfrom shards import plan"),
        ("tune/very/deep/er.py", "import ray"),
        (
            "cluster/serve/app.py",
            "from trainer.contract.bundle import Bundle\nfrom trainer import contract\nimport ray",
        ),
        ("trainer/launch.py", "import ray"),
        ("trainer/ray_reporter.py", "from ray.train import report"),
        ("trainer/record/wandb_run.py", "import wandb"),
        ("trainer/loop.py", "import rayon_like\nimport tuner"),
    ],
)
def test_checker_lets_pass_what_is_allowed(file: str, source: str) -> None:
    assert find_violations(source, file) == []


BLOCKED = """
import importlib, pkgutil, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")

sys.meta_path.insert(0, Block())
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted({"sklearn", "scipy", "matplotlib"} & sys.modules.keys()))
import shards
for module in pkgutil.walk_packages(shards.__path__, "shards."):
    if not module.name.startswith("shards.ray_") and module.name != "shards.__main__":
        importlib.import_module(module.name)
assert "ray" not in sys.modules
"""


def test_core_can_be_imported_without_ray_and_without_what_evaluation_alone_needs() -> None:
    """scikit-learn, SciPy and matplotlib cost every process of a run 2 seconds."""
    core = ["trainer.run", "trainer.launch", "trainer.job", "trainer.evaluate", "trainer.predict"]
    done = subprocess.run([sys.executable, "-c", BLOCKED, *core], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_ray_is_really_blocked_in_that_test() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED, "ray"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "No module named 'ray'" in done.stderr
