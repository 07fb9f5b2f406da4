"""Exports: files that other programs read, and what they are compared with before they are there."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import make_bundle
from decisions import DECISIONS, compare
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from odd_pictures import LEFT_OUT, UNREAD, write_odd
from PIL import Image

import trainer.decide.__main__ as trainer_decide
import trainer.export.__main__ as trainer_export
from cluster.serve.api import build_api
from cluster.serve.models import Served
from cluster.serve.options import read_options
from cluster.serve.predictor import Predictor
from cluster.serve.rollout import Rollout
from shards.cli.ending import run_command
from shards.errors import ShardError
from shards.pictures.decode import DecodeOptions
from trainer.contract.bundle import Bundle, read_bundle_page
from trainer.contract.compute.exported import (
    BESIDE,
    ExportPage,
    default_path,
    detector_path,
    find_onnx,
    page_path,
    script_path,
)
from trainer.contract.compute.outputs import FeatureClassifier
from trainer.contract.compute.parity import compare as compare_logits
from trainer.contract.compute.parity import require_parity
from trainer.contract.decision.decision import Decision
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.model.names import EXPORT_KINDS, ExportKind
from trainer.contract.preprocess import PreprocessSpec
from trainer.export.__main__ import main
from trainer.export.explanation import describe_steps
from trainer.export.export import describe_export, export, export_bundle
from trainer.export.options import ExportOptions
from trainer.export.script import join_script
from trainer.export.writers import EMBEDDED, open_model


@pytest.fixture(scope="module")
def bundle(exported_path: Path) -> Bundle:
    return Bundle.load(exported_path)


@pytest.fixture(scope="module")
def files(pictures: Path) -> list[Path]:
    return sorted((pictures / "test").glob("*/*"))


def prepare_as_described(path: Path, spec: dict[str, Any]) -> NDArray[np.uint8]:
    """Return uint8[1, 3, S, S] by the fields of an export's `preprocess`, with Pillow and numpy alone."""
    assert (spec["policy"], spec["channels"]) == ("crop", 3)
    image = Image.open(path).convert("RGB")
    kind = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[spec["interpolation"]]
    width, height = (max(spec["resize"], int(spec["resize"] * side / min(image.size))) for side in image.size)
    image = image.resize((width, height), kind)  # Pillow always antialiases
    left, top = round((width - spec["size"]) / 2), round((height - spec["size"]) / 2)
    image = image.crop((left, top, left + spec["size"], top + spec["size"]))
    return np.asarray(image).transpose(2, 0, 1)[None]


def test_a_program_that_knows_nothing_of_us_gives_the_same_labels(exported_path: Path, files: list[Path]) -> None:
    session = onnxruntime.InferenceSession(str(default_path(exported_path, "onnx")))
    said = session.get_modelmeta().custom_metadata_map
    classes, spec, images = json.loads(said["classes"]), json.loads(said["preprocess"]), json.loads(said["inputs"])[0]
    bundle = Bundle.load(exported_path)
    margins = []
    for path in files:
        logits, _ = session.run(None, {images["name"]: prepare_as_described(path, spec)})
        answer = bundle.answer(bundle.compute_logits(bundle.prepare(path.read_bytes())[None])[0])
        assert classes[logits[0].argmax()] == answer.label
        # Two programs round a pixel differently: within 1 or 2 of 255.
        np.testing.assert_allclose(logits[0], answer.logits, atol=0.02 * np.abs(answer.logits).max())
        margins.append(np.ptp(answer.logits) / np.abs(answer.logits).max())
    assert min(margins) > 0.1  # or the labels would say little


@pytest.mark.parametrize("batch", [1, 3, 8, 11])
def test_the_onnx_file_takes_batches_of_any_size(exported_path: Path, bundle: Bundle, batch: int) -> None:
    session = onnxruntime.InferenceSession(str(default_path(exported_path, "onnx")))
    images = torch.randint(0, 256, (batch, 3, 40, 40), dtype=torch.uint8)
    logits, features = session.run(["logits", "features"], {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), bundle.compute_logits(images), rtol=1e-4, atol=1e-5)
    head: Any = bundle.model.backbone.get_submodule("fc")
    torch.testing.assert_close(head(torch.from_numpy(features)), torch.from_numpy(logits), rtol=1e-4, atol=1e-5)
    assert session.get_inputs()[0].shape == ["batch", 3, 40, 40]
    assert session.get_inputs()[0].type == "tensor(uint8)"


def test_the_page_beside_the_file_says_what_the_bundle_says(exported_path: Path, bundle: Bundle) -> None:
    file = default_path(exported_path, "onnx")
    page = json.loads(page_path(file).read_bytes())
    recorded = json.loads((exported_path / "bundle.json").read_bytes())
    for name in ("classes", "display_names", "decision", "preprocess", "model", "dataset", "recipe", "weights_sha256"):
        assert page[name] == recorded[name]
    assert page["bundle"] == bundle.page.fingerprint()
    assert page["outputs"][1]["shape"] == ["batch", bundle.model.backbone.get_submodule("fc").in_features]
    assert page["parity"]["probes"]["top1_agreement"] == 1
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.onnx", "model.onnx.json", "model.onnx.py"]
    embedded = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    assert json.loads(embedded["steps"]) == page["steps"]
    assert json.loads(embedded["answer_steps"]) == page["answer_steps"]


def read_torch_export_page(path: Path) -> str:
    inside = {EMBEDDED: ""}
    with open(path, "rb") as file:
        torch.export.load(file, extra_files=inside)
    return inside[EMBEDDED]


def read_torchscript_page(path: Path) -> str:
    inside = {EMBEDDED: ""}
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # TorchScript is deprecated
        torch.jit.load(str(path), _extra_files=inside)
    return inside[EMBEDDED]


@pytest.mark.parametrize(
    ("kind", "read_page"), [("torch-export", read_torch_export_page), ("torchscript", read_torchscript_page)]
)
def test_torchs_own_formats_give_the_logits_of_the_bundle(
    exported_path: Path,
    bundle: Bundle,
    files: list[Path],
    tmp_path: Path,
    kind: ExportKind,
    read_page: Callable[[Path], str],
) -> None:
    page = export_bundle(exported_path, kind, tmp_path / "model")
    compute = open_model(kind, tmp_path / "model")
    for batch in (1, 5):
        images = torch.stack([bundle.prepare(path.read_bytes()) for path in files[:batch]])
        logits, features = compute(images)
        torch.testing.assert_close(logits, bundle.compute_logits(images), rtol=1e-4, atol=1e-5)
        assert features.shape == (batch, page.outputs[1].shape[1])
    assert page.parity["probes"].max_dp < 1e-5
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # TorchScript is deprecated
        model = load_program(tmp_path / "model").Exported(page_path(tmp_path / "model"))
    [said] = ask_endpoint(bundle, files[:1])
    assert compare(model.answer(files[0].read_bytes()), said) < 1e-3
    assert json.loads(read_page(tmp_path / "model")) == page.model_dump(mode="json", exclude=set(BESIDE))


def test_an_export_past_the_tolerance_is_refused_and_what_was_there_stays(
    exported_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(exported_path, tmp_path / "bundle"))
    before = {path: path.read_bytes() for path in (folder / "exports").iterdir()}
    assert run_command(main, [str(folder), "--to", "onnx", "--tolerance", "0"]) == 3
    assert "; the limit of |dp| is 0" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (folder / "exports").iterdir()} == before


def test_a_refused_export_leaves_nothing(
    exported_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "new" / "model.pt"
    arguments = [str(exported_path), "--to", "torchscript", "--data", str(tmp_path), "--out", str(out)]
    assert run_command(main, arguments) == 3
    assert f"none of 1 pictures of {tmp_path} can be decoded" in capsys.readouterr().err
    assert not out.parent.exists()


def test_other_weights_are_past_the_tolerance(bundle: Bundle, files: list[Path]) -> None:
    images = torch.stack([bundle.prepare(path.read_bytes()) for path in files])
    expected = bundle.compute_logits(images)
    other = FeatureClassifier(bundle.model)
    with torch.no_grad():
        other.classifier.backbone.get_submodule("fc").weight.data = (  # type: ignore[union-attr]
            bundle.model.backbone.get_submodule("fc").weight * 1.02  # type: ignore[operator]
        )
        actual, _ = other(images)
    assert torch.equal(bundle.compute_logits(images), expected)  # it shares tensors, and none was changed
    with pytest.raises(ShardError, match=r"the copy differs from the bundle: max \|dp\| .* limit of \|dp\| is 0.001"):
        require_parity(actual, expected, 1e-3, "the copy")
    assert require_parity(expected, expected, 0, "itself").max_dp == 0


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ShardError, match="not finite"):
        compare_logits(torch.tensor([[0.0, float("nan")]]), torch.zeros(1, 2))


def test_python_exports_a_bundle_and_nothing_is_printed(
    exported_path: Path, dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scripted.pt"
    done = export(ExportOptions(bundle=exported_path, to="torchscript", data=dataset_path, samples=3, out=out))
    assert done.file == out
    assert done.page == ExportPage.model_validate_json(page_path(out).read_bytes())
    assert {source: parity.pictures for source, parity in done.page.parity.items()} == {
        "probes": 8,
        f"{dataset_path}:val": 3,
    }
    assert capsys.readouterr().out == ""


def test_parity_on_validation_pictures_is_told(
    exported_path: Path, dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scripted.pt"
    arguments = [str(exported_path), "--to", "torchscript", "--data", str(dataset_path), "--samples", "20"]
    assert run_command(main, [*arguments, "--out", str(out), "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page == json.loads(page_path(out).read_bytes())
    assert {source: parity["pictures"] for source, parity in page["parity"].items()} == {
        "probes": 8,
        f"{dataset_path}:val": 20,
    }


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--data", "nowhere"], 2, "no such picture or folder: nowhere"),
        (["--data", "nowhere:val"], 2, "nowhere is not a dataset (it has no dataset.json), so it has no split val"),
        (["--samples", "0"], 2, "--samples is a number of pictures and must be at least 1, got 0"),
        (["--tolerance", "2"], 2, "--tolerance is a difference of probabilities, in [0, 1], got 2.0"),
    ],
)
def test_a_mistake_of_the_caller_is_one_sentence(
    exported_path: Path, more: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [str(exported_path), "--to", "torchscript", *more]) == code
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_a_missing_library_is_one_sentence(
    exported_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert run_command(main, [str(exported_path), "--to", "onnx"]) == 2
    sentence = "--to onnx needs onnxscript, not installed here: pip install 'shardline[onnx]'"
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_a_file_of_other_weights_or_a_damaged_one_is_refused(exported_path: Path, tmp_path: Path) -> None:
    weights = read_bundle_page(exported_path).weights_sha256
    assert find_onnx(exported_path, weights) == default_path(exported_path, "onnx")
    assert find_onnx(tmp_path, weights) is None
    with pytest.raises(ShardError, match=r"model.onnx was exported from other weights than the bundle has; export"):
        find_onnx(exported_path, "0" * 64)
    folder = Path(shutil.copytree(exported_path, tmp_path / "bundle"))
    with open(default_path(folder, "onnx"), "ab") as file:
        file.write(b"x")
    with pytest.raises(ShardError, match=r"sha256 differs from model.onnx.json beside it"):
        find_onnx(folder, weights)


def test_a_page_of_an_earlier_program_opens_as_before(exported_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported_path, tmp_path / "bundle"))
    beside = page_path(default_path(folder, "onnx"))
    page = json.loads(beside.read_bytes())
    beside.write_text(json.dumps({name: page[name] for name in page.keys() - {"script", "detector", "answer_steps"}}))
    assert find_onnx(folder, page["weights_sha256"]) == default_path(folder, "onnx")


def test_a_decision_changed_after_an_export_is_said_with_the_command_that_exports_again(
    exported_path: Path, dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(exported_path, tmp_path / "bundle"))
    trainer_decide.main([str(folder), "--show"])
    assert "export again" not in capsys.readouterr().out
    fit = [str(folder), str(dataset_path), "--no-temperature", "--abstain-below", "0.5"]
    for command in (fit, [str(folder), "--show"]):
        trainer_decide.main(command)
        note = f"note: {folder}/exports/model.onnx and its program use another decision than the bundle now has"
        told = capsys.readouterr().out
        assert note in told
    remedy = next(line for line in told.splitlines() if line.startswith(note)).partition("trainer.export ")[2]
    assert trainer_export.main(remedy.split(" ")) == 0
    capsys.readouterr()
    trainer_decide.main([str(folder), "--show"])
    assert "export again" not in capsys.readouterr().out


def test_exports_leave_the_bundles_identity_alone(exported_path: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(exported_path, tmp_path / "bundle"))
    shutil.rmtree(bare / "exports")
    assert read_bundle_page(bare).fingerprint() == read_bundle_page(exported_path).fingerprint()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (PreprocessSpec(size=8, policy="letterbox", fill=7), "pad to a square of 8 pixels with the value 7"),
        (
            PreprocessSpec(size=8, channels=1),
            "0.2989 R + 0.587 G + 0.114 B, 32-bit floats, rounded down",
        ),
        (PreprocessSpec(size=8, interpolation="bicubic"), "the cubic with a = -0.5"),
        (PreprocessSpec(size=8, policy="crop", resize=9, rounding="down"), "longer one in proportion, rounded down"),
        (PreprocessSpec(size=8, max_side=512), "longer side is above 512 pixels: each side times 512 / longer side"),
        (PreprocessSpec(size=8, max_side=512), "as Pillow's resize(..., LANCZOS, reducing_gap=2.0)"),
        (PreprocessSpec(size=8, decode=DecodeOptions(gray_range=(0, 4095))), "LO..HI is 0..4095"),
        (
            PreprocessSpec(size=8, decode=DecodeOptions(background=(1, 2, 3))),
            "transparency is composited over RGB (1, 2, 3)",
        ),
        (PreprocessSpec(size=8, decode=DecodeOptions(frames="refuse")), "reject several frames or pages"),
        (PreprocessSpec(size=8, decode=DecodeOptions(max_pixels=5000)), "with more than 5,000 pixels"),
    ],
)
def test_every_choice_of_preprocessing_is_in_the_words(spec: PreprocessSpec, words: str) -> None:
    assert words in " / ".join(describe_steps(spec))
    assert words not in " / ".join(describe_steps(PreprocessSpec(size=8)))


@pytest.mark.parametrize("name", ["squeezenet1_1", "vit_b_32"])
def test_features_are_what_the_head_gets(name: str) -> None:
    model = Classifier(ModelSpec(name=name, num_classes=3, image_size=32 if name.startswith("vit") else None)).eval()
    logits, features = FeatureClassifier(model)(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert features.shape == {"squeezenet1_1": (2, 512), "vit_b_32": (2, 768)}[name]
    assert logits.shape == (2, 3)


@pytest.fixture(scope="module")
def googlenet_path(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("googlenet") / "bundle"
    return make_bundle(folder, pictures, "googlenet", PreprocessSpec(size=64))


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_a_model_with_auxiliary_heads_exports_its_own_logits_alone(
    googlenet_path: Path, tmp_path: Path, kind: ExportKind
) -> None:
    page = export_bundle(googlenet_path, kind, tmp_path / "model")
    assert [tensor.name for tensor in page.outputs] == ["logits", "features"]
    assert page.outputs[0].shape == ["batch", 3]


BLOCKED = {"torch", "torchvision", "timm", "shards", "trainer", "cluster", "pydantic", "safetensors", "scipy", "xxhash"}
RUNNER = f"""
import importlib.util, json, os, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"no {{name}} here", name=name)

sys.meta_path.insert(0, Block())
scripts, pictures = json.loads(sys.stdin.read())
for script in scripts:
    spec = importlib.util.spec_from_file_location("program", script)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    print(program.main(pictures))
foreign = {{name.partition(".")[0] for name, module in sys.modules.items()
           if "site-packages" in str(getattr(module, "__file__", ""))}}
print(*sorted(name for name in foreign if not name.startswith("_")))
"""


def answer_alone(scripts: list[Path], pictures: list[Path]) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """Return the answers of each program to each picture in a fresh interpreter, and the libraries that were loaded."""
    asked = json.dumps([list(map(str, scripts)), list(map(str, pictures))])
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUNNER], input=asked, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    *lines, libraries = done.stdout.splitlines()
    step = len(pictures) + 1  # and the exit code
    said = [lines[start : start + step] for start in range(0, len(lines), step)]
    assert {code for *_, code in said} == {"3"}  # some were refused
    return [[json.loads(line) for line in answers] for *answers, _ in said], libraries.split()


def ask_endpoint(bundle: Bundle, pictures: list[Path]) -> list[dict[str, Any]]:
    """Return what the endpoint's pages answer to each picture, Ray Serve's proxy left out."""
    fingerprint = bundle.page.fingerprint()
    predictor = Predictor(read_options({"bundle": "/nowhere", "max_waiting": 10_000}))
    predictor._models._loaded = {"here": Served("here", bundle, "computes with eager", fingerprint)}
    predictor._models._rollout = Rollout(bundle="here")
    predictor._has_model.set()

    client = TestClient(build_api(predictor))
    answers = [client.post("/v1/predict", content=path.read_bytes()).json() for path in pictures]
    return [{name: value for name, value in each.items() if name != "timings"} for each in answers]


def assert_equal_answers(alone: list[dict[str, Any]], asked: list[dict[str, Any]]) -> int:
    """Refuse another answer or refusal; return how many pictures were answered."""
    answered = 0
    for one, other in zip(alone, asked, strict=True):
        name = Path(one.pop("path")).name
        if "detail" in other or name in LEFT_OUT:
            assert one.keys() == {"error"}, name
            assert name not in LEFT_OUT or UNREAD in one["error"]
        else:
            answered += 1
            assert compare(one, other) < 1e-3, name
    return answered


def vary(export: Path, bundle: Bundle, folder: Path, preprocess: PreprocessSpec, decided: Decision) -> Bundle:
    """Write the export as it is of the same model with another page, and return the bundle of that page."""
    task = "multi-label" if decided.rule == "each" else "single-label"
    page = bundle.page.model_copy(update={"preprocess": preprocess, "decision": decided, "task": task})
    varied = Bundle(page, bundle.model, bundle.device, detector=bundle.detector if decided.ood else None)
    exported = ExportPage.model_validate_json(page_path(export).read_bytes())
    facts = {name: getattr(exported, name) for name in BESIDE}
    folder.mkdir()
    for path in (export, script_path(export)):
        os.link(path, folder / path.name)
    if decided.ood:
        os.link(export.parent.parent / decided.ood.file, detector_path(folder / export.name))
        facts["detector"] = detector_path(export).name
    described = describe_export(varied, "onnx", exported.outputs[1].shape[1]).model_copy(update=facts)
    page_path(folder / export.name).write_text(described.model_dump_json())
    return varied


@pytest.fixture(scope="module")
def gray_path(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one channel with its export."""
    folder = tmp_path_factory.mktemp("gray") / "bundle"
    make_bundle(folder, pictures, "timm/test_resnet", PreprocessSpec(size=40, channels=1))
    export_bundle(folder, "onnx", default_path(folder, "onnx"))
    return folder


FITS: list[dict[str, Any]] = [
    {"policy": "stretch"},
    {"policy": "crop", "resize": 48, "rounding": "down"},
    {"policy": "letterbox", "fill": 7},
]


@pytest.fixture(scope="module")
def decided_path(exported_path: Path, dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported bundle with another decision, one that scores pictures; its export says nothing of it."""
    out = tmp_path_factory.mktemp("decided") / "bundle"
    wish = ["--point", "recall>=0.5", "--positive", "red", "--conformal", "0.8", "--ood", "0.9"]
    assert run_command(trainer_decide.main, [str(exported_path), str(dataset_path), *wish, "--out", str(out)]) == 0
    return out


def test_the_program_meets_the_endpoint_on_every_odd_picture(
    exported_path: Path, gray_path: Path, decided_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "odd").mkdir()
    odd = write_odd(tmp_path / "odd")
    loaded = {channels: (path, Bundle.load(path)) for channels, path in ((1, gray_path), (3, decided_path))}
    decisions = itertools.cycle([*DECISIONS.values(), loaded[3][1].page.decision])
    bundles, scripts = [], []
    kinds = itertools.cycle(("bilinear", "bicubic"))
    for channels, fit in itertools.product((3, 1), FITS):
        kind = next(kinds)
        max_side = (None, 90)[len(bundles) % 2]  # every other one
        source, bundle = loaded[channels]
        spec = PreprocessSpec(size=40, channels=channels, interpolation=kind, max_side=max_side, **fit)
        decided = next(each for each in decisions if channels == 3 or not each.ood)
        export, folder = default_path(source, "onnx"), tmp_path / f"{len(bundles)}"
        bundles.append(vary(export, bundle, folder, spec, decided))
        scripts.append(script_path(folder / export.name))
    answers, libraries = answer_alone(scripts, odd)
    assert set(libraries) - {"coverage"} == {"PIL", "numpy", "onnxruntime"}  # make coverage looks on
    for alone, bundle in zip(answers, bundles, strict=True):
        asked = ask_endpoint(bundle, odd)
        assert assert_equal_answers(alone, asked) >= 60
        spread = np.std([list(one["probabilities"].values()) for one in asked if "detail" not in one], axis=0)
        assert spread.max() > 0.02  # or the answers would say little


def load_program(export: Path) -> Any:
    """Return the program beside an export as a module."""
    spec = importlib.util.spec_from_file_location("program", script_path(export))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shrink_by_bicubic(pixels: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def resize_without_antialias(pixels: NDArray[np.uint8], height: int, width: int, kind: str) -> NDArray[np.uint8]:
    grids = (np.arange(new) * old // new for new, old in zip((height, width), pixels.shape, strict=False))
    return pixels[np.ix_(*grids)]


def test_another_shrink_or_resize_would_miss_the_endpoint(
    exported_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison above can fail: what users write in the place of these steps gives other answers."""
    (tmp_path / "odd").mkdir()
    odd = [path for path in write_odd(tmp_path / "odd") if path.name == "big.jpg"]
    spec = PreprocessSpec(size=40, max_side=90, channels=3)
    export = default_path(exported_path, "onnx")
    bundle = vary(export, Bundle.load(exported_path), tmp_path / "varied", spec, DECISIONS["threshold"])
    program = load_program(tmp_path / "varied" / export.name)
    [asked] = ask_endpoint(bundle, odd)

    def answer() -> dict[str, Any]:
        model = program.Exported(page_path(tmp_path / "varied" / export.name))
        said: dict[str, Any] = model.answer(odd[0].read_bytes())
        return said

    assert compare(answer(), asked) < 1e-3
    for name, other in (("shrink", shrink_by_bicubic), ("resize", resize_without_antialias)):
        with monkeypatch.context() as patched:
            patched.setattr(program, name, other)
            assert compare(answer(), asked) > 1e-3, name


def test_the_scores_numbers_are_beside_an_export_as_long_as_its_decision_needs_them(
    decided_path: Path, files: list[Path], tmp_path: Path
) -> None:
    folder, out = Path(shutil.copytree(decided_path, tmp_path / "bundle")), tmp_path / "out" / "model.pt"
    page = export_bundle(folder, "torchscript", out)
    assert (page.script, page.detector) == ("model.pt.py", "model.pt.ood.safetensors")
    assert (out.parent / "model.pt.ood.safetensors").is_file()
    assert page.decision.rule == "threshold"
    bundle = Bundle.load(folder)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # TorchScript is deprecated
        model = load_program(out).Exported(page_path(out))
    asked = ask_endpoint(bundle, files)
    assert max(compare(model.answer(path.read_bytes()), said) for path, said in zip(files, asked, strict=True)) < 1e-3
    assert run_command(trainer_decide.main, [str(folder), "--reset"]) == 0
    assert export_bundle(folder, "torchscript", out).detector is None
    assert sorted(path.name for path in out.parent.glob("model*")) == ["model.pt", "model.pt.json", "model.pt.py"]


def test_the_program_is_one_file_that_every_export_has(exported_path: Path, files: list[Path]) -> None:
    export = default_path(exported_path, "onnx")
    assert script_path(export).read_text(encoding="utf-8") == join_script()
    assert json.loads(page_path(export).read_bytes())["script"] == script_path(export).name


def test_what_the_program_cannot_do_is_a_sentence(
    exported_path: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(exported_path / "exports", tmp_path / "there"))
    export = folder / "model.onnx"
    program = load_program(export)
    assert program.main([]) == 2
    assert "python FILE.py PICTURE..." in capsys.readouterr().out
    assert program.main([str(files[0]), str(tmp_path / "gone.png")]) == 3
    answered, refused = map(json.loads, capsys.readouterr().out.splitlines())
    assert answered["label"] in answered["probabilities"]
    assert "No such file" in refused["error"]
    with open(export, "ab") as file:
        file.write(b"x")
    assert program.main([str(files[0])]) == 2
    assert "model.onnx is not the file that the metadata names" in capsys.readouterr().err
    page_path(export).unlink()
    assert program.main([str(files[0])]) == 2
    assert "the export beside this program cannot be opened" in capsys.readouterr().err
