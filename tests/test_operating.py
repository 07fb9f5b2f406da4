"""What docs/operating.md says: backups of runs and bundles, what a dry run prints, when idle machines end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from test_trainer_run_exact import distance, list_words, read_weights, start, wait_for_position

from shards.errors import ShardError, UsageError
from trainer.contract.bundle import Bundle
from trainer.recipes.file import load_recipe
from trainer.record.ledger import read_ledger
from trainer.record.logbook import read_metrics
from trainer.record.snapshot import SnapshotStore
from trainer.run.dry_run import plan_run
from trainer.run.launch import launch

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
(BACKUP,) = re.findall(r"^```sh\n(mkdir -p backup.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def back_up(folder: Path) -> Path:
    """Run the page's commands below a folder; return the copy of the run demo."""
    subprocess.run(["bash", "-ec", BACKUP], cwd=folder, check=True, timeout=120, capture_output=True)
    return folder / "backup/demo"


def test_copy_of_a_bundle_answers_like_the_bundle(bundle_path: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", bundle_path, tmp_path / "copy"], check=True)
    copy, bundle = Bundle.load(tmp_path / "copy"), Bundle.load(bundle_path)  # loading computes the probes again
    assert copy.page == bundle.page


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors"])
@pytest.mark.parametrize("left", [0, 100])
def test_copy_of_a_bundle_that_was_cut_is_refused(bundle_path: Path, tmp_path: Path, name: str, left: int) -> None:
    shutil.copytree(bundle_path, tmp_path / "copy")
    os.truncate(tmp_path / "copy" / name, left)
    with pytest.raises((ShardError, UsageError), match="copy"):
        Bundle.load(tmp_path / "copy")


def test_dry_run_has_the_numbers_that_the_cost_of_an_epoch_needs(dataset_path: Path, tmp_path: Path) -> None:
    recipe = load_recipe("smoke", [f"data={dataset_path}", f"storage.root={tmp_path}", "launch=local"])
    plan = plan_run(recipe).to_json()
    validation_s = plan["time"]["epoch_s"] - plan["steps_per_epoch"] * plan["time"]["step_s"]
    assert 0 <= validation_s < plan["time"]["epoch_s"]
    assert plan["storage"]["needed"] > 0
    assert set(plan["data"]["shards"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("infra/k8s/base/cluster.yaml", ["idleTimeoutSeconds", "minReplicas"]),
        ("infra/k8s/base/train.yaml", ["ttlSecondsAfterFinished", "shutdownAfterJobFinishes"]),
        ("infra/k8s/base/endpoint.yaml", ["upgradeStrategy"]),
        ("infra/ray/aws.yaml", ["idle_timeout_minutes"]),
        ("infra/ray/gcp.yaml", ["idle_timeout_minutes"]),
    ],
)
def test_page_has_the_times_after_which_idle_machines_end(path: str, words: list[str]) -> None:
    found = dict(pair for page in yaml.safe_load_all((ROOT / path).read_text(encoding="utf-8")) for pair in walk(page))
    for word in words:
        value = found[word]
        said = value["type"] if isinstance(value, dict) else str(value)
        assert f"`{word}: {said}`" in PAGE or (value is True and f"`{word}`" in PAGE) or f"{word}: {said}" in PAGE


def walk(page: object) -> list[tuple[str, object]]:
    """Return every name of a document with its value, at any depth."""
    if isinstance(page, dict):
        return [pair for name, value in page.items() for pair in [(name, value), *walk(value)]]
    return [pair for each in page for pair in walk(each)] if isinstance(page, list) else []


@pytest.mark.slow  # two runs of 36 steps
@pytest.mark.timeout(300)
def test_run_resumed_from_a_backup_made_while_it_wrote_ends_with_its_weights(
    dataset_path: Path, tmp_path: Path
) -> None:
    process = start(dataset_path, tmp_path / "runs", "demo", 1, "float64")
    wait_for_position(process, tmp_path / "runs/demo/ledger", 90)
    copy = back_up(tmp_path)
    os.killpg(process.pid, signal.SIGKILL)  # the machine is lost
    process.communicate()
    shutil.rmtree(tmp_path / "runs")
    state = SnapshotStore(copy / "snapshots").read_last()
    assert state is not None
    assert 0 < state.samples_seen < 288
    shutil.move(copy, tmp_path / "restored/demo")
    for root, name in ((tmp_path / "restored", "demo"), (tmp_path / "straight", "demo")):
        recipe, *options = list_words(dataset_path, root, name, 1, "float64")
        launch(load_recipe(recipe, options))
    restored, straight = tmp_path / "restored", tmp_path / "straight"
    assert distance(read_weights(restored, "demo"), read_weights(straight, "demo")) < 1e-9
    columns = ["epoch", "step", "sample_id", "pixels_xxh3"]
    ledgers = [read_ledger(root / "demo/ledger").select(columns) for root in (restored, straight)]
    assert ledgers[0].equals(ledgers[1])
    assert [row["epoch"] for row in read_metrics(restored / "demo")] == [1, 2, 3, 4]


@pytest.mark.slow  # the rest of a run, many times over
@pytest.mark.timeout(300)
def test_every_backup_of_a_run_that_writes_holds_a_whole_snapshot(dataset_path: Path, tmp_path: Path) -> None:
    process = start(dataset_path, tmp_path / "runs", "demo", 1, "float64")
    wait_for_position(process, tmp_path / "runs/demo/ledger", 60)
    positions = []
    while process.poll() is None and len(positions) < 20:
        copy = back_up(tmp_path)
        for folder in (copy / "snapshots").iterdir():
            if folder.name.isdigit():
                SnapshotStore(copy / "snapshots").read_model(folder.name)
        state = SnapshotStore(copy / "snapshots").read_last()
        assert state is not None
        positions.append(state.samples_seen)
        shutil.rmtree(tmp_path / "backup")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(set(positions)) > 1, "the run was over before it was copied twice"
