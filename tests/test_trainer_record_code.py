"""Which commit a run says that it was made with."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import trainer.record.code


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def read_sha_of(path: Path) -> str | None:
    """What the module says when it lies at `path`."""
    shutil.copy(trainer.record.code.__file__, path)
    spec = importlib.util.spec_from_file_location("code_elsewhere", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sha: str | None = module.read_git_sha()
    return sha


def test_sha_is_that_of_the_commit_and_says_when_files_were_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "begin", "--allow-empty")
    assert read_sha_of(tmp_path / "code.py") is None  # not committed: it may be anybody's
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "-a", "v1", "-m", "a tag")
    sha = git(tmp_path, "rev-parse", "HEAD")
    assert read_sha_of(tmp_path / "code.py") == sha
    with open(tmp_path / "code.py", "a") as file:
        file.write("\n")
    changed = tmp_path / "other.py"
    changed.touch()
    git(tmp_path, "add", "other.py")
    assert read_sha_of(tmp_path / "code.py") == f"{sha}-dirty"


def test_code_outside_of_a_repository_has_no_sha(tmp_path: Path) -> None:
    assert read_sha_of(tmp_path / "code.py") is None
