"""`trainer.decide` as a command: what it stores, who uses it, and that a bundle is never left between two decisions."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.stats import beta
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import trainer.contract.decision.stored_decision
import trainer.decide.__main__ as trainer_decide
import trainer.predict.__main__ as trainer_predict
from cluster.serve.compute import compute_each
from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.dataset.read import SampleReader
from shards.errors import ShardError
from shards.files.fingerprint import fingerprint_file, fingerprint_json
from shards.order.plan import sequential_refs
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.contract.bundle import Bundle, read_bundle_page, save_bundle
from trainer.contract.decision.decision import Decision
from trainer.contract.model.features import FeatureTap
from trainer.contract.model.head import find_head
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.contract.probes import synthesise_pictures
from trainer.decide.check import Checked
from trainer.decide.decide import decide as decide_bundle
from trainer.decide.options import DecideOptions
from trainer.decide.proportions import bound_share

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

CLASSES = ["dark", "light", "medium"]
GRAY = {"dark": 100, "light": 160, "medium": 130}
PER_SPLIT = {"train": 40, "val": 60, "test": 4}


def write_pictures(root: Path) -> Path:
    """Write noisy gray pictures whose brightness overlaps between classes, so that a good model errs at times."""
    rng = np.random.default_rng(0)
    for split, count in PER_SPLIT.items():
        for name, gray in GRAY.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(rng.normal(gray, 22), 40, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def gray_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("gray") / "pictures")


@pytest.fixture(scope="module")
def data(gray_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gray-data") / "shards"
    pack(find_sources(gray_pictures), out, PackOptions(shard_bytes=100_000))
    return out


@pytest.fixture(scope="module")
def made(gray_pictures: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that tells the brightness, by a head fitted to a random backbone, and is four times too sure."""
    torch.manual_seed(0)
    model, preprocess = Classifier(ModelSpec(name="timm/test_resnet", num_classes=3)).eval(), PreprocessSpec(size=32)
    paths = sorted((gray_pictures / "train").glob("*/*"))
    images = torch.stack([prepare(path.read_bytes(), preprocess) for path in paths])
    tap = FeatureTap(model)
    with torch.no_grad():
        model(images)
        features = tap.take().double().numpy()
        tap.close()
        found = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        found.fit(features, [path.parent.name for path in paths])
        head: Any = model.backbone.get_submodule(find_head(model.backbone))
        head.weight.copy_(torch.from_numpy(4 * found.coef_))
        head.bias.copy_(torch.from_numpy(4 * found.intercept_))
    folder = tmp_path_factory.mktemp("gray-bundle") / "bundle"
    save_bundle(
        folder,
        model,
        synthesise_pictures(),
        preprocess=preprocess,
        classes=CLASSES,
        display_names=CLASSES,
        decision=Decision(),
        probes="synthetic",
        dataset=open_dataset(data).fingerprint(),
        recipe=None,
        metrics={},
    )
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


ALL = ("--point", "recall>=0.9", "--positive", "medium", "--conformal", "0.8", "--ood", "0.9", "--abstain-below", "0.4")


@pytest.fixture(scope="module")
def decided(made: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle that decides by all there is."""
    out = tmp_path_factory.mktemp("decided") / "bundle"
    shares = ("--deploy-prior", "medium=0.2")
    code, _, err = run(trainer_decide.main, made, f"{data}:val", *ALL, *shares, "--out", out)
    assert code == 0, err
    return out


def run(main: Callable[[list[str]], int], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(main, [str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def decide(*arguments: str | Path) -> str:
    code, out, err = run(trainer_decide.main, *arguments)
    assert code == 0, err
    return out


def refusal(code: int, *arguments: str | Path) -> str:
    got, printed, err = run(trainer_decide.main, *arguments)
    assert (got, printed, err.count("\n")) == (code, "", 1), err
    return err.removeprefix("error: ").rstrip()


def list_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_decision_comes_back_as_it_was_told(bundle: Path, data: Path) -> None:
    told = json.loads(decide(bundle, data, *ALL, "--json"))
    page = read_bundle_page(bundle)
    assert told["decision"] == page.decision.state_rule().model_dump(mode="json")
    assert (told["decision"]["rule"], page.decision.rule) == ("threshold", "argmax")  # what is done; what is stored
    assert told["fingerprint"] == page.fingerprint() == Bundle.load(bundle).page.fingerprint()
    assert told["log_loss_after"] < told["log_loss_before"]
    assert page.decision.temperature is not None
    assert page.decision.temperature > 1.5  # the head was made too sure
    assert page.decision.fitted is not None
    assert (page.decision.fitted.part, page.decision.fitted.samples) == ("val", 180)


def test_python_fits_checks_and_resets_a_decision_and_nothing_is_printed(
    bundle: Path, data: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = decide_bundle(DecideOptions(bundle=bundle, data=data, abstain_below=0.4))
    assert (fitted.folder, fitted.page, fitted.checked) == (bundle, read_bundle_page(bundle), None)
    assert fitted.temperature is not None
    assert fitted.page.decision.temperature == fitted.temperature.temperature
    assert fitted.page.decision.abstain_below == 0.4
    checked = decide_bundle(DecideOptions(bundle=bundle, data=f"{data}:test", check=True))
    assert isinstance(checked.checked, Checked)
    assert (checked.page, checked.checked.samples) == (fitted.page, 12)
    reset = decide_bundle(DecideOptions(bundle=bundle, reset=True))
    assert (reset.page, reset.temperature) == (read_bundle_page(made), None)
    assert capsys.readouterr().out == ""


def test_showing_says_what_deciding_said_and_changes_nothing(decided: Path) -> None:
    before = list_files(decided)
    shown = decide(decided, "--show")
    for words in (
        "temperature  ",
        "priors       dark 0.333 -> 0.4",
        "for recall>=0.9",
        "80% of pictures",
        "ood  ",
        "0.4\n",
    ):
        assert words in shown
    assert json.loads(decide(decided, "--show", "--json"))["decision"]["point"]["positive"] == "medium"
    assert list_files(decided) == before


def test_resetting_gives_back_the_bundle_as_it_was(bundle: Path, made: Path, data: Path) -> None:
    decide(bundle, data, *ALL)
    assert read_bundle_page(bundle).fingerprint() != read_bundle_page(made).fingerprint()
    assert decide(bundle, "--reset").startswith("decision     the most probable class\n")
    assert read_bundle_page(bundle).fingerprint() == read_bundle_page(made).fingerprint()
    assert list_files(bundle).keys() == list_files(made).keys()


def test_deciding_again_replaces_all_of_the_decision(bundle: Path, data: Path) -> None:
    decide(bundle, data, *ALL)
    first = read_bundle_page(bundle).decision
    decide(bundle, data, "--ood", "0.8", "--ood-fit", "same", "--no-temperature")
    second = read_bundle_page(bundle).decision
    assert first.ood
    assert second.ood
    assert (second.temperature, second.point, second.conformal, second.abstain_below) == (None, None, None, None)
    assert [path.name for path in bundle.glob("ood-*")] == [second.ood.file] != [first.ood.file]
    Bundle.load(bundle)


def test_what_killed_decides_have_left_goes_with_the_next(bundle: Path, data: Path, made: Path) -> None:
    for name in ("ood-0.safetensors", "ood-1.safetensors.partial-7", "bundle.json.partial-7"):
        (bundle / name).write_bytes(b"half")
    decide(bundle, data)
    assert list_files(bundle).keys() == list_files(made).keys()


def test_a_copy_leaves_the_bundle_alone(made: Path, decided: Path) -> None:
    assert not list(made.glob("ood-*"))
    assert read_bundle_page(made).decision == Decision()
    assert [path.name for path in decided.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("step", ["write_detector", "write_text"])
def test_a_decide_that_is_ended_leaves_the_old_decision_whole(
    step: str, decided: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended right before and right after each file that it writes; nothing of it runs after that."""
    for when in ("before", "after"):
        bundle = Path(shutil.copytree(decided, tmp_path / f"{when}"))
        original = getattr(trainer.contract.decision.stored_decision, step)

        def die(*arguments: Any, when: str = when, original: Any = original) -> None:
            if when == "after":
                original(*arguments)
            raise SystemExit(9)

        with monkeypatch.context() as patch:
            patch.setattr(trainer.contract.decision.stored_decision, step, die)
            with pytest.raises(SystemExit):
                trainer_decide.main([str(bundle), str(data), "--ood", "0.8", "--ood-fit", "same"])
        page = Bundle.load(bundle).page  # with all files that it names, and the probes as recorded
        assert page.decision.ood
        assert page.decision.ood.kept == (0.8 if (step, when) == ("write_text", "after") else 0.9)


def test_a_wish_out_of_reach_changes_nothing_and_ends_with_3(bundle: Path, data: Path) -> None:
    before = list_files(bundle)
    sentence = refusal(3, bundle, data, *ALL[:4], "--no-temperature", "--conformal", "0.995")
    assert "val has 180 pictures; for the sets, 180 pictures are too few for a level of 0.995: 199 are " in sentence
    assert list_files(bundle) == before


def test_the_point_gives_on_its_own_part_what_it_says(decided: Path, gray_pictures: Path) -> None:
    point = read_bundle_page(decided).decision.point
    assert point
    said = predict(decided, gray_pictures / "val")
    truth = [Path(row["path"]).parent.name == "medium" for row in said]
    hits = [row["decision"] == "medium" for row, true in zip(said, truth, strict=True) if true]
    assert sum(hits) / 60 == pytest.approx(point.recall.value)
    assert point.recall.value >= 0.9
    spared = [row["decision"] != "medium" for row, true in zip(said, truth, strict=True) if not true]
    assert sum(spared) / 120 == pytest.approx(point.specificity.value)


def test_the_sets_hold_the_true_class_as_often_as_promised(decided: Path, gray_pictures: Path) -> None:
    said = predict(decided, gray_pictures / "val")
    held = np.mean([Path(row["path"]).parent.name in row["set"] for row in said])
    assert 0.7 < held < 0.95  # 0.8 promised, 180 pictures, other class shares
    assert {len(row["set"]) for row in said} > {1}


def test_sets_by_class_are_told_checked_and_predicted(bundle: Path, data: Path, gray_pictures: Path) -> None:
    told = decide(bundle, data, "--no-temperature", "--conformal", "0.8", "--conformal-by", "class")
    assert "set          holds the true class of 80% of pictures, for each class; lac, " in told
    low, high = beta.ppf((0.025, 0.975), 49, 12)  # the 49th of 60 pictures of a class
    for name in CLASSES:
        assert f"             of {name} new pictures {low:.3f} to {high:.3f} in 95 of 100 fits to 60 pictures" in told
    assert (
        "note: the sets' guarantee holds for each class, on average over pictures like those of val, not for each"
        in told
    )
    checked = json.loads(decide(bundle, f"{data}:val", "--check", "--json"))["covered_by_class"]
    said = predict(bundle, gray_pictures / "val")
    for name in CLASSES:
        held = [name in row["set"] for row in said if Path(row["path"]).parent.name == name]
        assert checked[name]["value"] == pytest.approx(np.mean(held))
        assert np.mean(held) >= 0.8
    assert f" of {CLASSES[0]} for {checked[CLASSES[0]]['value']:.3f} [" in decide(bundle, f"{data}:val", "--check")


def test_a_check_counts_what_predict_says(decided: Path, data: Path, gray_pictures: Path) -> None:
    """At the class shares of use: medium is 0.2 instead of a third, the other two 0.4."""
    checked = json.loads(decide(decided, f"{data}:train", "--check", "--json"))
    said = predict(decided, gray_pictures / "train")
    true = [Path(row["path"]).parent.name for row in said]
    weights = np.array([0.2 if name == "medium" else 0.4 for name in true])

    def mean(hits: list[bool], among: npt.NDArray[np.bool_] | None = None) -> float:
        return float(np.average(hits, weights=weights if among is None else weights * among))

    pairs = list(zip(said, true, strict=True))
    sure = np.array([not row["abstain"] for row in said])
    expected = {
        "right": mean([row["label"] == name for row, name in pairs]),
        "covered": mean([name in row["set"] for row, name in pairs]),
        "empty": mean([not row["set"] for row in said]),
        "abstains": mean([row["abstain"] for row in said]),
        "right_where_sure": mean([row["label"] == name for row, name in pairs], sure),
        "precision": mean([name == "medium" for name in true], np.array([row["label"] == "medium" for row in said])),
    }
    assert checked["samples"] == len(said) == 120
    assert {name: checked[name]["value"] for name in expected} == pytest.approx(expected)
    assert all(checked[name]["low"] <= value <= checked[name]["high"] for name, value in expected.items())
    assert checked["notes"] == ["the weights were fitted to these pictures, so the numbers are too good"]


def test_a_check_of_the_part_that_was_fitted_to_says_so_and_agrees_with_the_fit(decided: Path, data: Path) -> None:
    told, point = decide(decided, f"{data}:val", "--check"), read_bundle_page(decided).decision.point
    assert point
    assert f"\ndecision     recall (medium) {point.recall.value:.3f} [{point.recall.low:.3f}, " in told
    assert "\nnote: the decision was fitted to these pictures" in told
    assert "note" not in decide(decided, data, "--check")  # test


def test_pictures_that_belong_together_are_counted_by_groups(bundle: Path, gray_pictures: Path, tmp_path: Path) -> None:
    """Groups of the ten pictures of a class whose numbers have the same tens: six of each class in val."""
    sources = find_sources(gray_pictures, group_regex=r"(\w+/\w+/\d?)\d\.png")
    pack(sources, tmp_path / "grouped", PackOptions())
    point = ("--point", "recall>=0.9", "--positive", "medium")
    told = decide(bundle, tmp_path / "grouped", *point)
    by_group = read_bundle_page(bundle).decision
    assert by_group.fitted
    assert by_group.point
    assert by_group.fitted.groups == 18
    assert "180 pictures of val in 18 groups (intervals are of groups)" in told
    assert (
        "note: intervals of 18 groups are too narrow: about 84 of 100 contain the truth, not 95; use at least 100"
        in told
    )
    checked = json.loads(decide(bundle, f"{tmp_path / 'grouped'}:val", "--check", "--json"))
    assert checked["groups"] == 18
    assert checked["recall"] == by_group.point.recall.model_dump()
    assert "counted      180 pictures in 18 groups" in decide(bundle, f"{tmp_path / 'grouped'}:val", "--check")
    by_picture = bound_share(round(180 * checked["right"]["value"]), 180)
    assert (checked["right"]["value"], checked["right"]["count"]) == (by_picture.value, by_picture.count)
    assert checked["right"]["low"] != by_picture.low


def test_decision_says_how_often_it_gives_each_label(decided: Path, data: Path) -> None:
    """By the program that answers: an operating point gives its class more often than the most probable one does."""
    page = read_bundle_page(decided)
    split = open_dataset(data).split("val")
    bundle = Bundle.load(decided)
    with SampleReader(split) as reader:
        places = sequential_refs(split.counts, 0, split.num_samples)
        pictures = [
            reader.read_one(*place).data for place in zip(places.shards.tolist(), places.rows.tolist(), strict=True)
        ]
    labels = [answer.label for answer in bundle.predict(pictures)]
    assert page.expected_shares == {name: labels.count(name) / len(labels) for name in page.classes}
    assert page.expected_shares != page.label_shares


def test_decision_without_groups_is_written_as_before_there_were_any(decided: Path) -> None:
    page = json.loads((decided / "bundle.json").read_text())
    assert page["decision"]["fitted"].keys() == {"dataset", "part", "samples", "notes", "label_shares"}


def predict(folder: Path, pictures: Path) -> list[dict[str, Any]]:
    code, out, err = run(trainer_predict.main, folder, pictures, "--json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_predict_and_serve_say_what_the_bundle_answers(decided: Path, gray_pictures: Path, tmp_path: Path) -> None:
    bundle, paths = Bundle.load(decided), sorted((gray_pictures / "test").glob("*/*"))
    images = [bundle.prepare(path.read_bytes()) for path in paths]
    answers = [bundle.answer(*bundle.compute(image[None])[0]) for image in images]
    served = [bundle.answer(*output) for output in compute_each(bundle, images) if not isinstance(output, Exception)]
    predicted = predict(decided, gray_pictures / "test")
    names = ("label", "decision", "abstain", "set")
    assert len(answers) == len(served) == len(predicted) == 12
    for one, two, row in zip(answers, served, predicted, strict=True):
        assert [getattr(one, name) for name in names] == [getattr(two, name) for name in names]
        assert [getattr(one, name) for name in names] == [row[name] for name in names]
        assert row["probability"] == pytest.approx(one.probability, rel=1e-4)
        assert row["ood_score"] == pytest.approx(one.ood_score, rel=1e-3) == pytest.approx(two.ood_score, rel=1e-3)
    code, _, err = run(trainer_predict.main, decided, gray_pictures / "test", "--out", tmp_path / "a.csv")
    assert code == 0, err
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["abstain"] for row in rows] == [str(row["abstain"]).lower() for row in predicted]
    assert [row["set"] for row in rows] == [";".join(row["set"]) for row in predicted]
    assert [float(row["ood_score"]) for row in rows] == pytest.approx([row["ood_score"] for row in predicted], rel=1e-4)


def test_predict_without_a_decision_has_the_columns_that_it_had(made: Path, gray_pictures: Path) -> None:
    _, out, _ = run(trainer_predict.main, made, gray_pictures / "test")
    assert out.splitlines()[0] == "path,label,probability,probability_dark,probability_light,probability_medium"


def test_a_picture_of_something_else_is_out_of_distribution(decided: Path) -> None:
    bundle = Bundle.load(decided)
    rule = bundle.page.decision.ood
    assert rule
    board = (np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = torch.from_numpy(np.stack([board, np.zeros_like(board), 255 - board]))
    said = bundle.answer(*bundle.compute(image[None])[0])
    assert said.ood_score is not None
    assert said.ood_score > rule.threshold
    assert said.abstain is True


def test_scores_that_differ_from_those_of_the_probes_are_refused(decided: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(decided, tmp_path / "bundle"))
    page = json.loads((folder / "bundle.json").read_text())
    path = folder / page["decision"]["ood"]["file"]
    tensors = load_file(path)
    tensors["whitening"] *= 1.01
    save_file(tensors, path)
    with pytest.raises(ShardError, match=r"sha256 differs from bundle\.json; run"):
        Bundle.load(folder)
    page["decision"]["ood"]["sha256"] = fingerprint_file(path)
    (folder / "bundle.json").write_text(json.dumps(page))
    with pytest.raises(ShardError, match=r"the probes' out-of-distribution scores differ from"):
        Bundle.load(folder)


def test_a_decision_about_other_classes_is_a_damaged_page(decided: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(decided, tmp_path / "bundle"))
    content = json.loads((folder / "bundle.json").read_text())
    content["decision"]["point"]["positive"] = "gone"
    (folder / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(ShardError, match="is damaged"):
        read_bundle_page(folder)


def test_an_old_page_keeps_its_fingerprint_and_its_answers(made: Path, tmp_path: Path) -> None:
    """What the program wrote before there were decisions: the rule alone."""
    content = json.loads((made / "bundle.json").read_text())
    assert content["decision"] == {"rule": "argmax"}
    assert read_bundle_page(made).fingerprint() == fingerprint_json(content)


def test_fitting_on_train_or_test_is_told(bundle: Path, data: Path) -> None:
    assert "\nnote: fitted on train, the pictures that the weights were fitted to" in decide(bundle, f"{data}:train")
    assert "\nnote: fitted on test: later results on test will be" in decide(bundle, f"{data}:test", "--no-temperature")
    assert "note:" not in decide(bundle, data)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("BUNDLE", "name the dataset and its split, such as data/elpv-shards:val"),
        ("BUNDLE --check", "name the dataset and its split, such as data/elpv-shards:val"),
        ("BUNDLE DATA --check", "has no decision to check; fit one first, or use trainer.evaluate"),
        ("BUNDLE DATA --check --ood 0.9", "--check cannot be combined with --ood; remove one of the two"),
        ("BUNDLE DATA --point max-f1", "this bundle has no positive one; add --positive, one of dark, light, medium"),
        ("BUNDLE DATA --positive dark", "--positive has no effect alone; add --point 'recall>=0.98'"),
        ("BUNDLE DATA --point max-f1 --positive red", "--positive red is none of the classes dark, light, medium"),
        ("BUNDLE DATA --conformal 90", "--conformal lies between 0 and 1, got 90; 0.9 means 90 %"),
        ("BUNDLE DATA --conformal-by class", "--conformal-by has no effect alone; add --conformal 0.9"),
        ("BUNDLE DATA --ood-fit same", "--ood-fit has no effect alone; add --ood 0.95"),
        (
            "BUNDLE DATA --train-prior dark=1",
            "--train-prior has no effect alone; add --deploy-prior CLASS=SHARE",
        ),
        ("BUNDLE DATA --deploy-prior red=0.1", "got 'red=0.1'; correct the name"),
        ("BUNDLE DATA --workers 0", "--workers is a number of threads and must be at least 1, got 0"),
        ("BUNDLE DATA --out BUNDLE", "exists; choose another --out, or delete it first"),
        ("BUNDLE --show --reset", "--show cannot be combined with --reset; remove one of the two"),
        ("BUNDLE DATA --reset", "--reset cannot be combined with DATA; remove one of the two"),
        ("BUNDLE --show --no-temperature", "--show cannot be combined with --temperature; remove one of the two"),
        ("gone DATA", "gone does not exist; a finished run keeps its bundle in runs/NAME/bundle"),
        ("BUNDLE DATA:dev", "a dataset has the splits train, val and test, got 'dev'"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: str, sentence: str, made: Path, data: Path) -> None:
    filled = [word.replace("BUNDLE", str(made)).replace("DATA", str(data)) for word in arguments.split(" ")]
    assert sentence in refusal(2, *filled)


def test_unlabelled_pictures_are_refused(made: Path, gray_pictures: Path, tmp_path: Path) -> None:
    pack(find_sources(gray_pictures / "test", unlabelled=True), tmp_path / "data", PackOptions())
    assert "is unlabelled; training and evaluation need labels" in refusal(2, made, tmp_path / "data")


def test_a_dataset_of_other_classes_is_refused(made: Path, dataset_path: Path) -> None:
    assert refusal(2, made, dataset_path) == (
        "the bundle has the classes dark, light, medium, but the dataset has blue, green, red; "
        "labels would differ in meaning, so nothing was decided"
    )


FAMILIES = {
    "resnet18": 512,
    "shufflenet_v2_x0_5": 1024,
    "mobilenet_v3_small": 1024,
    "squeezenet1_1": 512,
    "timm/test_vit": 64,
    "timm/test_convnext": 64,
    "timm/test_efficientnet": 256,
    "timm/levit_128s": 384,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_features_of_every_family_are_what_enters_its_head(name: str) -> None:
    torch.manual_seed(0)
    size = 160 if "vit" in name else 64
    model = Classifier(ModelSpec(name=name, num_classes=3, image_size=size if "vit" in name else None)).eval()
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    tap = FeatureTap(model)
    with torch.inference_mode():
        logits = model(images)
        features = tap.take()
        tap.close()
        model(images)
        with pytest.raises(KeyError):
            tap.take()  # closed, or taken twice
        assert features.shape == (2, FAMILIES[name])
        assert float((features[0] - features[1]).abs().max()) > 0
        head: Any = model.backbone.get_submodule(find_head(model.backbone))
        # squeezenet takes the mean behind its head, levit the mean of two heads.
        if name not in ("squeezenet1_1", "timm/levit_128s"):
            torch.testing.assert_close(head(features), logits, rtol=1e-4, atol=1e-5)
