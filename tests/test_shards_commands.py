from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from data.make_hostile import deep, deep_ramp
from PIL import Image

from shards.__main__ import main
from shards.cli.ending import run_command
from shards.errors import UsageError

COMMAND = [sys.executable, "-m", "shards"]
ROOT = Path(__file__).parent.parent


def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def make_folder(root: Path, per_class: int = 4, size: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("command") / "pictures")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_one_sentence(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    """The exit code, one line on stderr that says so, and nothing on stdout."""
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines), done.stdout) == (code, 1, ""), done.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0]


@pytest.mark.parametrize("printing", ["print('line')", "[print('line', flush=True) for _ in range(9)]"])
def test_reader_that_leaves_ends_a_command_in_silence(printing: str) -> None:
    """As `| head` does; the printed text waits in a buffer, or is written at once."""
    program = (
        f"from shards.cli.ending import run_command; raise SystemExit(run_command(lambda _: {printing} and 0 or 0))"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_broken_pipe_of_something_else_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: list[str]) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert (run_command(fail), capsys.readouterr().err) == (2, "error: [Errno 32] Broken pipe\n")


def test_missing_folder_exits_2(tmp_path: Path) -> None:
    assert_one_sentence(run("pack", tmp_path / "nowhere", tmp_path / "out"), 2, f"no such folder: {tmp_path}/nowhere")


def test_empty_folder_exits_2(tmp_path: Path) -> None:
    assert_one_sentence(run("pack", tmp_path, tmp_path / "out"), 2, "holds no pictures in class folders")


def test_one_class_exits_2(tmp_path: Path) -> None:
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/1.png").touch()
    assert_one_sentence(run("pack", tmp_path / "in", tmp_path / "out"), 2, "has only one class, 'a'")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--split=val:0.1", "--split is of the form val=0.1,test=0.1 with shares in (0, 1), got 'val:0.1' in"),
        ("--shard-bytes=64 parsecs", "a size is a number with KiB, MiB, GiB, KB, MB or GB, for example 64MiB"),
        ("--range=4095", "--range takes 2 numbers, for example 0,4095, got '4095'"),
    ],
)
def test_wrong_option_exits_2(folder: Path, tmp_path: Path, option: str, says: str) -> None:
    assert_one_sentence(run("pack", folder, tmp_path / "out", option), 2, says)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--split=train=0.5", "got 'train=0.5' in 'train=0.5'"),
        ("--split=val=nan", "with shares in (0, 1), got 'val=nan'"),
        ("--split=val=0.5,test=0.5", "--split val=0.5,test=0.5 leaves nothing to train on: the shares sum to 1"),
        ("--shard-bytes=0", "--shard-bytes: input should be greater than 0, got 0"),
        ("--range=0,1,2", "--range takes 2 numbers, for example 0,4095, got '0,1,2'"),
        ("--range=", "--range takes 2 numbers, for example 0,4095, got ''"),
        ("--range=9,1", "--range: the two values must be finite and ascending, got (9.0, 1.0)"),
        ("--range=0,inf", "--range: the two values must be finite and ascending, got (0.0, inf)"),
        ("--max-reject-rate=2", "--max-reject-rate: input should be less than or equal to 1, got 2.0"),
        ("--workers=0", "--workers is a number of processes or tasks and must be at least 1, got 0"),
        ("--seed=-1", "--seed: input should be greater than or equal to 0, got -1"),
    ],
)
def test_wrong_value_is_refused_under_the_name_of_its_option(
    folder: Path, tmp_path: Path, option: str, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        main(["pack", str(folder), str(tmp_path / "out"), option])
    assert says in str(caught.value)


def test_target_that_cannot_be_written_exits_2_and_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_sentence(run("pack", folder, tmp_path / "file/out"), 2, f"Not a directory: {tmp_path}/file/out")


def test_full_disk_exits_2_without_a_traceback(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # its data would not fit either

    def limit() -> None:  # a file that cannot grow stands for a disk that is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = run("pack", folder, tmp_path / "out", preexec_fn=limit)
    assert_one_sentence(done, 2, "is larger than `ulimit -f` allows (4.0 KiB allowed")


def test_too_many_unreadable_pictures_exit_3(tmp_path: Path) -> None:
    make_folder(tmp_path / "in")
    (tmp_path / "in/ant/000.png").write_bytes(b"not a picture")
    done = run("pack", tmp_path / "in", tmp_path / "out")
    assert_one_sentence(done, 3, "1 of 8 pictures cannot be read, over the limit of 1.0%; the first is ant/000.png")


def test_12_bits_in_16_exit_3_with_the_range_to_give(tmp_path: Path) -> None:
    make_folder(tmp_path / "in")
    (tmp_path / "in/ant/scan.png").write_bytes(deep(deep_ramp(4095), "PNG"))
    assert_one_sentence(run("pack", tmp_path / "in", tmp_path / "out"), 3, "--bits 12")


def test_failed_verification_exits_3(dataset_path: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for name in ("dataset.json", "shards.parquet"):
        (tmp_path / "copy" / name).write_bytes((dataset_path / name).read_bytes())
    assert_one_sentence(run("verify", tmp_path / "copy"), 3, "train/000000.tar is missing")


def test_no_dataset_exits_2(tmp_path: Path) -> None:
    assert_one_sentence(run("stat", tmp_path), 2, "is not a dataset (it has no dataset.json)")


@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stopped_pack_exits_130_and_the_same_command_finishes(tmp_path: Path, kind: signal.Signals) -> None:
    make_folder(tmp_path / "in", per_class=60)
    out = tmp_path / "out"
    command = [*COMMAND, "pack", str(tmp_path / "in"), str(out), "--shard-bytes", "1", "--split", "none"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(out.glob("train/*.tar")):
            time.sleep(0.001)
        process.send_signal(kind)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.strip() == "interrupted; the same command resumes where this one stopped"
    assert not (out / "dataset.json").exists()
    assert run(*command[3:]).returncode == 0
    assert run(*command[3:5], tmp_path / "unstopped", *command[6:]).returncode == 0
    assert digests(out) == digests(tmp_path / "unstopped")


def test_interrupt_inside_evaluated_text_exits_130_too(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import sys\nfrom shards.cli.ending import run_command\n"
        "sys.exit(run_command(lambda _: exec('raise KeyboardInterrupt')))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    assert subprocess.run([sys.executable, "-m", "late"], env=environment, capture_output=True).returncode == 130


def test_pack_tells_what_it_made_and_what_it_left_out(tmp_path: Path) -> None:
    make_folder(tmp_path / "in")
    (tmp_path / "in/bee/notes.txt").touch()
    (tmp_path / "in/ant/000.png").write_bytes(b"")
    done = run("pack", tmp_path / "in", tmp_path / "out", "--max-reject-rate", "0.5", "--split", "none")
    assert (done.returncode, done.stderr) == (0, "")
    first, second, _, fourth, fifth = done.stdout.splitlines()
    assert first == "left out 1 files ending in .txt: not pictures by their ending"
    assert second == f"left out 1 unreadable pictures, listed in {tmp_path}/out/quarantine.csv"
    assert fourth.split() == ["train", "7", "samples", "in", "1", "shards,", "0.0", "MiB:", "ant", "3,", "bee", "4"]
    default = "bee, the second of two classes, as nothing names one (`pack` and `index` take --positive CLASS)"
    assert fifth == f"  positive class: {default}"


def test_negative_range_can_be_given(tmp_path: Path) -> None:
    make_folder(tmp_path / "in")
    done = run("pack", tmp_path / "in", tmp_path / "out", "--range=-1000,400", "--json")
    assert json.loads(done.stdout)["packing"]["decode"]["gray_range"] == [-1000, 400]


def test_stat_of_many_classes_is_short_and_json_has_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "in/0.png")
    data = (tmp_path / "in/0.png").read_bytes()
    rows = ["path,label,split"]
    for number in range(400):
        for copy in range(2 if number == 7 else 1):
            (tmp_path / f"in/{number}.{copy}.png").write_bytes(data)
            rows.append(f"{number}.{copy}.png,class {number:03d},train")
    (tmp_path / "in/list.csv").write_text("\n".join(rows))
    assert (
        main(["pack", str(tmp_path / "in/list.csv"), str(tmp_path / "out"), "--audit", "none", "--workers", "1"]) == 0
    )
    packed = capsys.readouterr().out
    assert main(["stat", str(tmp_path / "out"), "--shards"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(packed)
    counts = "400 classes of 1 to 2, fewest class 000 1, class 001 1, class 002 1, most class 007 2, class "
    assert told.count(counts) == 2  # of the split, and of its one shard
    assert "  train  share of a class in a shard: largest differences: class 0" in told
    assert len(told) < 1500
    assert "(`stat --json` prints the count of each class)" in told
    assert main(["stat", str(tmp_path / "out"), "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert sum(page["splits"]["train"]["class_counts"]) == 401
    assert len(page["mix"]["train"]) == 400


def test_shard_bytes_are_those_of_pictures_and_a_tar_has_so_much_more_for_each_as_help_has_it(
    folder: Path, tmp_path: Path
) -> None:
    assert (
        main(["pack", str(folder), str(tmp_path / "out"), "--shard-bytes", "1", "--workers", "1", "--split", "none"])
        == 0
    )
    for tar in (tmp_path / "out").rglob("*.tar"):
        with tarfile.open(tar) as file:
            members = file.getmembers()
        size = next(member.size for member in members if member.name.endswith(".png"))
        used = sum(512 + -(-member.size // 512) * 512 for member in members)
        assert 2.5 * 1024 <= used - size <= 3.5 * 1024  # about 3 KiB, as help has it


def test_stat_json_tells_splits_and_fingerprint(dataset_path: Path) -> None:
    told = json.loads(run("stat", dataset_path, "--json").stdout)
    assert told["splits"]["train"]["class_counts"] == [24, 24, 24]
    assert len(told["fingerprint"]) == 64


def test_verify_json_tells_how_many_pictures(dataset_path: Path) -> None:
    assert json.loads(run("verify", dataset_path, "--json").stdout)["verified"] == 120


def test_help_of_pack_tells_every_default() -> None:
    text = " ".join(run("pack", "--help").stdout.split())
    for default in ("val=0.1,test=0.1", "64MiB", "0.01", "(default: 0)", "(default: one for each CPU)"):
        assert default in text


def test_help_without_a_command_lists_the_commands() -> None:
    assert "{pack,audit,index,stat,verify}" in run("--help").stdout


def test_unknown_command_exits_2() -> None:
    assert run("unpack").returncode == 2
