"""A run is given more epochs where its schedule allows it, and is then the run that had them from the beginning."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import run_dir
from safetensors.torch import load_file

from shards.cli.ending import run_command
from shards.errors import UsageError
from trainer.loop.loop import train
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.longer import find_begun_epochs
from trainer.recipes.options.schedule import SCHEDULES, ScheduleOptions
from trainer.recipes.recipe import ResolvedRecipe
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import RESULT, RunFolder, refuse_other_recipe_there
from trainer.run.__main__ import main
from trainer.step.schedule import scale_lr
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

NEEDED: dict[str, dict[str, Any]] = {
    "multistep": {"milestones": [3, 12]}, "exponential": {"gamma": 0.9}, "natural_exp": {"gamma": 0.1},
}  # fmt: skip


def fixed(data: Path, root: Path, *more: str) -> list[str]:
    small = ["model=timm/test_efficientnet", "optim.peak_lr=0.001", "snapshot.every_s=1000"]
    return [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", *small, *more]


def make_recipe(data: Path, root: Path, *more: str) -> ResolvedRecipe:
    return resolve_recipe(load_recipe("smoke", fixed(data, root, *more)))


def go_on(recipe: ResolvedRecipe, stopped: bool = False) -> str:
    """Claim the folder and train, as a command does; `stopped` after a step."""
    folder = RunFolder.of(recipe)
    folder.claim(recipe)
    folder.stop_file.touch() if stopped else folder.stop_file.unlink(missing_ok=True)
    return train(recipe, folder, single_rank(), lambda _: None)


def final_weights(recipe: ResolvedRecipe) -> dict[str, torch.Tensor]:
    last = max((run_dir(recipe) / "snapshots").iterdir())
    return load_file(last / "model.safetensors")


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_takes_more_epochs_where_the_rates_so_far_would_be_the_same(name: str) -> None:
    options = ScheduleOptions.model_validate({"name": name, "warmup_epochs": 1, **NEEDED.get(name, {})})
    rates = [[scale_lr(options, seen, epochs * 100, 100) for seen in range(0, 1000, 50)] for epochs in (10, 20)]
    assert (rates[0] != rates[1]) == SCHEDULES[name].spans_run, (
        f"the rates of {name} {'depend' if rates[0] != rates[1] else 'do not depend'} on the length of the run; "
        f"its row says spans_run={SCHEDULES[name].spans_run}"
    )


@pytest.mark.parametrize("schedule", ["step-1-0.5", "default-0.5-0"])
def test_run_with_more_epochs_is_the_run_that_had_them_from_the_beginning(
    schedule: str, dataset_path: Path, tmp_path: Path
) -> None:
    options = (f"schedule={schedule}",)
    straight = make_recipe(dataset_path, tmp_path, "name=straight", "epochs=2", *options)
    assert go_on(straight) == "finished"
    assert go_on(make_recipe(dataset_path, tmp_path, "name=longer", "epochs=1", *options)) == "finished"
    longer = make_recipe(dataset_path, tmp_path, "name=longer", "epochs=2", *options)
    assert go_on(longer, stopped=True) == "interrupted"  # within the epoch that was added
    assert go_on(longer) == "finished"
    torch.testing.assert_close(final_weights(longer), final_weights(straight), rtol=0, atol=0)


def test_warm_up_stays_as_the_run_began_it(dataset_path: Path, tmp_path: Path) -> None:
    """Half of two epochs: the rate must not fall back, as half of four would have it."""
    options = ("name=run", "schedule={name: constant, warmup_frac: 0.5}")
    assert go_on(make_recipe(dataset_path, tmp_path, "epochs=2", *options), stopped=True) == "interrupted"
    longer = make_recipe(dataset_path, tmp_path, "epochs=4", *options)
    assert go_on(longer) == "finished"
    rates = [row["train/lr"] for row in read_metrics(run_dir(longer))]
    assert rates[0] < 0.001
    assert rates[1:] == [0.001] * 3


def run(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(main, ["smoke", *arguments])
    return code, out.getvalue(), err.getvalue()


def test_finished_run_is_resumed_by_more_epochs_and_finished_anew(dataset_path: Path, tmp_path: Path) -> None:
    options = fixed(dataset_path, tmp_path, "name=run", "schedule=constant")
    assert run(*options, "epochs=1")[0] == 0
    assert " was finished before" in run(*options, "epochs=1")[1]
    code, out, _ = run(*options, "epochs=2", "--dry-run")
    assert (code, out.startswith(f"run       {tmp_path}/run (goes on)")) == (0, True)
    code, out, err = run(*options, "epochs=2")
    assert (code, "finished before" in out) == (0, False), err
    assert [row["epoch"] for row in read_metrics(tmp_path / "run")] == [1, 2]
    assert (tmp_path / "run" / RESULT).is_file()
    code, _, err = run(*options, "epochs=1")
    assert (code, "another recipe (epochs was 2, now 1); choose another name=" in err) == (2, True)


@pytest.mark.slow
def test_run_whose_schedule_ends_with_it_is_continued_from_its_bundle(dataset_path: Path, tmp_path: Path) -> None:
    options = fixed(dataset_path, tmp_path, "schedule=cosine")
    assert run(*options, "name=run", "epochs=1")[0] == 0
    code, _, err = run(*options, "name=run", "epochs=2")
    assert (code, err) == (
        2,
        f"error: {tmp_path}/run has a run of 1 epochs whose schedule, cosine, depends on them, so 2 would be another "
        f"run; train on from its best weights under another name, with name=NEW weights={tmp_path}/run/bundle\n",
    )
    code, out, err = run(*options, "epochs=2", *err.strip().rpartition(" with ")[2].split(), "--dry-run")
    assert code == 0, err
    assert f"weights {tmp_path}/run/bundle" in out


def test_begun_epochs_are_found_by_the_fingerprint_alone(dataset_path: Path, tmp_path: Path) -> None:
    begun, now = (make_recipe(dataset_path, tmp_path, "name=run", f"epochs={epochs}") for epochs in (3, 9))
    assert find_begun_epochs(now, begun.fingerprint()) == 3
    assert find_begun_epochs(begun, now.fingerprint()) is None
    other = make_recipe(dataset_path, tmp_path, "name=run", "epochs=3", "seed=1")
    assert find_begun_epochs(now, other.fingerprint()) is None
    folder = RunFolder.of(begun)
    folder.claim(begun)
    folder.snapshots.mkdir()
    with pytest.raises(UsageError, match=r"another recipe \(seed was 0, now 1\)"):
        folder.claim(other)


def test_result_in_a_store_is_taken_back_where_a_run_is_given_more_epochs(
    dataset_path: Path, s3: str, tmp_path: Path
) -> None:
    def there(epochs: int) -> ResolvedRecipe:
        root = s3.format(path="longer")
        more = (f"storage.work={tmp_path}", f"storage.root={root}", "name=run", "schedule=constant")
        return make_recipe(dataset_path, tmp_path, *more, f"epochs={epochs}")

    begun, now = there(1), there(2)
    RunFolder.of(begun).claim(begun)
    store = RunFolder.of(begun).store
    assert store is not None
    for name in (RESULT, "snapshots/000000000072/state.json"):
        store.write(name, b"{}")
    folder = RunFolder.of(now)
    assert refuse_other_recipe_there(now, store)
    assert RESULT in store.sizes()  # asking takes nothing back
    folder.claim(now)
    assert RESULT not in store.sizes()
    assert not refuse_other_recipe_there(now, store)
