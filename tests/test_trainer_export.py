"""Exports: files that other programs read, and what they are compared with before they are there."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import make_bundle
from numpy.typing import NDArray
from PIL import Image

from shards.command import run_command
from shards.errors import ShardError
from trainer.contract.bundle import Bundle, read_bundle_page
from trainer.contract.exported import default_path, describe_steps, find_onnx, page_path
from trainer.contract.model import Classifier, ModelSpec
from trainer.contract.names import EXPORT_KINDS, ExportKind
from trainer.contract.outputs import FeatureClassifier
from trainer.contract.parity import compare, require_parity
from trainer.contract.preprocess import PreprocessSpec
from trainer.deploy.export import export_bundle
from trainer.deploy.writers import EMBEDDED, open_model
from trainer.export import main


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
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    embedded = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    assert {json.loads(embedded["steps"])[number] for number in range(4)} == set(page["steps"])


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
    assert json.loads(read_page(tmp_path / "model")) == page.model_dump(
        mode="json", exclude={"file", "sha256", "parity"}
    )


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
        compare(torch.tensor([[0.0, float("nan")]]), torch.zeros(1, 2))


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
        (["--data", "nowhere:val"], 2, "nowhere is no dataset (it has no dataset.json), so it has no part val"),
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


def test_exports_leave_the_bundles_identity_alone(exported_path: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(exported_path, tmp_path / "bundle"))
    shutil.rmtree(bare / "exports")
    assert read_bundle_page(bare).fingerprint() == read_bundle_page(exported_path).fingerprint()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (PreprocessSpec(size=8, policy="letterbox", fill=7), "pad to a square of 8 pixels with the value 7"),
        (PreprocessSpec(size=8, channels=1), "take the luminance"),
        (PreprocessSpec(size=8, policy="crop", resize=9, rounding="down"), "longer one in proportion, rounded down"),
        (PreprocessSpec(size=8, max_side=512), "longer side is above 512 pixels"),
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
