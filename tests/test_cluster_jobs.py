"""Commands as jobs of a real head with a token: what goes along, checks, logs, exit codes, stop and resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from heads import RAY, RunningHead, run_head

from cluster.jobs.code import staged
from cluster.jobs.command import CARRIED_BYTES, read_command
from cluster.jobs.options import SubmitOptions
from shards.cli.commands import COMMANDS
from shards.cli.messages import PACKAGES
from shards.cli.table import load_builder
from shards.errors import UsageError
from shards.files.job_folder import refuse_job_folder

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def head() -> Iterator[RunningHead]:
    with run_head() as running:
        yield running


def call(head: RunningHead, *words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m cluster.WORDS` against the head; a variable given as "" is not set."""
    variables = os.environ | head.environment | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": head.address} | environment
    return subprocess.run(
        [sys.executable, "-m", *words],
        env={name: value for name, value in variables.items() if value},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def submit(head: RunningHead, *words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return call(head, "cluster.submit", "--python", sys.executable, *words, cwd=cwd, **environment)


def test_job_packs_as_the_command_does_and_its_log_is_shown(head: RunningHead, pictures: Path, tmp_path: Path) -> None:
    done = submit(head, "--name", "packed", "--follow", "--", "shards", "pack", str(pictures), str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "audited: 0 leaks" in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "out/dataset.json").is_file()
    logs = subprocess.run(
        [RAY, "job", "logs", "--address", head.address, "packed"],
        env=os.environ | head.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "audited: 0 leaks" in logs.stdout
    again = submit(head, "--name", "packed", "--", "shards", "pack", str(pictures), str(tmp_path / "other"))
    assert again.returncode == 2
    assert "the cluster has had a job 'packed'" in again.stderr
    listed = json.loads(call(head, "cluster.jobs", "--json").stdout)
    assert [job["name"] for job in listed].count("packed") == 1
    assert {job["name"]: job["exit_code"] for job in listed}["packed"] == 0
    stopped = call(head, "cluster.stop", "packed")
    assert (stopped.returncode, stopped.stdout) == (0, "job packed had ended before: succeeded\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("shards", "stat", "/nowhere"), 2, "/nowhere does not exist"),
        (("shards", "verify", "{damaged}"), 3, "sha256"),
    ],
)
def test_wait_exits_with_the_exit_code_of_the_command(
    head: RunningHead, dataset_path: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    damaged = _damage(dataset_path, tmp_path / "damaged")
    given = [word.format(damaged=damaged) for word in words]
    done = submit(head, "--wait", "--json", "--", *given)
    assert json.loads(done.stdout)["exit_code"] == code
    assert done.returncode == code
    shown = call(head, "cluster.jobs", json.loads(done.stdout)["job"])
    assert f"failed ({code})" in shown.stdout
    assert said in shown.stdout


def _damage(dataset: Path, copy: Path) -> Path:
    import shutil

    shutil.copytree(dataset, copy)
    shard = next(copy.glob("train/*.tar"))
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    return copy


def test_run_is_refused_by_its_check_before_it_starts_and_says_why(
    head: RunningHead, dataset_path: Path, tmp_path: Path
) -> None:
    run = ["trainer.run", "smoke", f"data={dataset_path}", "epochs=1", "track.wandb=disabled"]
    done = submit(head, "--name", "lost", "--wait", "--", *run)
    assert done.returncode == 2
    assert "is in the folder of a Ray job, which Ray deletes" in done.stderr
    assert "storage.root=PATH" in done.stderr
    there = {job["name"]: job for job in json.loads(call(head, "cluster.jobs", "--json").stdout)}
    assert "lost" not in there
    assert there["lost-check"]["exit_code"] == 2


def test_remedy_of_a_refused_check_starts_the_run(head: RunningHead, dataset_path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    recipe = subprocess.run(
        [sys.executable, "-m", "trainer.run", "smoke", "--print-recipe"], capture_output=True, check=True, cwd=ROOT
    )
    (tmp_path / "mine/recipe.yaml").write_bytes(recipe.stdout)
    run = ["trainer.run", "mine/recipe.yaml", f"data={dataset_path}", f"storage.root={tmp_path}/runs", "name=job"]
    run += ["epochs=1", "track.wandb=disabled", "launch=local"]
    done = submit(head, "--wait", "--", *run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all checks passed; nothing was written" in done.stdout
    assert (tmp_path / "runs/job/bundle/bundle.json").is_file()


def test_wrong_interpreter_is_told_apart_from_a_wrong_command(head: RunningHead, dataset_path: Path) -> None:
    run = ["trainer.run", "smoke", f"data={dataset_path}", "storage.root=/tmp/never"]
    done = call(head, "cluster.submit", "--python", "/nowhere/python", "--wait", "--", *run)
    assert done.returncode == 2
    assert "'/nowhere/python' is no Python that has what the command needs" in done.stderr
    assert "give --python with the path" in done.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "got another token than it has"),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": ""}, "asks for a token and got none"),
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token and got none"),
        ({"RAY_ADDRESS": "http://127.0.0.1:9"}, "no head that takes jobs answers at http://127.0.0.1:9"),
        ({"RAY_ADDRESS": "127.0.0.1:9"}, "no head that takes jobs answers at 127.0.0.1:9"),
    ],
)
def test_head_that_cannot_be_spoken_to_is_a_sentence(
    head: RunningHead, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    done = call(head, "cluster.jobs", HOME=str(tmp_path), **environment)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("way", ["mode", "file", "cluster's address"])
def test_remedies_of_a_missing_token_help(head: RunningHead, tmp_path: Path, way: str) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(head.token)
    environment = {"HOME": str(tmp_path), "RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": "token"}
    if way == "file":
        environment |= {"RAY_AUTH_MODE": ""}  # a token that is there is used
    if way == "cluster's address":
        environment |= {"RAY_ADDRESS": head.cluster}
    done = call(head, "cluster.jobs", **environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_stopped_job_saves_its_state_and_the_same_command_sees_every_sample_once(
    head: RunningHead, dataset_path: Path, tmp_path: Path
) -> None:
    from shards.dataset.dataset import open_dataset
    from trainer.record.ledger import read_ledger

    run = ["trainer.run", "smoke", f"data={dataset_path}", f"storage.root={tmp_path}", "name=job", "num_ranks=2"]
    run += ["epochs=40", "ledger=true", "track.wandb=disabled", "snapshot.every_s=600"]
    assert submit(head, "--name", "first", "--", *run).returncode == 0
    until = time.monotonic() + 120
    while "epoch 1/40" not in call(head, "cluster.jobs", "first").stdout:
        assert time.monotonic() < until
    stopped = call(head, "cluster.stop", "first")
    assert stopped.returncode == 0, stopped.stderr
    assert "job first has ended: stopped" in stopped.stdout
    assert "python -m cluster.submit -- trainer.run smoke" in stopped.stdout
    done = submit(head, "--name", "second", "--follow", "--", *run)
    assert done.returncode == 0, done.stderr
    assert "(goes on)" in done.stdout  # in the check's plan
    table, samples = read_ledger(tmp_path / "job/ledger"), open_dataset(dataset_path).split("train").num_samples
    assert sorted(table["sample_id"].to_pylist()) == sorted(list(range(samples)) * 40)
    assert not any(table["redone"].to_pylist())  # it was saved when it was stopped, not 600 s before


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running(head: RunningHead, dataset_path: Path, tmp_path: Path) -> None:
    import signal

    run = ["trainer.run", "smoke", f"data={dataset_path}", f"storage.root={tmp_path}", "name=job", "launch=local"]
    command = [sys.executable, "-m", "cluster.submit", "--python", sys.executable, "--no-check", "--name", "left"]
    process = subprocess.Popen(
        [*command, "--follow", "--", *run, "epochs=200", "track.wandb=disabled"],
        env=os.environ | head.environment | {"RAY_ADDRESS": head.address},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 1/200" in line:
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the job left continues without this command" in said
    assert "left  runs" in call(head, "cluster.jobs", "left").stdout
    assert "stopped" in call(head, "cluster.stop", "left").stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sweep", "evaluate", "predict"])
def test_other_commands_run_as_jobs(
    head: RunningHead, bundle_path: Path, dataset_path: Path, pictures: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "space.yaml").write_text("factors:\n  rate:\n    plain: {}\n    slow: {optim.peak_lr: 0.001}\n")
    sweep = ["tune.run", "smoke", "space.yaml", f"data={dataset_path}", f"storage.root={tmp_path}", "name=sweep"]
    words, made = {
        "sweep": ([*sweep, "epochs=1", "track.wandb=disabled"], "sweep/best/bundle/bundle.json"),
        "evaluate": (
            ["trainer.evaluate", str(bundle_path), f"{dataset_path}:test", "--out", f"{tmp_path}/evaluated"],
            "evaluated/metrics.json",
        ),
        "predict": (
            ["trainer.predict", str(bundle_path), str(pictures / "test"), "--out", f"{tmp_path}/answers.csv"],
            "answers.csv",
        ),
    }[kind]
    done = submit(head, "--follow", "--", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert (tmp_path / made).is_file()


# ---- without a head


@pytest.mark.parametrize("words", [("trainer.run", "demo"), ("run", "demo")])
def test_command_is_spelt_as_a_module_or_as_the_console_does(words: tuple[str, ...]) -> None:
    command = read_command(words)
    assert command.spell("python3", "--dry-run") == "exec python3 -m trainer.run demo --dry-run"
    assert str(command) == "trainer.run demo"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give the command after `--`"),
        (("trainer.rum",), "did you mean 'trainer.run'"),
        (("shards", "pakc", "a"), "did you mean 'shards pack'"),
        (("python", "-m", "trainer.run"), "leave 'python' out"),
        (("run", "demo", "data=s3://key:secret@bucket/cells"), "data=s3://KEYS@bucket/cells has keys in it"),
        (("run", "demo", "data=cells"), "cells is a folder of this machine"),
        (("evaluate", "cells", "cells:test"), "cells is a folder of this machine"),
        (("evaluate", "/bundle", "cells:test"), "cells is a folder of this machine"),
        (("pack", "large.csv", "/out"), "only files of up to 1,048,576 go along"),
        (("run", "../recipe.yaml"), "is a place beside the current folder"),
    ],
)
def test_command_that_would_fail_elsewhere_is_refused_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    here = tmp_path / "here"
    (here / "cells").mkdir(parents=True)
    (tmp_path / "recipe.yaml").touch()
    (here / "large.csv").write_bytes(b"x" * (CARRIED_BYTES + 1))
    monkeypatch.chdir(here)
    with pytest.raises(UsageError) as err:
        read_command(words)
    assert said in str(err.value)
    assert "secret" not in str(err.value)


def test_names_of_recipes_are_no_folders_and_small_files_go_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/space.yaml").write_text("x")
    monkeypatch.chdir(tmp_path)
    command = read_command(["sweep", "demo", "mine/space.yaml", "data=/data/cells", "epochs=3"])
    assert command.files == (Path("mine/space.yaml"),)
    with staged("here", command.files) as folder:
        assert folder is not None
        assert (folder / "mine/space.yaml").read_text() == "x"
        assert {path.name for path in folder.iterdir()} == {*PACKAGES, "mine"}
        assert not list(folder.rglob("*.pyc"))
        assert (folder / "trainer/recipes/demo.yaml").is_file()
    with staged("there", ()) as folder:
        assert folder is None


def test_file_that_is_no_wheel_of_this_project_does_not_go_along(tmp_path: Path) -> None:
    import zipfile

    with pytest.raises(UsageError, match="cannot be read"), staged(str(tmp_path / "none.whl"), ()):
        pass
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("shards/__init__.py", "")
        archive.writestr("../escaped.py", "")
    with pytest.raises(UsageError, match="no trainer and no tune"), staged(str(tmp_path / "other.whl"), ()):
        pass
    assert not (tmp_path.parent / "escaped.py").exists()


def test_variables_are_taken_from_here_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "there is")
    options = SubmitOptions(command=("run",), env=("HERE", "A=1", "B="))
    assert options.variables == {"HERE": "there is", "A": "1", "B": ""}
    with pytest.raises(UsageError, match="NOWHERE is not set here"):
        SubmitOptions(command=("run",), env=("NOWHERE",))
    with pytest.raises(UsageError, match="NAME=VALUE or NAME, got 'a-b'"):
        SubmitOptions(command=("run",), env=("a-b",))
    with pytest.raises(UsageError, match="part of file names"):
        SubmitOptions(command=("run",), name="a/b")


@pytest.mark.parametrize("row", [row for row in COMMANDS.values() if row.check])
def test_check_of_a_command_is_an_option_of_it(row: object) -> None:
    parser = load_builder(row.parser)()  # type: ignore[attr-defined]
    assert set(row.check) <= {each for action in parser._actions for each in action.option_strings}  # type: ignore[attr-defined]


def test_folder_of_a_job_takes_no_results() -> None:
    job = Path("/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/runs/a")
    with pytest.raises(UsageError, match="which Ray deletes"):
        refuse_job_folder(job)
    for fine in ("runs", "/tmp/ray/session_1/runs", "/working_dir_files/runs"):
        assert refuse_job_folder(Path(fine)) == Path(fine)
