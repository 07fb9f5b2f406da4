"""Who may import whom, read from the source: relative imports and imports inside functions count as well."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from shards.cli.commands import COMMANDS

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

# Rooms of a package in the order of the data, level by level: a room imports what stands on earlier levels and its own
# modules, never a later room and never another of its level.
LEVELS: dict[str, tuple[tuple[str, ...], ...]] = {
    "shards": (
        ("errors",),
        ("files",),
        ("meters",),
        ("cli", "workers", "pictures", "splits"),
        ("storage", "sources", "order"),
        ("dataset",),
        ("audit",),
        ("packing",),
        ("commands",),
        ("api",),
    ),
    "trainer": (
        ("contract", "ranks"),
        ("recipes", "export", "unpacked"),
        ("weights", "feed", "bench"),
        ("step", "models"),
        ("record",),
        ("evaluate",),
        ("loop", "predict", "decide"),
        ("bundle", "report", "augment"),
        ("run",),
        ("api",),
    ),
    "tune": (
        ("space", "stats"),
        ("trials", "compare"),
        ("confirm",),
        ("result",),
        ("report",),
        ("dashboard",),
        ("run",),
        ("api",),
    ),
    "cluster": (
        ("serve", "client", "jobs", "doctor"),
        ("swap", "verify"),
        ("promote", "rollback", "status", "submit", "stop"),
    ),
}

# For each guarded library the files that may import it, as patterns whose * crosses folders.
# A new door is a decision, not a habit.
DOORS = {
    "ray": ("shards/workers/ray_*.py", "trainer/run/ray/*.py", "trainer/predict/ray.py", "tune/*", "cluster/*"),
    "wandb": ("trainer/record/track/wandb_session.py",),
    "wandb_workspaces": ("tune/dashboard/*.py",),
    "tensorboardX": ("trainer/record/track/tensorboard.py",),
    "albumentations": ("trainer/feed/augment/albumentations_policies.py",),
    "webdataset": ("shards/dataset/webdataset.py", "shards/dataset/split.py"),
    "pydicom": ("shards/pictures/dicom.py",),
    "onnxruntime": ("trainer/contract/compute/onnx_backend.py", "trainer/export/standalone/program.py"),
    "difflib": ("shards/cli/sentences.py",),  # one "did you mean" for all
    "openvino": ("trainer/contract/compute/openvino_backend.py",),
}

# Files with tables of what people add, and where their builders lie. A row names its builder as text, in a later room
# too: tables lie with the options, which are read where no builder is wanted. Nowhere else does such a text pass.
TABLES = {
    "trainer/recipes/options/*.py": ("trainer",),
    "trainer/contract/model/names.py": ("trainer.contract",),
    "trainer/contract/metrics.py": ("trainer.evaluate",),
    "cluster/doctor/checks.py": ("cluster.doctor",),
    "shards/cli/commands.py": PACKAGES,  # the commands of all packages, which import nothing of each other by that
}
ROWS = ("Table", "Metric")
BUILDER = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+:\w+")
# Files that import a module whose name stands elsewhere: builders of tables; a package of fonts; packages of weights.
LATE_IMPORTS = ("shards/cli/table.py", "trainer/evaluate/figures/fonts.py", "trainer/weights/installed.py")


IMPORTERS = ("import_module", "__import__", "importorskip")


RAY_PRIVATE = "shards/workers/ray_private.py"


# A command line is known where it is read; library code takes options. The last allows it as a value in a checkpoint.
KNOW_NAMESPACE = ("*/__main__.py", "shards/commands/*.py", "trainer/weights/read.py")


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
        elif isinstance(node, ast.Call) and _called(node.func) in IMPORTERS:
            yield from (
                arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def builders_named(source: str) -> set[tuple[str, bool]]:
    """Return each text "package.module:function", and whether it stands inside of a table; maybe in both."""
    tree = ast.parse(source)
    tables = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node.func) in ROWS]
    inside = {id(node) for table in tables for node in ast.walk(table)}
    return {
        (node.value, id(node) in inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and BUILDER.fullmatch(node.value)
    }


def find_homes(file: str) -> tuple[str, ...]:
    """Return where the builders of a file's tables lie; nowhere, where no tables may be."""
    return next((homes for pattern, homes in TABLES.items() if fnmatch(file, pattern)), ())


def list_imports(source: str, file: str) -> list[str]:
    """Return the full name of everything that `source` imports, now or by a text; builders in tables are not."""
    homes = find_homes(file)
    named = {
        builder.replace(":", ".")
        for builder, in_table in builders_named(source)
        if not (in_table and any(is_within(builder.partition(":")[0], home) for home in homes))
    }
    return [*imported_names(source, name_module(file), Path(file).name == "__init__.py"), *named]


def name_module(file: str) -> str:
    """Return the module of a file, its package for an __init__.py."""
    path = Path(file)
    return ".".join((path.parent if path.name == "__init__.py" else path.with_suffix("")).parts)


def find_private_uses(source: str, file: str) -> list[str]:
    """Return what `source` takes of Ray that Ray names as private: in imports, as attributes, by getattr."""
    imported = [name for name in imported_names(source, file, False) if is_within(name, "ray")]
    uses = [name for name in imported if any(map(is_private, name.split(".")))]
    for node in ast.walk(ast.parse(source)) if imported else ():
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            uses += [] if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") else [node.attr]
        elif isinstance(node, ast.Call) and _called(node.func) == "getattr":
            uses += [arg.value for arg in node.args if isinstance(arg, ast.Constant) and is_private(str(arg.value))]
    return [f"{file} uses {use}, which is private to Ray; reach it by {RAY_PRIVATE}" for use in uses]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def is_within(name: str, package: str) -> bool:
    """Say whether a dotted name is `package` or lies in it."""
    return name == package or name.startswith(package + ".")


def find_violations(source: str, file: str) -> list[str]:
    """Return a line for each import of `source` that the rules forbid to `file`, a path below the repository."""
    home = max((package for package in MAY_IMPORT if is_within(name_module(file), package)), key=len)
    violations = []
    for name in list_imports(source, file):
        if name.partition(".")[0] in PACKAGES and not any(is_within(name, allowed) for allowed in MAY_IMPORT[home]):
            violations.append(f"{file} imports {name}; {home} may import {', '.join(MAY_IMPORT[home])} only")
        doors = DOORS.get(name.partition(".")[0])
        if doors is not None and not any(fnmatch(file, door) for door in doors):
            violations.append(f"{file} imports {name}; its doors are {', '.join(doors) or 'none so far'}")
    return violations


@pytest.mark.parametrize("file", FILES)
def test_file_imports_only_what_it_may(file: str) -> None:
    assert find_violations((ROOT / file).read_text(encoding="utf-8"), file) == []


@pytest.mark.parametrize("file", [file for file in FILES if file != RAY_PRIVATE])
def test_what_is_private_to_ray_is_reached_by_one_module(file: str) -> None:
    assert find_private_uses((ROOT / file).read_text(encoding="utf-8"), file) == []


def test_that_module_has_private_uses_of_every_kind() -> None:
    uses = " ".join(find_private_uses((ROOT / RAY_PRIVATE).read_text(encoding="utf-8"), RAY_PRIVATE))
    for use in ("internal_kv._internal_kv_put", "data._internal", "_initialize_and_run_controller", " _base_exc"):
        assert use in uses


@pytest.mark.parametrize(
    "source",
    [
        "from ray._private import state",
        "from ray.train.v2._internal.execution.context import get_train_context",
        "def late():\n    from ray.experimental.internal_kv import _internal_kv_get",
        "import ray\nray._raylet",
        "from ray.train.torch import TorchTrainer\nTorchTrainer(f)._run()",
        "import ray\nerr = getattr(err, '_base_exc', err)",
    ],
)
def test_planted_use_of_what_is_private_to_ray_is_seen(source: str) -> None:
    assert len(find_private_uses(source, "trainer/run/ray/launch.py")) == 1


def test_what_is_private_to_ourselves_is_none_of_rays() -> None:
    source = "import ray\nclass A:\n    def f(self):\n        self._a = getattr(ray, '__version__')"
    assert find_private_uses(source, "tune/trials/tuning.py") == []
    assert find_private_uses("import os\nos._exit(1)", "shards/workers/pools.py") == []


def find_wrong_rooms(source: str, file: str) -> list[str]:
    """Return the imports of `source` by which a room knows a later one, another of its level, or a command."""
    package, *places = Path(file).with_suffix("").parts
    levels = LEVELS[package]
    home = None if places[0] in ("__init__", "__main__") else places[0]
    names = list_imports(source, file)
    wrong = [name for name in names if "__main__" in name.split(".")]
    if home is not None:
        level = next((number for number, rooms in enumerate(levels) if home in rooms), None)
        assert level is not None, f"give the room {home} a place in LEVELS['{package}'] of tests/test_architecture.py"
        others = [room for rooms in levels[level:] for room in rooms if room != home]
        wrong += [name for name in names if any(is_within(name, f"{package}.{room}") for room in others)]
    return [f"{file} imports {name}" for name in wrong]


@pytest.mark.parametrize("file", [file for file in FILES if file.partition("/")[0] in LEVELS])
def test_room_knows_no_room_but_earlier_ones(file: str) -> None:
    assert find_wrong_rooms((ROOT / file).read_text(encoding="utf-8"), file) == []


@pytest.mark.parametrize("package", LEVELS)
def test_every_folder_is_a_room_of_some_level(package: str) -> None:
    there = {path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").is_file()}
    flat = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__", "__main__"}
    levels = {room for rooms in LEVELS[package] for room in rooms}
    assert there | flat <= levels, f"give {sorted((there | flat) - levels)} a place in LEVELS[{package!r}]"
    assert levels <= there | flat, f"LEVELS[{package!r}] has {sorted(levels - there - flat)}, which is not there"
    assert not flat or flat <= {"errors", "api"}


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith("__init__.py")])
def test_every_room_says_what_it_is_for(file: str) -> None:
    assert ast.get_docstring(ast.parse((ROOT / file).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("shards/sources/folder.py", "from shards.audit.facts import examine"),
        ("shards/sources/folder.py", "from shards.storage.storage import open_storage"),
        ("shards/audit/table.py", "from shards.packing import claim"),
        ("shards/packing/pack.py", "import shards.commands.progress"),
        ("shards/dataset/read.py", "from shards.packing.encode import Stored"),
        ("shards/workers/pools.py", "from shards.cli.ending import DONE"),
        ("trainer/recipes/options/augment.py", "from trainer.feed.augment.policies import POLICIES"),
        ("trainer/feed/stream.py", "def late():\n    from trainer.step.engine import Engine"),
        ("trainer/evaluate/bundle.py", "from ..run import finish"),
        ("trainer/run/launch.py", "from trainer.run.__main__ import main"),
        ("trainer/predict/answer.py", "from trainer.evaluate import __main__"),
        ("cluster/client/__init__.py", "from cluster.serve.options import ServeOptions"),
        ("tune/trials/table.py", "from tune.run.sweep import run_sweep"),
        ("tune/space/file.py", "def late():\n    from tune.trials import trial"),
        ("trainer/recipes/options/augment.py", "load_builder('trainer.feed.augment.policies:build_light')"),
        ("trainer/recipes/options/augment.py", "LATER = {'light': 'trainer.feed.augment.policies:build_light'}"),
        ("trainer/recipes/file.py", "X = Table('kinds', Row('a', 'b', 'trainer.step.optimizers:build_sgd'))"),
        ("trainer/recipes/options/optim.py", "importlib.import_module('trainer.step.optimizers')"),
        ("shards/cli/table.py", "load_builder('shards.packing.pack:pack')"),
    ],
)
def test_planted_import_of_a_wrong_room_is_seen(file: str, source: str) -> None:
    assert len(find_wrong_rooms(source, file)) == 1


@pytest.mark.parametrize("file", [file for file in FILES if find_homes(file)])
def test_builder_of_a_table_is_there(file: str) -> None:
    missing = find_missing_builders((ROOT / file).read_text(encoding="utf-8"))
    assert not missing, "\n".join(missing)


def find_missing_builders(source: str) -> list[str]:
    """Return a sentence for each builder that a table names and that is not at the top of its module."""
    missing = []
    for builder in sorted(builder for builder, in_table in builders_named(source) if in_table):
        module, _, name = builder.partition(":")
        path = ROOT / f"{module.replace('.', '/')}.py"
        body = ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
        if not any(isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name for node in body):
            missing.append(f"a table names {builder}, which is not there; write it, or mend the row")
    return missing


@pytest.mark.parametrize("builder", ["trainer.step.optimisers:build_sgd", "trainer.step.optimizers:build_sdg"])
def test_planted_builder_that_is_not_there_is_seen(builder: str) -> None:
    assert find_missing_builders(f"A = Table('optimizers', Row('sgd', 'plain', '{builder}'))") == [
        f"a table names {builder}, which is not there; write it, or mend the row"
    ]


def test_builders_of_tables_were_looked_at() -> None:
    sources = [(ROOT / file).read_text(encoding="utf-8") for file in FILES if find_homes(file)]
    assert {"trainer.step.optimizers:build_sgd", "trainer.step.muon:build_muon"} <= {
        builder for source in sources for builder, _ in builders_named(source)
    }


def test_builder_in_a_table_may_be_a_later_rooms_but_not_another_packages() -> None:
    row = "A = Table('kinds', Row('a', 'b', '{}'))"
    file = "trainer/contract/model/names.py"
    assert find_wrong_rooms(row.format("trainer.contract.compute.backends:build_torch"), file) == []
    assert find_violations(row.format("trainer.contract.compute.backends:build_torch"), file) == []
    assert len(find_violations(row.format("trainer.step.optimizers:build_sgd"), file)) == 1
    assert find_wrong_rooms(row.format("trainer.step.optimizers:build_sgd"), "trainer/recipes/options/optim.py") == []
    assert len(find_violations(row.format("tune.run.__main__:main"), "trainer/recipes/options/optim.py")) == 1
    assert find_violations(row.format("trainer.evaluate.metrics.one_label:mcc"), "trainer/contract/metrics.py") == []
    assert len(find_violations(row.format("trainer.step.loss:build_focal"), "trainer/contract/metrics.py")) == 1
    assert find_violations(row.format("cluster.serve.__main__:main"), "shards/cli/commands.py") == []
    assert find_wrong_rooms(row.format("cluster.serve.__main__:main"), "shards/cli/commands.py") == []
    assert len(find_violations("load_builder('trainer.run.__main__:main')", "shards/cli/commands.py")) == 1


def imports_by_variable(source: str) -> bool:
    """Say whether `source` imports a module whose name does not stand at the call, where rules can see it."""
    return any(
        isinstance(node, ast.Call)
        and _called(node.func) in IMPORTERS
        and not (node.args and isinstance(node.args[0], ast.Constant))
        for node in ast.walk(ast.parse(source))
    )


def test_modules_are_imported_by_a_name_that_stands_elsewhere_in_these_files_alone() -> None:
    assert {file for file in FILES if imports_by_variable((ROOT / file).read_text(encoding="utf-8"))} == set(
        LATE_IMPORTS
    )
    assert imports_by_variable("import_module('trainer.' + name)")
    assert imports_by_variable("import_module(f'trainer.step.{name}')")
    assert not imports_by_variable("import_module('ray')")


def find_namespaces(source: str, file: str) -> list[str]:
    """Return a line for each place where `source` knows a command line's Namespace and must not."""
    if any(fnmatch(file, known) for known in KNOW_NAMESPACE):
        return []
    return [
        f"{file}:{node.lineno} knows a Namespace; library code takes an Options object"
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and node.attr == "Namespace")
        or (isinstance(node, ast.alias) and node.name.endswith("Namespace"))
    ]


@pytest.mark.parametrize("file", FILES)
def test_a_namespace_is_known_to_commands_alone(file: str) -> None:
    assert find_namespaces((ROOT / file).read_text(encoding="utf-8"), file) == []


@pytest.mark.parametrize(
    ("file", "source", "seen"),
    [
        ("trainer/decide/wish.py", "import argparse\ndef read(said: argparse.Namespace) -> None: ...", 1),
        (
            "trainer/decide/wish.py",
            "import argparse as a\ndef late(x: object) -> bool:\n    return x is a.Namespace",
            1,
        ),
        ("trainer/bench/bench.py", "from argparse import ArgumentParser, Namespace as Said", 1),
        ("shards/packing/pack.py", "if TYPE_CHECKING:\n    from argparse import Namespace", 1),
        ("trainer/weights/load.py", "import argparse\nALLOWED = [argparse.Namespace]", 1),
        ("trainer/decide/__main__.py", "import argparse\ndef main(said: argparse.Namespace) -> None: ...", 0),
        ("shards/commands/pack.py", "import argparse\ndef run(said: argparse.Namespace) -> None: ...", 0),
        ("trainer/weights/read.py", "import argparse\nALLOWED = [argparse.Namespace]", 0),
        ("trainer/recipes/data/lookalike.py", "import argparse\nparser = argparse.ArgumentParser()", 0),
    ],
)
def test_planted_namespace_in_library_code_is_seen(file: str, source: str, seen: int) -> None:
    assert len(find_namespaces(source, file)) == seen


def test_every_package_was_looked_at() -> None:
    assert {"shards", "trainer"} <= {file.partition("/")[0] for file in FILES}


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("shards/pack.py", "import trainer.loop.loop"),
        ("shards/pack.py", "from trainer import loop"),
        ("shards/pack.py", "import tune"),
        ("shards/__init__.py", "from cluster.serve import app"),
        ("trainer/loop/loop.py", "from tune.run.sweep import run_sweep"),
        ("trainer/loop/loop.py", "import cluster"),
        ("tune/run/sweep.py", "from cluster import serve"),
        ("trainer/contract/model/model.py", "from trainer.loop.loop import train"),
        ("trainer/contract/model/model.py", "from trainer import loop"),
        ("trainer/contract/bundle.py", "from ..loop import train"),
        ("trainer/contract/bundle.py", "from .. import loop"),
        ("trainer/contract/__init__.py", "from ..loop import train"),
        ("trainer/contract/deep/er.py", "from ...loop import train"),
        ("cluster/serve/app.py", "from trainer.loop.loop import train"),
        ("cluster/serve/app.py", "import trainer"),
        ("cluster/serve/app.py", "from trainer import *"),
        ("cluster/serve/app.py", "from trainer.contractor import x"),
        ("cluster/client.py", "import tune.report"),
        ("shards/pack.py", "def late():\n    import ray"),
        ("trainer/loop/loop.py", "def late():\n    from ray import train"),
        ("trainer/loop/loop.py", "if TYPE_CHECKING:\n    import ray.data"),
        ("trainer/loop/loop.py", "try:\n    import ray\nexcept ImportError:\n    ray = None"),
        ("trainer/loop/loop.py", "import importlib\nimportlib.import_module('ray.train')"),
        ("trainer/contract/ray_hook.py", "import ray"),
        ("trainer/tune/x.py", "import ray"),
        ("trainer/loop/loop.py", "import numpy, wandb"),
        ("tune/run/sweep.py", "from wandb import init"),
        ("trainer/feed/augment/policies.py", "import albumentations as A"),
        ("shards/dataset/read.py", "from webdataset import WebDataset"),
    ],
)
def test_checker_sees_a_planted_violation(file: str, source: str) -> None:
    assert len(find_violations(source, file)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("shards/pack.py", "from . import tar\nfrom .tar import Member\nimport shards.order.plan\nimport numpy"),
        (
            "trainer/loop/loop.py",
            "from .contract import model\nfrom shards.order.plan import EpochPlan\nimport trainer.feed.feed",
        ),
        (
            "trainer/contract/model/model.py",
            "from . import decision\nfrom .decision import x\nfrom shards import decode",
        ),
        ("trainer/contract/__init__.py", "from .bundle import Bundle\nfrom . import model"),
        ("tune/run/sweep.py", "import ray.tune\nfrom trainer.loop.loop import train\nfrom shards import plan"),
        ("tune/very/deep/er.py", "import ray"),
        (
            "cluster/serve/app.py",
            "from trainer.contract.bundle import Bundle\nfrom trainer import contract\nimport ray",
        ),
        ("trainer/run/ray/launch.py", "import ray"),
        ("trainer/run/ray/reporter.py", "from ray.train import report"),
        ("trainer/record/track/wandb_session.py", "import wandb"),
        ("trainer/loop/loop.py", "import rayon_like\nimport tuner"),
    ],
)
def test_checker_lets_pass_what_is_allowed(file: str, source: str) -> None:
    assert find_violations(source, file) == []


RARE = [
    *(
        f"shards.pictures.{name}"
        for name in ("dicom", "dicom_window", "tiff", "tiff_pages", "heic", "jpeg2000", "netpbm", "unread")
    ),
    *(f"trainer.weights.{name}" for name in ("load", "match", "read", "unpickle", "key_maps", "saved")),
    *("trainer.weights.installed", "trainer.weights.published", "trainer.recipes.choices"),
    *("trainer.loop.start", "trainer.step.distillation", "trainer.step.multi_label_loss", "trainer.recipes.meanings"),
]
"""Our own modules that are imported where a run meets what they are for: a rare format, weights, a teacher."""

BLOCKED = (
    f"RARE = {RARE}"
    + """
import importlib, pkgutil, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")

sys.meta_path.insert(0, Block())
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted({"sklearn", "scipy", "matplotlib", *RARE} & sys.modules.keys()))
import shards
for module in pkgutil.walk_packages(shards.__path__, "shards."):
    if not module.name.startswith("shards.workers.ray_") and module.name != "shards.__main__":
        importlib.import_module(module.name)
assert "ray" not in sys.modules
"""
)


def test_core_can_be_imported_without_ray_and_without_what_evaluation_alone_needs() -> None:
    """scikit-learn, SciPy and matplotlib cost every process of a run 2 seconds; of our own it is what few runs meet."""
    core = ["trainer.run", "trainer.run.launch", "trainer.run.job", "trainer.evaluate", "trainer.predict"]
    done = subprocess.run([sys.executable, "-c", BLOCKED, *core], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


WITHOUT_TORCH = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(name, "torch" in sys.modules)
from trainer.run.__main__ import main
try:
    main(["smoke", "data=nowhere"])
except Exception as err:
    print(err, "torch" in sys.modules)
"""


def test_a_command_refuses_options_before_torch_is_loaded() -> None:
    """Torch takes seconds; a parser and its options need none of it."""
    commands = [row.builder.partition(":")[0] for row in COMMANDS.values()]
    script = [sys.executable, "-c", WITHOUT_TORCH, *commands]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "nowhere does not exist" in done.stdout
    heavy = [line.split()[0] for line in done.stdout.splitlines() if line.endswith(" True")]
    assert not heavy, f"{heavy[0]} imports torch before it has read its options; import it where it is needed"


def test_ray_is_really_blocked_in_that_test() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED, "ray"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "No module named 'ray'" in done.stderr
