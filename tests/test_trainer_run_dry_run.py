"""`python -m trainer.run RECIPE --dry-run`: what it finds out, and that nothing of it stays."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import run_dir, save_weights
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import cross_entropy

from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from shards.workers.memory import read_free_memory
from trainer.loop.build import build_model
from trainer.loop.loop import train
from trainer.ranks.machine import read_free_disk, refuse_full_disk, refuse_too_many_ranks
from trainer.ranks.ranks import Ranks, single_rank
from trainer.recipes.file import load_recipe
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import STOP_FILE, RunFolder
from trainer.run.__main__ import main
from trainer.run.launch import launch
from trainer.run.rehearsal import Memory, refuse_too_large
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

GIB = 2**30
MODEL = "timm/test_efficientnet_gn"
"""Of the smoke recipe."""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def dry_run(*arguments: str) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(main, [*arguments, "--dry-run"])
    return Done(code, out.getvalue(), err.getvalue())


def options(data: Path, root: Path, *more: str) -> list[str]:
    return ["smoke", f"data={data}", f"storage.root={root}", "launch=local", "epochs=2", *more]


def plan(*arguments: str) -> dict[str, Any]:
    done = dry_run(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    result: dict[str, Any] = json.loads(done.out)
    return result


@pytest.fixture(scope="module")
def planned(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The plan of a run in batches of 13, and the folder of runs that it named."""
    root = tmp_path_factory.mktemp("planned") / "runs"
    return plan(*options(dataset_path, root, "batch_size_global=13", "track.wandb=offline")), root


def test_plan_counts_steps_and_batches(planned: tuple[dict[str, Any], Path]) -> None:
    found = planned[0]
    assert (found["steps_per_epoch"], found["steps_total"], found["steps_done"]) == (6, 12, 0)
    assert (found["batch_size_global"], found["batch_size_rank"], found["num_ranks"]) == (13, [13, 13], 1)


def test_plan_says_what_the_data_is(planned: tuple[dict[str, Any], Path], dataset_path: Path) -> None:
    data, dataset = planned[0]["data"], open_dataset(dataset_path)
    assert data["samples"] == {"train": 72, "val": 24, "test": 24}
    assert data["shards"] == {part: len(list((dataset_path / part).glob("*.tar"))) for part in data["samples"]}
    assert (data["fingerprint"], data["classes"]) == (dataset.fingerprint(), ["blue", "green", "red"])


def test_plan_says_where_outputs_go_and_who_is_told(planned: tuple[dict[str, Any], Path]) -> None:
    found, root = planned
    assert (found["run"], found["state"]) == (str(root / "smoke"), "new")
    assert (found["wandb"], found["tensorboard"]) == ("offline", False)


def test_memory_of_parameters_gradients_and_optimizer_is_that_of_adamw(
    planned: tuple[dict[str, Any], Path], dataset_path: Path
) -> None:
    """Two moments a parameter, a step counter a tensor; float32."""
    model = build_model(resolve_recipe(load_recipe("smoke", [f"data={dataset_path}"])), 3)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    tensors = len(list(model.parameters()))
    memory = planned[0]["memory"]
    assert planned[0]["model"]["parameters"] == planned[0]["model"]["trained"] == numbers
    assert memory["parameters"] == 4 * numbers + buffers
    assert (memory["gradients"], memory["exchange"]) == (4 * numbers, 0)
    assert memory["state"] == 2 * 4 * numbers + 4 * tensors
    assert memory["batches"] == 5 * 13 * 3 * 32 * 32


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
@pytest.mark.skipif(torch.cuda.is_available(), reason="says nothing where there is a GPU")
def test_plan_says_that_nothing_is_gained_by_decoding_on_a_device_that_is_the_cpu(
    planned: tuple[dict[str, Any], Path], dataset_path: Path, tmp_path: Path
) -> None:
    found = plan(*options(dataset_path, tmp_path / "runs", "stream.decode=device", "augment.policy=none"))
    assert planned[0]["notes"] == []
    assert found["notes"] == [
        "stream.decode=device: torch finds no GPU here, so one thread per rank decodes on the CPU; "
        "stream.decode=faithful uses all loader threads"
    ]


def test_time_is_that_of_its_parts(planned: tuple[dict[str, Any], Path]) -> None:
    """Steps and validation for two epochs, and the test part, which is as large as the validation part."""
    time = planned[0]["time"]
    val_s = time["epoch_s"] - 6 * time["step_s"]
    assert time["timed_steps"] == 3
    assert 0 < val_s < time["epoch_s"]
    assert time["left_s"] == pytest.approx(12 * time["step_s"] + 3 * val_s)


def test_dry_run_leaves_nothing_on_disk(planned: tuple[dict[str, Any], Path]) -> None:
    assert list(planned[1].parent.iterdir()) == []


def test_text_says_the_same_and_ends_with_the_verdict(
    planned: tuple[dict[str, Any], Path], dataset_path: Path, tmp_path: Path
) -> None:
    done = dry_run(*options(dataset_path, tmp_path / "runs", "batch_size_global=13"))
    assert done.code == 0, done.err
    assert "steps     6 per epoch, 12 in total, 0 done\n" in done.out
    assert "batch     13 over all ranks, 13 per rank\n" in done.out
    assert "an estimate from 3 steps of " in done.out
    assert done.out.endswith("\nall checks passed; nothing was written\n")


@pytest.mark.slow
def test_ranks_are_tried_together(dataset_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = plan(*options(dataset_path, tmp_path / "runs", "num_ranks=2", "batch_size_global=13", "optim.name=sgd"))
    assert (found["num_ranks"], found["batch_size_rank"], found["launch"]) == (2, [6, 7], "local")
    assert found["memory"]["exchange"] == found["memory"]["gradients"] == found["memory"]["state"]  # momentum
    assert capfd.readouterr().err == ""  # of DDP, which warns in every rank


def test_only_what_is_trained_has_gradients(dataset_path: Path, tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "w.pth", MODEL)
    frozen = ["freeze=[backbone]", f"weights={weights}", "optim.name=sgd"]
    found = plan(*options(dataset_path, tmp_path, *frozen))
    assert found["memory"]["gradients"] == found["memory"]["state"] == 4 * found["model"]["trained"]
    assert found["model"]["trained"] < found["model"]["parameters"] / 10


def test_plan_is_that_of_the_epochs_after_the_release(dataset_path: Path, tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "w.pth", MODEL)
    frozen = ["freeze=[backbone]", "freeze_epochs=1", f"weights={weights}", "optim.name=sgd"]
    found = plan(*options(dataset_path, tmp_path, *frozen))
    assert found["model"]["trained"] == found["model"]["parameters"]
    assert found["memory"]["gradients"] == found["memory"]["state"] == 4 * found["model"]["parameters"]


def test_activations_are_those_that_the_memory_tracker_of_torch_counts(
    planned: tuple[dict[str, Any], Path], dataset_path: Path
) -> None:
    """Extrapolated from two pictures to a batch of 13; the tracker sees all 13 of them."""
    model = build_model(resolve_recipe(load_recipe("smoke", [f"data={dataset_path}"])), 3)
    images, labels = torch.randint(0, 256, (13, 3, 32, 32), dtype=torch.uint8), torch.zeros(13, dtype=torch.int64)
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        loss = cross_entropy(model(images), labels, reduction="none").sum()
        held = tracker.get_tracker_snapshot("current")[torch.device("cpu")]
        loss.backward()
    (activations,) = [size for kind, size in held.items() if str(kind).endswith("ACT")]
    assert planned[0]["memory"]["activations"] == pytest.approx(activations, rel=0.01)


def test_plan_of_a_run_that_was_stopped_says_how_far_it_is(dataset_path: Path, tmp_path: Path) -> None:
    arguments = options(dataset_path, tmp_path, "track.wandb=disabled")
    recipe = resolve_recipe(load_recipe(arguments[0], arguments[1:]))
    run_dir(recipe).mkdir()
    (run_dir(recipe) / STOP_FILE).touch()
    assert train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None) == "interrupted"
    before = sorted(run_dir(recipe).rglob("*"))
    found = plan(*arguments)
    assert (found["state"], found["steps_done"], found["steps_total"]) == ("goes on", 1, 12)
    assert sorted(run_dir(recipe).rglob("*")) == before


@pytest.fixture(scope="module")
def finished(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of a finished run."""
    root = tmp_path_factory.mktemp("finished")
    arguments = options(dataset_path, root, "track.wandb=disabled", "evaluate_on=[]")
    launch(resolve_recipe(load_recipe(arguments[0], arguments[1:])))
    return arguments


def test_plan_of_a_finished_run_leaves_nothing_to_do(finished: list[str]) -> None:
    found = plan(*finished)
    rows = read_metrics(run_dir(load_recipe(finished[0], finished[1:])))
    assert (found["state"], found["time"]["left_s"]) == ("finished", 0)
    assert found["steps_done"] == found["steps_total"] == rows[-1]["step"]


def test_other_recipe_in_the_folder_of_a_run_is_refused_as_by_the_run(finished: list[str]) -> None:
    done = dry_run(*finished, "seed=3")
    assert (done.code, done.out) == (2, "")
    assert "has a run with another recipe (seed was 0, now 3); choose another name=, or delete that folder" in done.err


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("model=resnet81", "error: no model 'resnet81': did you mean 'resnet18' or "),
        ("freeze=[stem]", "error: freeze: no parameter of timm/test_efficientnet_gn begins with 'stem'; "),
        ("weights=gone.pth", "error: "),
        ("storage.root=/dev/null/runs", "error: Not a directory: /dev/null\n"),
    ],
)
def test_mistake_ends_in_one_sentence(option: str, sentence: str, dataset_path: Path, tmp_path: Path) -> None:
    done = dry_run(*options(dataset_path, tmp_path, option))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(sentence)


def test_missing_dataset_is_refused(tmp_path: Path) -> None:
    done = dry_run(*options(tmp_path / "gone", tmp_path))
    assert (done.code, done.err.startswith(f"error: {tmp_path}/gone does not exist; ")) == (2, True)


def test_damaged_shard_is_refused_data(dataset_path: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset_path, tmp_path / "data")
    for path in (tmp_path / "data" / "train").glob("*.tar"):
        path.write_bytes(path.read_bytes()[:600])
    done = dry_run(*options(tmp_path / "data", tmp_path))
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1), done.err
    assert ".tar" in done.err


NEEDS = Memory(parameters=GIB, gradients=GIB, exchange=0, state=0, activations=GIB, batches=GIB, snapshot=GIB)


@pytest.mark.parametrize(
    ("device", "on_node", "free_host", "free_device", "sentence"),
    [
        ("cpu", 1, 5 * GIB, 0, ""),
        ("cpu", 1, 5 * GIB - 1, 0, "the run needs about 5.0 GiB of memory, but this machine has 5.0 GiB free; "),
        ("cpu", 2, 9 * GIB, 0, "the run needs about 10.0 GiB of memory, but this machine has 9.0 GiB free; "),
        ("cuda:0", 1, 2 * GIB, 3 * GIB, ""),
        ("cuda:0", 1, 2 * GIB, 2 * GIB, "the run needs about 3.0 GiB of memory, but cuda:0 has 2.0 GiB free; "),
        ("cuda:0", 2, 3 * GIB, 9 * GIB, "the run needs about 4.0 GiB of memory, but this machine has 3.0 GiB free; "),
    ],
)
def test_run_that_does_not_fit_into_memory_is_refused(
    device: str, on_node: int, free_host: int, free_device: int, sentence: str
) -> None:
    ranks = replace(single_rank(), device=torch.device(device), on_node=on_node)
    assert isinstance(ranks, Ranks)
    if not sentence:
        refuse_too_large(NEEDS, ranks, free_host, free_device)
        return
    with pytest.raises(UsageError) as caught:
        refuse_too_large(NEEDS, ranks, free_host, free_device)
    assert str(caught.value).startswith(sentence)


def test_run_that_does_not_fit_on_the_disk_is_refused() -> None:
    refuse_full_disk(GIB, GIB, "runs")
    with pytest.raises(UsageError, match=r"need about 3\.0 GiB more, the disk of runs has 1\.0 GiB free, so no s"):
        refuse_full_disk(3 * GIB, GIB, "runs")


def test_more_ranks_than_gpus_are_refused_and_without_gpus_they_are_not() -> None:
    refuse_too_many_ranks(8, 0)
    refuse_too_many_ranks(2, 2)
    with pytest.raises(UsageError, match="num_ranks=3 needs as many GPUs, this machine has 2; set num_ranks=2"):
        refuse_too_many_ranks(3, 2)


def test_free_disk_of_a_folder_that_is_not_there_is_that_of_the_one_above(tmp_path: Path) -> None:
    assert read_free_disk(tmp_path / "a" / "b") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert list(tmp_path.iterdir()) == []


def test_free_memory_is_below_what_the_machine_has() -> None:
    total = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024
    assert 0 < read_free_memory() < total
