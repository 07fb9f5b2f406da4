"""The doctor on real machines: this one, and a cluster one of whose nodes has every fault that can be planted here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from doctors import ROOT, Looked, doctor
from ray_nodes import run_nodes
from small_disk import mount_small

# this machine


def test_without_a_cluster_this_machine_is_examined_and_no_ray_is_loaded() -> None:
    script = "import sys, cluster.doctor.__main__ as it; it.main(['--address', 'local']); print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("This machine;")
    assert done.stdout.endswith("\nFalse\n")


def test_address_without_a_cluster_is_a_sentence() -> None:
    done = doctor("--address", "127.0.0.1:9")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Ray cluster answers at 127.0.0.1:9 (")
    assert "--address local to examine this machine alone" in done.stderr


def test_token_file_that_others_can_read_is_red_until_the_remedy_is_run(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-word-that-nobody-may-see")
    file.chmod(0o644)
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    looked = Looked.here(**variables)
    assert looked.code == 3
    assert looked.all_red() == ["token"]
    assert looked.said == "error: 1 line is red: token; see the remedies\n"
    assert "a-word-that" not in json.dumps(looked.page)
    subprocess.run(looked.remedy("token").split("`")[1], shell=True, check=True)
    assert Looked.here(**variables).code == 0


def test_storage_is_written_read_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").write_text("")
    for folder in ("runs", "new/deep"):
        looked = Looked.here("--storage", tmp_path / folder)
        assert looked.all_red() == []
        (facts,) = looked.page["checks"]["storage"]["facts"].values()
        assert facts["write_mb_s"] > 0
        assert facts["read_mb_s"] > 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "runs"]


def test_storage_that_cannot_be_written_is_red(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    looked = Looked.here("--quick", "--storage", tmp_path / "file/runs")
    ((fact, _),) = looked.red("storage")
    assert fact.startswith(f"{tmp_path}/file/runs cannot be ")
    assert "Not a directory" in fact


def test_storage_on_a_disk_that_is_read_only_is_red_until_it_is_mounted_as_the_remedy_says(tmp_path: Path) -> None:
    with mount_small(tmp_path / "disk", "size=2g") as disk:
        disk.remount("ro")
        looked = Looked.here("--quick", "--storage", disk.folder / "runs")
        assert looked.all_red() == ["storage"]
        assert "cannot be written to: Read-only file system" in looked.red("storage")[0][0]
        assert looked.remedy("storage").startswith("mount it so that it can be written")
        disk.remount("rw")
        assert Looked.here("--quick", "--storage", disk.folder / "runs").all_red() == []
        disk.fill(left=100 << 20)
        looked = Looked.here("--quick", "--storage", disk.folder / "runs")
        assert looked.red("storage")[0][0] == f"the disk of {disk.folder}/runs has 100.0 MiB free: snapshots need more"


def test_wandb_server_that_does_not_answer_is_red_only_if_asked_for() -> None:
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9"}
    assert Looked.here(**nowhere).all_red() == []
    for words, variables in ((["--wandb"], {}), ([], {"WANDB_MODE": "online"}), ([], {"WANDB_API_KEY": "k" * 40})):
        looked = Looked.here(*words, **nowhere, **variables)
        assert looked.all_red() == ["wandb"]


# a cluster


@dataclass
class Faulty:
    """A cluster whose node gpu-2 has all faults; name: of the head. looked: with --quick."""

    address: str
    head: str
    looked: Looked


@pytest.fixture(scope="module")
def faulty(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """A head without CPUs, and gpu-2."""
    root = tmp_path_factory.mktemp("faulty")
    shared = root / "shared"
    shutil.copytree(dataset_path, shared / "data")
    code = root / "code"
    for package in ("shards", "trainer", "tune", "cluster"):
        shutil.copytree(ROOT / package, code / package)
    with open(code / "shards/errors.py", "a") as file:
        file.write("\n# a line more\n")
    with run_nodes() as nodes:
        nodes.start(
            1,
            host="gpu-2",
            open_files=1024,
            disks={str(shared): "200m", "/dev/shm": "64m"},
            variables={"PYTHONPATH": str(code), "RAY_health_check_period_ms": "500"},
        )
        looked = Looked.at(
            "--address", nodes.address, "--quick", "--storage", shared / "runs", "--data", shared / "data"
        )
        head = next(each["name"] for each in looked.page["nodes"] if each["head"])
        yield Faulty(nodes.address, head, looked)


def test_head_without_cpus_answers_as_well(faulty: Faulty) -> None:
    page = faulty.looked.page
    assert [each["resources"].get("CPU", 0) for each in page["nodes"]] == [0, 1]
    assert page["checks"]["answers"]["values"] == {faulty.head: "yes", "gpu-2": "yes"}


def test_command_ends_with_3_and_names_the_red_checks(faulty: Faulty) -> None:
    assert faulty.looked.code == 3
    assert faulty.looked.all_red() == ["versions", "shm", "open-files", "timers", "data", "storage"]
    assert "lines are red: versions, shm, open-files, timers, data, storage; see the remedies" in faulty.looked.said


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("versions", "Shardline's code is "),
        ("shm", "/dev/shm has 64.0 MiB and Ray's object store "),
        ("open-files", "a process may open 1,024 files"),
        ("timers", "RAY_health_check_period_ms is 500 there, and 3000 on the head"),
        ("data", "the dataset cannot be read: "),
    ],
)
def test_fault_of_one_node_is_red_there_alone(check: str, words: str, faulty: Faulty) -> None:
    ((fact, where),) = faulty.looked.red(check)
    assert fact.startswith(words)
    assert where == ["gpu-2"]


def test_folder_that_is_mounted_on_one_node_only_is_no_shared_storage(faulty: Faulty) -> None:
    assert ["is not that of" in fact for fact, _ in faulty.looked.red("storage")] == [False, True]
    fact, where = faulty.looked.red("storage")[1]
    assert where in ([faulty.head], ["gpu-2"])
    assert fact.endswith("nodes do not see each other's files, and it was not there before")


def test_clocks_of_one_machine_agree_within_what_round_trips_allow(faulty: Faulty) -> None:
    for facts in faulty.looked.page["checks"]["clock"]["facts"].values():
        assert facts["least"] <= 0 <= facts["most"]
        assert facts["most"] - facts["least"] < 0.5


def test_table_fits_80_columns_and_has_a_remedy_for_each_red_line(faulty: Faulty) -> None:
    done = doctor("--address", faulty.address, "--quick")
    assert done.returncode == 3
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.count("\nRED ") == 4
    assert done.stdout.count("     -> ") == done.stdout.count("\nRED ") + done.stdout.count("\nnote ")
