"""`python -m trainer.bundle`: anybody's checkpoint becomes a bundle that predicts as its own code does."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from trainer.bundle.__main__ import main
from trainer.bundle.checkpoint import bundle_checkpoint
from trainer.bundle.options import BundleOptions, parse_preprocess
from trainer.contract.bundle import Bundle, read_bundle_page
from trainer.contract.decision.decision import Decision
from trainer.contract.decision.stored_decision import store_decision
from trainer.contract.model.backbone import build_backbone
from trainer.evaluate.bundle import evaluate_bundle
from trainer.predict.__main__ import main as predict_main
from trainer.ranks.ranks import single_rank
from trainer.weights.classes import read_classes

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

NAME = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """Somebody's model of three classes, as torchvision makes it, its norms settled on noise."""
    torch.manual_seed(3)
    model: nn.Module = torchvision.models.get_model(NAME, weights=None, num_classes=3)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(16, 3, 64, 64))
    return model.eval()


FORMS = {
    "model_best.pth": lambda model: {"model_state_dict": model.state_dict(), "epoch": 3},
    "weights.pkl": lambda model: model.state_dict(),
    "whole.pt": lambda model: model,
    "checkpoint.pth.tar.epoch_3": lambda model: {
        "state_dict": {f"module.{name}": tensor for name, tensor in model.state_dict().items()},
        "optimizer": {"state": {}, "param_groups": []},
        "best_acc": 0.5,
    },
}


def make_bundle(path: Path, out: Path, *more: str) -> Path:
    options = ("--model", NAME, "--classes", "blue,green,red", "--preprocess", "crop:72:64", "--out", str(out))
    assert run_command(main, [str(path), *options, *more]) == 0
    return out


@torch.inference_mode()
def predict_by_hand(model: nn.Module, path: Path) -> Tensor:
    """Probabilities as the tutorial computes them."""
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(72, antialias=True),
            v2.CenterCrop(64),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    picture: Tensor = transform(Image.open(path).convert("RGB"))
    return torch.softmax(model(picture.unsqueeze(0))[0], dim=0)


@pytest.mark.parametrize("form", FORMS)
def test_bundle_of_a_checkpoint_predicts_as_its_own_code_does(
    form: str, theirs: nn.Module, pictures: Path, tmp_path: Path
) -> None:
    torch.save(FORMS[form](theirs), tmp_path / form)
    bundle = make_bundle(tmp_path / form, tmp_path / "bundle")
    shown = sorted((pictures / "val" / "red").glob("*.png"))[:3]
    assert run_command(predict_main, [str(bundle), *map(str, shown), "--out", str(tmp_path / "answers.csv")]) == 0
    with open(tmp_path / "answers.csv", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    for path in shown:
        said = [float(rows[str(path)][f"probability_{name}"]) for name in ("blue", "green", "red")]
        torch.testing.assert_close(torch.tensor(said), predict_by_hand(theirs, path), atol=5e-3, rtol=0)


def test_python_makes_a_bundle_of_a_checkpoint_and_another_of_that(
    theirs: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    said = {"model": NAME, "classes": "a,b,c", "preprocess": "crop:72:64"}
    made = bundle_checkpoint(BundleOptions(weights=tmp_path / "w.pt", out=tmp_path / "first", **said))
    page = read_bundle_page(tmp_path / "first")
    assert (made.folder, made.model, made.preprocess, made.origin) == (
        tmp_path / "first",
        page.model,
        page.preprocess,
        page.origin,
    )
    assert (made.report.matched, made.report.missing, made.was_bundle) == (len(theirs.state_dict()), (), False)
    again = bundle_checkpoint(BundleOptions(weights=made.folder, out=tmp_path / "second"))
    assert (again.model, again.preprocess, again.was_bundle) == (made.model, made.preprocess, True)
    assert capsys.readouterr().out == ""


def test_page_says_what_is_known_and_no_more(theirs: nn.Module, tmp_path: Path) -> None:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    page = read_bundle_page(make_bundle(tmp_path / "w.pt", tmp_path / "bundle"))
    assert (page.dataset, page.recipe, page.metrics) == (None, None, None)
    assert page.origin is not None
    assert page.origin.startswith("w.pt, sha256 ")
    assert (page.classes, page.model.mean, page.preprocess.resize) == (
        ["blue", "green", "red"],
        (0.485, 0.456, 0.406),
        72,
    )


def test_bundle_of_a_checkpoint_is_evaluated(theirs: nn.Module, dataset_path: Path, tmp_path: Path) -> None:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    bundle = make_bundle(tmp_path / "w.pt", tmp_path / "bundle")
    dataset = open_dataset(dataset_path)
    _, result = evaluate_bundle(Bundle.load(bundle), dataset, "train", single_rank(), 1, tmp_path / "out")
    assert (result["samples"], "warning" in result) == (72, False)  # nobody knows that it was trained on these


def test_checkpoint_of_several_labels_answers_by_the_sigmoid_of_each(
    theirs: nn.Module, pictures: Path, multi_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    bundle = make_bundle(tmp_path / "w.pt", tmp_path / "bundle", "--task", "multi-label")
    path = sorted((pictures / "val" / "red").glob("*.png"))[0]
    capsys.readouterr()
    assert run_command(predict_main, [str(bundle), str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    odds = [p / (1 - p) for p in said["probabilities"].values()]
    by_hand = predict_by_hand(theirs, path).tolist()
    assert [p / sum(odds) for p in odds] == pytest.approx(by_hand, abs=5e-3)  # exp(logit) is what the softmax divides
    assert said["labels"] == [name for name, p in said["probabilities"].items() if p >= 0.5]


def test_task_is_that_of_the_dataset_that_is_named(
    theirs: nn.Module, dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    said = [str(tmp_path / "w.pt"), "--model", NAME, "--classes", "blue,green,red", "--out", str(tmp_path / "bundle")]
    assert run_command(main, [*said, "--task", "multi-label", "--dataset", str(dataset_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: --task is multi-label, but {dataset_path} is single-label; use the task of its labels\n"
    )


def test_dataset_that_is_named_is_recorded_and_decodes(theirs: nn.Module, dataset_path: Path, tmp_path: Path) -> None:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    page = read_bundle_page(make_bundle(tmp_path / "w.pt", tmp_path / "bundle", "--dataset", str(dataset_path)))
    assert page.dataset == open_dataset(dataset_path).fingerprint()


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        ([], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (["--normalise", "half"], (0.5,) * 3, (0.5,) * 3),
        (["--normalise", "none"], (0.0,) * 3, (1.0,) * 3),
        (["--mean", "0.1,0.2,0.3", "--std", "0.5"], (0.1, 0.2, 0.3), (0.5,) * 3),
    ],
)
def test_normalisation_is_the_model_s_own_or_what_is_said(
    options: list[str], mean: tuple[float, ...], std: tuple[float, ...], theirs: nn.Module, tmp_path: Path
) -> None:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    bundle = Bundle.load(make_bundle(tmp_path / "w.pt", tmp_path / "bundle", *options))
    assert (bundle.page.model.mean, bundle.page.model.std) == (mean, std)
    torch.testing.assert_close(bundle.model.mean.flatten() / 255, torch.tensor(mean))


def test_checkpoint_of_gray_pictures_becomes_a_bundle_of_one_channel(tmp_path: Path) -> None:
    model = torchvision.models.get_model(NAME, weights=None, num_classes=3)
    model.conv1[0] = nn.Conv2d(1, 24, 3, stride=2, padding=1, bias=False)
    torch.save(model.state_dict(), tmp_path / "gray.pt")
    options = ("--channels", "1", "--backbone-channels", "1", "--normalise", "half", "--interpolation", "bicubic")
    page = Bundle.load(make_bundle(tmp_path / "gray.pt", tmp_path / "bundle", *options)).page
    assert (page.model.in_channels, page.model.mean, page.preprocess.channels) == (1, (0.5,), 1)
    assert page.preprocess.interpolation == "bicubic"


def test_head_behind_dropout_in_a_sequential_is_taken_and_told(
    theirs: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {name.replace("fc.", "fc.1."): tensor for name, tensor in theirs.state_dict().items()}
    torch.save(tensors, tmp_path / "w.pt")
    bundle = Bundle.load(make_bundle(tmp_path / "w.pt", tmp_path / "bundle"))
    assert torch.equal(bundle.model.backbone.fc.weight, theirs.fc.weight)  # type: ignore[union-attr,arg-type]
    assert "fc.1.weight used as fc.weight" in capsys.readouterr().out


def test_published_weights_bring_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = torchvision.models.get_model_weights(NAME).IMAGENET1K_V1
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(torchvision.models.get_model(NAME, weights=None).state_dict(), folder / item.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert run_command(main, ["IMAGENET1K_V1", "--model", NAME, "--out", str(tmp_path / "bundle")]) == 0
    page = read_bundle_page(tmp_path / "bundle")
    assert (len(page.classes), page.classes[281]) == (1000, "tabby")
    assert page.preprocess.model_dump(include={"policy", "resize", "size"}) == {
        "policy": "crop", "resize": 256, "size": 224,
    }  # fmt: skip


def test_classes_may_be_a_file_with_display_names(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("0\t正常肺部\n\n1,Pneumonia\ncovid 19\n", encoding="utf-8")
    assert read_classes(str(path), NAME, "w.pt") == (["0", "1", "covid 19"], ["正常肺部", "Pneumonia", "covid 19"])


@pytest.mark.parametrize(
    ("text", "policy", "resize", "size"),
    [("stretch:64", "stretch", None, 64), ("letterbox:9", "letterbox", None, 9), ("crop:32", "crop", None, 32)],
)
def test_preprocessing_is_written_in_one_word(text: str, policy: str, resize: int | None, size: int) -> None:
    assert parse_preprocess(text) == {"policy": policy, "resize": resize, "size": size}


def save_good(path: Path, model: nn.Module) -> None:
    torch.save(model.state_dict(), path)


def save_without_head(path: Path, model: nn.Module) -> None:
    torch.save({name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}, path)


def save_gray(path: Path, model: nn.Module) -> None:
    torch.save(build_backbone(NAME, 3, in_channels=1).state_dict(), path)


def save_boundless(path: Path, model: nn.Module) -> None:
    """Finite weights whose answers are not."""
    tensors = model.state_dict()
    torch.save(tensors | {"fc.weight": torch.full_like(tensors["fc.weight"], 3e38)}, path)


def save_single(path: Path, model: nn.Module) -> None:
    tensors = model.state_dict()
    torch.save(tensors | {"fc.weight": tensors["fc.weight"][:1], "fc.bias": tensors["fc.bias"][:1]}, path)


REFUSED: list[tuple[Any, list[str], int, str]] = [
    (save_good, ["--classes", "a,b"], 3, "w.pt does not have all tensors of shufflenet_v2_x0_5 with 2 classes: "
     "it lacks fc.weight, fc.bias; left out fc.weight (shape [3, 1024], the model has [2, 1024]), fc.bias (shape [3], "
     "the model has [2])"),
    (save_without_head, ["--classes", "a,b,c"], 3, "all tensors of shufflenet_v2_x0_5 with 3 classes: it lacks fc."),
    (save_good, ["--classes", "a,b,a"], 2, "--classes has the name 'a' twice"),
    (save_good, ["--classes", "a"], 2, "--classes names a; a classifier has two classes or more, given as a,b or"),
    (save_good, ["--classes", "a,b\nb,c"], 2, "with a character that cannot be printed; remove it"),
    (save_good, ["--classes", "a,b,c", "--preprocess", "stretch:0"], 2, "both of 1 to 9999 pixels, got 'stretch:0'"),
    (save_good, ["--classes", "a,b,c", "--normalise", "half", "--mean", "0", "--std", "1"], 2, "and instead of --nor"),
    (save_gray, ["--classes", "a,b,c"], 3, "pictures of one channel, give --channels 1 --backbone-channels 1"),
    (save_boundless, ["--classes", "a,b,c"], 3, "the model gives logits that are not finite for a probe"),
    (save_single, ["--classes", "a,b", "--task", "multi-label"], 3, "left out fc.weight (shape [1, 1024], the model"),
    (save_good, ["--classes", "a,b;c,d", "--task", "multi-label"], 2, "'b;c' contains ';', which separates"),
    (save_good, [], 2, " are unknown; give --classes a,b or a file"),
    (save_good, ["--classes", "a,b,c", "--preprocess", "crop:64:72"], 2, "--preprocess is stretch:SIZE, "),
    (save_good, ["--classes", "a,b,c", "--mean", "0.5"], 2, "--mean and --std must be given together"),
    (save_good, ["--classes", "a,b,c", "--mean", "123,117,104", "--std", "1"], 2, "--mean is 3 numbers on the scale 0"),
    (save_good, ["--classes", "a,b,c", "--std", "0", "--mean", "0"], 2, "must be at least 1e-6, got 0"),
    (save_good, ["--classes", "a,b,c", "--backbone-channels", "1"], 2, "--backbone-channels 1 needs gray pictures"),
]  # fmt: skip


@pytest.mark.parametrize(("save", "options", "code", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_what_would_be_no_true_bundle_is_refused(
    save: Any, options: list[str], code: int, sentence: str, theirs: nn.Module, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    save(tmp_path / "w.pt", theirs)
    said = [str(tmp_path / "w.pt"), "--model", NAME, "--out", str(tmp_path / "bundle"), *options]
    assert run_command(main, said if "--preprocess" in said else [*said, "--preprocess", "crop:64"]) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_classes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes("a\nb\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"classes\.txt is not UTF-8 text \(invalid start byte\); save it as UTF-8"):
        read_classes(str(tmp_path / "classes.txt"), NAME, "w.pt")


def test_one_output_is_the_sigmoid_of_the_second_class(theirs: nn.Module, pictures: Path, tmp_path: Path) -> None:
    save_single(tmp_path / "w.pt", theirs)
    options = ["--model", NAME, "--classes", "healthy,ill", "--preprocess", "crop:72:64", "--out", str(tmp_path / "b")]
    assert run_command(main, [str(tmp_path / "w.pt"), *options]) == 0
    bundle = Bundle.load(tmp_path / "b")
    image = bundle.prepare(next((pictures / "val" / "red").glob("*.png")).read_bytes())[None]
    with torch.inference_mode():
        logit = theirs((image / 255 - bundle.model.mean / 255) / (bundle.model.std / 255))[0, 0]
    answer = bundle.answer(*bundle.compute(image)[0])
    assert answer.probabilities["ill"] == pytest.approx(logit.sigmoid().item(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("googlenet", 96), ("inception_v3", 299)])
def test_auxiliary_heads_that_are_not_there_are_told(
    name: str, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchvision's googlenet with pretrained weights has none; answers need none."""
    model = torchvision.models.get_model(name, num_classes=3, aux_logits=False, init_weights=False)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    options = ["--model", name, "--classes", "a,b,c", "--preprocess", f"stretch:{size}"]
    for out in ("one", "two"):
        assert run_command(main, [str(tmp_path / "w.pt"), *options, "--out", str(tmp_path / out)]) == 0
    assert "auxiliary heads, which only training uses, are missing from it" in capsys.readouterr().out
    assert read_bundle_page(tmp_path / "one") == read_bundle_page(tmp_path / "two")


def test_of_a_bundle_all_is_taken_over_that_is_not_said(
    theirs: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What somebody would lose silently: gray pictures, letterbox, several labels, names."""
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    (tmp_path / "classes.txt").write_text("b,Blue\ng,Green\nr,Red\n", encoding="utf-8")
    more = ["--classes", str(tmp_path / "classes.txt"), "--channels", "1", "--task", "multi-label"]
    more += ["--preprocess", "letterbox:64", "--interpolation", "bicubic", "--normalise", "half"]
    first = read_bundle_page(make_bundle(tmp_path / "w.pt", tmp_path / "first", *more))
    store_decision(tmp_path / "first", Decision(rule="each", temperature=2.0))
    capsys.readouterr()
    assert run_command(main, [str(tmp_path / "first"), "--out", str(tmp_path / "second")]) == 0
    second = read_bundle_page(tmp_path / "second")
    assert second.model_dump(exclude={"origin"}) == first.model_dump(exclude={"origin"})
    assert (second.task, second.preprocess.channels, second.display_names) == (
        "multi-label",
        1,
        ["Blue", "Green", "Red"],
    )
    assert second.origin == f"bundle first, sha256 {first.weights_sha256}"
    assert "the bundle's decision is not copied" in capsys.readouterr().out


def test_of_a_bundle_what_is_said_counts(theirs: nn.Module, dataset_path: Path, tmp_path: Path) -> None:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    first = make_bundle(tmp_path / "w.pt", tmp_path / "first", "--dataset", str(dataset_path))
    more = ["--preprocess", "stretch:96", "--classes", "x,y,z"]
    assert run_command(main, [str(first), *more, "--out", str(tmp_path / "second")]) == 0
    old, page = read_bundle_page(first), read_bundle_page(tmp_path / "second")
    assert page.classes == page.display_names == ["x", "y", "z"]
    assert (page.preprocess.policy, page.preprocess.size, page.preprocess.resize) == ("stretch", 96, None)
    kept = ("rounding", "decode", "max_side", "interpolation")
    assert [getattr(page.preprocess, name) for name in kept] == [getattr(old.preprocess, name) for name in kept]
    assert (page.dataset, page.model) == (old.dataset, old.model)


def test_size_that_only_training_refuses_is_taken(tmp_path: Path) -> None:
    """The auxiliary head of inception_v3 needs 299 pixels; answers do not."""
    model = torchvision.models.get_model("inception_v3", num_classes=3, init_weights=False)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    argv = [str(tmp_path / "w.pt"), "--model", "inception_v3", "--classes", "a,b,c", "--preprocess", "stretch:96"]
    assert run_command(main, [*argv, "--out", str(tmp_path / "bundle")]) == 0


def test_file_does_not_say_its_model(theirs: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    assert run_command(main, [str(tmp_path / "w.pt"), "--classes", "a,b,c"]) == 2
    assert "w.pt is not a bundle, so its model is unknown; give --model" in capsys.readouterr().err


def test_folder_that_is_there_is_left_alone(
    theirs: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    argv = [str(tmp_path / "w.pt"), "--model", NAME, "--classes", "a,b,c", "--out", str(tmp_path / "mine")]
    assert run_command(main, argv) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/mine exists; choose another --out, or delete it first\n"
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_command_line_makes_a_bundle_beside_the_caller(theirs: nn.Module, tmp_path: Path) -> None:
    torch.save(theirs.state_dict(), tmp_path / "net.pth.tar.epoch_3")
    command = [
        sys.executable,
        "-m",
        "trainer.bundle",
        str(tmp_path / "net.pth.tar.epoch_3"),
        "--model",
        "shufflenet_v2_x0_5",
    ]
    command += ["--classes", "a,b,c", "--preprocess", "letterbox:64", "--json"]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["bundle"], said["tensors"]) == ("bundles/net", len(theirs.state_dict()))
    assert Bundle.load(tmp_path / "bundles" / "net").page.preprocess.policy == "letterbox"
