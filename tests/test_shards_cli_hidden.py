"""A file that hides a package is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shards.cli.hidden import refuse_hidden
from shards.errors import UsageError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("module", ["tune.run", "cluster.serve"])
def test_command_names_the_file_that_hides_the_trainer(module: str, tmp_path: Path) -> None:
    (tmp_path / "trainer.py").write_text("print('mine')\n")
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path}/trainer.py hides the package trainer of this project, because Python looks there first; "
        f"rename it, or run the command in another folder than {tmp_path}\n"
    )


def test_module_that_is_no_package_is_refused_from_python() -> None:
    refuse_hidden("trainer")
    with pytest.raises(UsageError, match=r"contextlib\.py hides the package contextlib of this project"):
        refuse_hidden("contextlib")
