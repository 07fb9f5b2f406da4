"""Pictures of several labels from the packed list to an answer: trained, judged, bundled, asked; and refusals."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from runs import run_dir
from several_labels import SETS, SHAPES, draw_shapes, write_shapes

import trainer.evaluate.__main__ as trainer_evaluate
import trainer.predict.__main__ as trainer_predict
import trainer.run.__main__ as trainer_run
from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.dataset.read import SampleReader
from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_json
from shards.order.plan import sequential_refs
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.augment.sheet import collect_pictures
from trainer.contract.bundle import Bundle, read_bundle_page
from trainer.contract.decision.decision import Decision, answer
from trainer.contract.metrics import list_metrics
from trainer.contract.task import MANY_LABELS
from trainer.evaluate.rows import Rows
from trainer.evaluate.worst import read_worst
from trainer.feed.stream import TrainStream
from trainer.loop.build import build_preprocess
from trainer.loop.loop import train
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.misfit import refuse_misfit, settle_metric
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import RunFolder
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

CLASSES = list(SHAPES)
LEARN = (
    "model=timm/test_efficientnet", "augment.policy=none", "epochs=5", "optim.peak_lr=0.01", "batch_size_global=16",
    "workers=0", "snapshot.every_epochs=99", "loss.name=bce", "preprocess.normalise=half",
)  # fmt: skip

SHOWN = ("loss.class_weights=balanced", "track.images=true")


def run(main: Callable[[list[str]], int], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(main, [str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def learn(data: Path, root: Path, *options: str) -> tuple[Path, str]:
    """The folder of a run that was trained as a command does, and what the command said."""
    fixed = [f"data={data}", f"storage.root={root}", "name=shapes", "track.wandb=offline", "launch=local"]
    code, out, err = run(trainer_run.main, "smoke", *fixed, *LEARN, *options)
    assert code == 0
    said = [line for line in err.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]
    assert said == []  # what fails in tracking would be there, beside the lines that say how far the run is
    return root / "shapes", out


@pytest.fixture(scope="module")
def told(multi_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return learn(multi_path, tmp_path_factory.mktemp("runs"), *SHOWN)


@pytest.fixture(scope="module")
def trained(told: tuple[Path, str]) -> Path:
    return told[0]


def read_result(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return result


# learning


def test_shapes_are_learnt(trained: Path) -> None:
    result = read_result(trained / "evaluation/test")
    assert (result["samples"], min(row["support"] for row in result["per_class"].values())) == (56, 32)
    assert result["map"] >= 0.9
    assert min(row["average_precision"] for row in result["per_class"].values()) >= 0.85


@pytest.mark.slow  # a control: a run on labels that mean nothing
def test_shuffled_labels_stay_at_chance(tmp_path: Path) -> None:
    """The average precision of chance is the share of the class, 4 of 7."""
    listed = write_shapes(tmp_path / "shapes", {"train": 16, "val": 8, "test": 8}, shuffle_labels=True)
    pack(find_sources(listed), tmp_path / "shards", PackOptions())
    result = read_result(learn(tmp_path / "shards", tmp_path)[0] / "evaluation/test")
    assert result["map"] < 0.75
    assert 0.3 < result["auroc"] < 0.7


@pytest.mark.slow
def test_student_learns_from_the_teacher_alone_in_parts_that_fit(
    trained: Path, multi_path: Path, tmp_path: Path
) -> None:
    taught = (f"loss.teacher={trained / 'bundle'}", "loss.teacher_share=1", "step.accumulate=auto")
    folder, _ = learn(multi_path, tmp_path, *taught)
    assert read_result(folder / "evaluation/test")["map"] >= 0.9


def test_best_epoch_is_that_of_the_mean_average_precision(trained: Path) -> None:
    rows = read_metrics(trained)
    best = max(rows, key=lambda row: row["val/map"])  # max takes the first of equals, as the run does
    assert rows[-1]["val/best_epoch"] == best["epoch"]
    assert rows[-1]["val/best"] == best["val/map"]
    assert read_bundle_page(trained / "bundle").metrics is not None
    assert read_bundle_page(trained / "bundle").metrics["map"] == best["val/map"]  # type: ignore[index]
    assert "metric: map" in (trained / "recipe.yaml").read_text(encoding="utf-8")


def test_run_says_what_came_of_it_in_terms_of_several_labels(told: tuple[Path, str]) -> None:
    folder, said = told
    result = read_result(folder / "evaluation/test")
    low, high = result["intervals"]["map"]
    assert said.startswith(
        f"test: mAP {result['map']:.4f} [{low:.4f}, {high:.4f}], macro F1 {result['macro_f1']:.4f} ["
    )
    report = (folder / "report.html").read_text(encoding="utf-8")
    for word in (f"mAP {result['map']:.4f}", "average precision", "validation mAP", "best validation mAP"):
        assert word in report
    for name in ("curves.png", "evaluation/test/confusion.png", "evaluation/test/curves.png"):
        assert (folder / name).stat().st_size > 5_000


def test_wandb_gets_a_table_for_each_class_and_the_worst_pictures(trained: Path) -> None:
    result = read_result(trained / "evaluation/test")
    (path,) = trained.glob("wandb/offline-run-*/files/media/table/test/confusion_*.table.json")
    table = json.loads(path.read_text(encoding="utf-8"))
    assert table["columns"][1:] == ["true negatives", "false positives", "false negatives", "true positives"]
    assert table["data"] == [[name, *no, *yes] for name, (no, yes) in result["confusion_per_class"].items()]
    (path,) = trained.glob("wandb/offline-run-*/files/media/table/test/worst_*.table.json")
    worst = json.loads(path.read_text(encoding="utf-8"))["data"]
    assert len(worst) == min(50, round(56 * (1 - result["subset_accuracy"])))
    assert all(label != prediction for _, label, prediction, *_ in worst)


def test_same_command_again_leaves_a_finished_run_alone(told: tuple[Path, str], multi_path: Path) -> None:
    """Its metric was not given on the command line, then as now."""
    before = (told[0] / "recipe.yaml").read_text(encoding="utf-8")
    folder, said = learn(multi_path, told[0].parent, *SHOWN)
    assert said.startswith(f"{folder} was finished before")
    assert (folder / "recipe.yaml").read_text(encoding="utf-8") == before


def test_saved_recipe_trains_again_to_the_same_result(trained: Path, tmp_path: Path) -> None:
    fixed = [f"storage.root={tmp_path}", "name=again", "epochs=1", "track.wandb=disabled", "evaluate_on=[]"]
    code, _, err = run(trainer_run.main, trained / "recipe.yaml", *fixed)
    assert code == 0, err
    assert read_metrics(tmp_path / "again")[0]["val/map"] > 0


# the stream


def test_batches_hold_a_one_for_every_label_of_the_list(multi_path: Path) -> None:
    dataset, recipe = open_dataset(multi_path), resolve_recipe(load_recipe("smoke", [f"data={multi_path}"]))
    with open(multi_path.parent / "shapes/list.csv", newline="", encoding="utf-8") as file:
        listed = {row["path"]: row["label"].split(";") for row in csv.DictReader(file)}
    stream = TrainStream(dataset.split("train"), recipe, build_preprocess(recipe, dataset), single_rank())
    seen = 0
    for batch in stream.iterate(0, 0):
        expected = [[float(name in listed[source]) for name in CLASSES] for source in batch.sources]
        assert (batch.labels.dtype, batch.labels.tolist()) == (torch.float32, expected)
        seen += len(batch)
    stream.close()
    assert seen == len(SETS) * 16


def test_fraction_takes_its_share_of_every_set_of_labels_and_grows(multi_path: Path) -> None:
    split = open_dataset(multi_path).split("train")
    parts = []
    for fraction in (0.25, 0.5):
        recipe = resolve_recipe(load_recipe("smoke", [f"data={multi_path}", f"stream.fraction={fraction}"]))
        stream = TrainStream(split, recipe, build_preprocess(recipe, open_dataset(multi_path)), single_rank())
        batches = [(batch.ids.tolist(), batch.labels) for batch in stream.iterate(0, 0)]
        stream.close()
        parts.append({number for ids, _ in batches for number in ids})
        sets = [tuple(row) for _, labels in batches for row in labels.tolist()]
        assert {sets.count(row) for row in set(sets)} <= {16 * fraction, 16 * fraction + 1, 16 * fraction - 1}
        assert len(set(sets)) == len(SETS)
    assert parts[0] < parts[1]


def test_index_says_all_labels_of_a_sample(multi_path: Path) -> None:
    split = open_dataset(multi_path).split("val")
    refs = sequential_refs(split.counts, 0, split.num_samples)
    with SampleReader(split) as reader:
        samples = [reader.read_one(*place) for place in zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)]
    assert sorted({sample.labels for sample in samples}) == sorted({tuple(map(CLASSES.index, row)) for row in SETS})
    assert all(sample.label == (sample.labels[0] if len(sample.labels) == 1 else -1) for sample in samples)


def test_contact_sheet_names_all_labels(multi_path: Path) -> None:
    recipe = resolve_recipe(load_recipe("smoke", [f"data={multi_path}", "augment.mixup=0.4", "workers=0"]))
    sheet = collect_pictures(recipe, open_dataset(multi_path), 7)
    assert sorted(sheet.names) == sorted(", ".join(row) for row in SETS)
    assert len(sheet.mixed) == 10
    words = [line[5:] for line in sheet.mixed[0].caption.splitlines()[1:]]
    assert len(words) == 2
    assert all(any(", ".join(row).startswith(word.rstrip("…")) for row in SETS) for word in words)


# evaluation


def test_predictions_are_told_as_lists_of_labels(trained: Path, multi_path: Path) -> None:
    table = pq.read_table(trained / "evaluation/test/predictions.parquet").to_pylist()
    assert len(table) == 56
    for row in table:
        there = [name for name in CLASSES if row[f"probability_{name}"] >= 0.5]
        assert row["prediction"] == ";".join(there)
        assert row["probability_disc"] == pytest.approx(1 / (1 + np.exp(-row["logit_disc"])))
    right = np.mean([row["label"] == row["prediction"] for row in table])
    assert read_result(trained / "evaluation/test")["subset_accuracy"] == pytest.approx(right)


def test_evaluation_by_command_gives_the_runs_numbers(trained: Path, multi_path: Path, tmp_path: Path) -> None:
    code, said, err = run(trainer_evaluate.main, trained / "bundle", multi_path, "--out", tmp_path)
    assert code == 0, err
    ours, theirs = read_result(tmp_path), read_result(trained / "evaluation/test")
    assert ours == theirs
    assert said.startswith(f"test: mAP {ours['map']:.4f} [")


def test_worst_pictures_are_named_by_all_their_labels(multi_path: Path) -> None:
    """Of a model that sees nothing anywhere; the pictures of most shapes are the worst."""
    dataset = open_dataset(multi_path)
    split = dataset.split("val")
    refs = sequential_refs(split.counts, 0, split.num_samples)
    with SampleReader(split) as reader:
        samples = [reader.read_one(*place) for place in zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)]
    labels = np.array([[int(k in sample.labels) for k in range(3)] for sample in samples])
    ids, sources = np.array([sample.sample_id for sample in samples]), [sample.source for sample in samples]
    rows = Rows(MANY_LABELS, ids, labels, np.full((len(ids), 3), -2, dtype=np.float32), sources)
    recipe = resolve_recipe(load_recipe("smoke", [f"data={multi_path}"]))
    worst = read_worst(rows, split, build_preprocess(recipe, dataset), CLASSES, 8)
    assert {picture.label for picture in worst} == {"bars;disc;square"}
    assert {picture.prediction for picture in worst} == {""}
    assert [picture.probability for picture in worst] == pytest.approx([1 - 1 / (1 + np.exp(-2))] * 8)
    assert worst[0].path in sources


# the bundle and its answers


def test_bundle_says_its_task_and_decides_by_it(trained: Path) -> None:
    page = read_bundle_page(trained / "bundle")
    assert (page.task, page.decision.rule) == ("multi-label", "each")


def test_bundle_from_before_there_were_tasks_keeps_its_fingerprint(bundle_path: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_path, tmp_path / "old")
    content = json.loads((tmp_path / "old/bundle.json").read_text(encoding="utf-8"))
    del content["task"]
    (tmp_path / "old/bundle.json").write_text(json.dumps(content), encoding="utf-8")
    page = read_bundle_page(tmp_path / "old")
    assert (page.task, page.fingerprint()) == ("single-label", fingerprint_json(content))


def test_page_whose_task_and_rule_disagree_is_damaged(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "bundle", tmp_path / "bundle")
    text = (tmp_path / "bundle/bundle.json").read_text(encoding="utf-8")
    (tmp_path / "bundle/bundle.json").write_text(text.replace('"rule": "each"', '"rule": "argmax"'), encoding="utf-8")
    with pytest.raises(ShardError, match="is damaged"):
        read_bundle_page(tmp_path / "bundle")


def test_answer_is_every_class_of_at_least_one_half() -> None:
    said = answer(torch.tensor([2.0, 0.0, -3.0]), ["a", "b", "c"], Decision(rule="each"))
    assert (said.label, said.labels) == ("a", ["a", "b"])
    assert said.probability == said.probabilities["a"] == pytest.approx(0.880797, abs=1e-6)
    assert [said.probabilities["b"], said.probabilities["c"]] == pytest.approx([0.5, 0.047426], abs=1e-6)


def test_answer_may_be_that_nothing_is_there() -> None:
    said = answer(torch.tensor([-2.0, -1.0]), ["a", "b"], Decision(rule="each"))
    assert (said.label, said.labels, said.probability) == (None, [], pytest.approx(0.268941, abs=1e-6))


def test_answer_of_one_label_is_a_list_of_it() -> None:
    assert answer(torch.tensor([-2.0, -1.0]), ["a", "b"], Decision()).labels == ["b"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of each set of shapes, and one of nothing."""
    root, rng = tmp_path_factory.mktemp("asked"), np.random.default_rng(7)
    for labels in [(), *SETS]:
        draw_shapes(labels, rng).save(root / f"{'-'.join(labels) or 'none'}.png")
    return root


def test_predict_gives_json_with_all_labels(trained: Path, asked: Path) -> None:
    code, said, err = run(trainer_predict.main, trained / "bundle", asked, "--json")
    assert code == 0, err
    bundle = Bundle.load(trained / "bundle")
    for row in map(json.loads, said.splitlines()):
        logits = bundle.compute_logits(bundle.prepare(Path(row["path"]).read_bytes())[None])[0]
        expected = [name for name, logit in zip(CLASSES, logits.tolist(), strict=True) if logit >= 0]
        assert row["labels"] == expected
        p = dict(zip(CLASSES, torch.sigmoid(logits).tolist(), strict=True))
        assert row["probabilities"] == pytest.approx(p, rel=1e-3)  # in a batch of another size the last bits differ
        assert row["label"] == (CLASSES[int(logits.argmax())] if expected else None)


def test_predict_gives_csv_that_can_be_packed_as_a_list(trained: Path, asked: Path, tmp_path: Path) -> None:
    code, _, err = run(trainer_predict.main, trained / "bundle", asked, "--out", tmp_path / "answers.csv")
    assert code == 0, err
    with open(tmp_path / "answers.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "probability", *(f"probability_{name}" for name in CLASSES)]
    assert max(row["label"].count(";") for row in rows) > 0
    for row in rows:
        there = [name for name in CLASSES if float(row[f"probability_{name}"]) >= 0.5]
        assert row["label"] == ";".join(there)
        assert float(row["probability"]) == max(float(row[f"probability_{name}"]) for name in CLASSES)


# what is refused


def refusal(main: Callable[[list[str]], int], *arguments: str | Path) -> str:
    code, printed, err = run(main, *arguments)
    assert (code, printed, err.count("\n")) == (2, "", 1), err
    return err.removeprefix("error: ").rstrip()


REFUSED = {
    ("loss.name=cross_entropy",): "loss.name=cross_entropy needs one label each; set loss.name=bce",
    ("loss.name=focal",): "loss.name=focal needs one label each; set loss.name=bce",
    ("loss.name=bce", "loss.class_weights=effective"): (
        "loss.class_weights=effective needs one class per picture; use balanced, or give a number for each class"
    ),
    ("loss.name=bce", "stream.order=balanced"): (
        "stream.order=balanced shows each class equally often, which several labels per picture do not allow; use "
        "plain or weighted, and loss.class_weights=balanced for rare classes"
    ),
}


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_recipe_for_one_label_is_refused_before_anything_is_made(
    options: tuple[str, ...], dry: tuple[str, ...], multi_path: Path, tmp_path: Path
) -> None:
    fixed = (f"data={multi_path}", f"storage.root={tmp_path / 'runs'}", "track.wandb=disabled")
    sentence = refusal(trainer_run.main, "smoke", *fixed, *options, *dry)
    assert sentence == f"{multi_path} is multi-label and {REFUSED[options]}"
    assert not (tmp_path / "runs").exists()


def test_metric_of_the_other_kind_of_labels_is_refused_and_the_kinds_own_are_named(
    multi_path: Path, dataset_path: Path, tmp_path: Path
) -> None:
    fixed = (f"storage.root={tmp_path}", "track.wandb=disabled", "loss.name=bce")
    for data, task, metric in ((multi_path, "multi-label", "accuracy"), (dataset_path, "single-label", "map")):
        *names, last = [row.key for row in list_metrics(task, "stop")]
        assert refusal(trainer_run.main, "smoke", *fixed, f"data={data}", f"stop.metric={metric}") == (
            f"{data} is {task} and has no stop.metric={metric}; use {', '.join(names)} or {last}"
        )


def test_metric_that_the_validation_part_cannot_give_is_refused_at_the_start(tmp_path: Path) -> None:
    """Every picture there has both classes."""
    listed = write_shapes(tmp_path / "shapes", {"train": 1, "val": 1, "test": 1})
    lines = listed.read_text(encoding="utf-8").splitlines()
    told = [f"{line.split(',')[0]},bars;disc,val" if line.startswith("val") else line for line in lines]
    listed.write_text("\n".join(told).replace(",square,", ",bars,").replace(";square", "") + "\n", encoding="utf-8")
    pack(find_sources(listed), tmp_path / "shards", PackOptions())
    dataset = open_dataset(tmp_path / "shards")
    recipe = load_recipe("smoke", [f"data={tmp_path}", "loss.name=bce", "stop.metric=auroc"])
    with pytest.raises(UsageError, match=r"^stop\.metric=auroc needs a class that some pict"):
        refuse_misfit(recipe, dataset)
    refuse_misfit(load_recipe("smoke", [f"data={tmp_path}", "loss.name=bce", "stop.metric=map"]), dataset)


def test_metric_is_chosen_where_none_is_given(multi_path: Path, dataset_path: Path) -> None:
    bare, given = load_recipe("smoke", ["data=x"]), load_recipe("smoke", ["data=x", "stop.metric=log_loss"])
    several, one = open_dataset(multi_path), open_dataset(dataset_path)
    assert settle_metric(bare, several).stop.metric == "map"
    assert settle_metric(given, several).stop.metric == "log_loss"
    assert settle_metric(bare, one) is bare


def test_loop_itself_refuses_what_a_command_would(multi_path: Path, tmp_path: Path) -> None:
    """A trial of a sweep comes to it without one; torch would take the ones and zeros for shares of one label."""
    recipe = resolve_recipe(load_recipe("smoke", [f"data={multi_path}", f"storage.root={tmp_path}", "stop.metric=map"]))
    run_dir(recipe).mkdir()
    with pytest.raises(UsageError, match=r"needs one label each; set loss\.name=bce$"):
        train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None)


def test_bundle_and_dataset_of_different_kinds_are_not_compared(
    trained: Path, bundle_path: Path, multi_path: Path, dataset_path: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    assert refusal(trainer_evaluate.main, trained / "bundle", dataset_path, *out) == (
        "the bundle is multi-label, but the dataset is single-label; labels cannot be compared, so nothing was "
        "evaluated; use a dataset of the bundle's kind"
    )
    assert "the bundle is single-label, but the dataset is multi-label" in refusal(
        trainer_evaluate.main, bundle_path, multi_path, *out
    )
    assert not (tmp_path / "out").exists()


def test_dataset_without_labels_is_refused(multi_path: Path, bundle_path: Path, tmp_path: Path) -> None:
    pack(find_sources(multi_path.parent / "shapes", unlabelled=True), tmp_path / "bare", PackOptions())
    says = f"{tmp_path}/bare is unlabelled; training and evaluation need labels: pack it with them, or use "
    assert refusal(trainer_run.main, "smoke", f"data={tmp_path}/bare", f"storage.root={tmp_path}").startswith(says)
    assert refusal(trainer_evaluate.main, bundle_path, tmp_path / "bare").startswith(says)
