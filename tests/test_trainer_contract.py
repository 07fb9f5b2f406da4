"""What serving shares with training: geometry, classifier, bundle, probes."""

from __future__ import annotations

import io
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data import jpeg2000
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import v2

from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_file, fingerprint_json
from shards.packing.encode import StoreOptions, store_picture
from shards.pictures.decoding import VERSION as DECODING
from trainer.contract.bundle import Bundle, read_bundle_page, save_bundle
from trainer.contract.decision.decision import Decision, answer
from trainer.contract.model.backbone import build_backbone
from trainer.contract.model.head import find_head
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec, apply_geometry, prepare, take_luminance
from trainer.contract.probes import TENSORS, synthesise_pictures

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores


def make_ramp(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Red rises downwards, green rises to the right, blue is 200."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 // (height - 1), x * 255 // (width - 1), np.full_like(x, 200)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("policy", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (33, 33), (5, 300), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_becomes_the_square_that_the_model_takes(
    policy: str, shape: tuple[int, int], channels: int
) -> None:
    spec = PreprocessSpec.model_validate({"size": 32, "policy": policy, "channels": channels})
    image = apply_geometry(np.full((*shape, 3), 7, np.uint8), spec)
    assert (image.dtype, image.shape, image.is_contiguous()) == (torch.uint8, (channels, 32, 32), True)


def test_stretch_keeps_all_four_edges() -> None:
    image = apply_geometry(make_ramp(64, 128), PreprocessSpec(size=32)).int()
    assert image[0, 0].max() < 10
    assert image[0, -1].min() > 245
    assert image[1, :, 0].max() < 10
    assert image[1, :, -1].min() > 245


def test_crop_takes_the_centre_of_the_longer_side() -> None:
    """Of 128 columns at half size the middle 32 of 64 remain: green from a quarter to three quarters."""
    image = apply_geometry(make_ramp(64, 128), PreprocessSpec(size=32, policy="crop")).int()
    assert (int(image[1, 16, 0]), int(image[1, 16, -1])) == pytest.approx((255 / 4, 255 * 3 / 4), abs=3)
    assert (int(image[0, 0, 16]), int(image[0, -1, 16])) == pytest.approx((0, 255), abs=5)


def test_crop_after_a_larger_resize_takes_the_centre_of_both_sides() -> None:
    image = apply_geometry(make_ramp(64, 64), PreprocessSpec(size=32, policy="crop", resize=64)).int()
    assert torch.equal(image, torch.from_numpy(make_ramp(64, 64)).permute(2, 0, 1)[:, 16:48, 16:48].int())


@pytest.mark.parametrize("shape", [(40, 57), (57, 40), (48, 50), (300, 399), (31, 97)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_rounded_down_is_torchvision_s_resize_and_centre_crop(shape: tuple[int, int], interpolation: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    sizes = {"size": 64, "policy": "crop", "resize": 72, "rounding": "down", "interpolation": interpolation}
    mode = v2.InterpolationMode(interpolation)
    theirs = v2.Compose([v2.Resize(72, mode, antialias=True), v2.CenterCrop(64)])
    expected = theirs(torch.from_numpy(pixels).permute(2, 0, 1))
    assert torch.equal(apply_geometry(pixels, PreprocessSpec.model_validate(sizes)), expected)


@pytest.mark.parametrize(("rows", "columns"), [(1, 60_000), (60_000, 1), (2, 3_001)])
def test_crop_of_a_very_long_picture_is_its_middle_in_little_memory(rows: int, columns: int) -> None:
    pixels = np.zeros((rows, columns, 3), np.uint8)
    middle = pixels[rows // 2 - 1 :][:2] if rows > columns else pixels[:, (columns - 1) // 2 :][:, :2]
    middle[:] = 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    image = apply_geometry(pixels, PreprocessSpec(size=64, policy="crop"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert int(image.max()) == 200
    assert image.shape == (3, 64, 64)


def test_letterbox_pads_above_and_below_a_wide_picture() -> None:
    spec = PreprocessSpec(size=32, policy="letterbox", fill=9)
    image = apply_geometry(np.full((25, 100, 3), 200, np.uint8), spec)
    rows = image[0].float().mean(dim=1)
    assert rows.tolist() == [9.0] * 12 + [200.0] * 8 + [9.0] * 12


def test_letterbox_pads_left_and_right_of_a_high_picture() -> None:
    spec = PreprocessSpec(size=32, policy="letterbox", fill=9)
    image = apply_geometry(np.full((100, 25, 3), 200, np.uint8), spec)
    columns = image[0].float().mean(dim=0)
    assert columns.tolist() == [9.0] * 12 + [200.0] * 8 + [9.0] * 12


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("policy", ["stretch", "crop", "letterbox"])
def test_fine_checkerboard_becomes_gray(policy: str, interpolation: str) -> None:
    """Without antialiasing it becomes black, white, or a moire of both."""
    board = (np.indices((320, 320)).sum(axis=0) % 2 * 255).astype(np.uint8)
    spec = PreprocessSpec.model_validate({"size": 32, "policy": policy, "interpolation": interpolation})
    image = apply_geometry(np.stack([board] * 3, axis=2), spec).int()
    assert (int(image.min()), int(image.max())) == pytest.approx((127, 127), abs=3)


def test_bicubic_is_not_bilinear() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    bilinear, bicubic = (
        apply_geometry(noise, PreprocessSpec.model_validate({"size": 32, "interpolation": name}))
        for name in ("bilinear", "bicubic")
    )
    assert not torch.equal(bilinear, bicubic)


@pytest.mark.parametrize(("colour", "luminance"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_one_channel_is_the_luminance_of_itu_r_601(colour: tuple[int, int, int], luminance: int) -> None:
    pixels = np.full((40, 40, 3), colour, np.uint8)
    image = apply_geometry(pixels, PreprocessSpec(size=32, channels=1))
    assert image.float().mean() == pytest.approx(luminance, abs=1)


def test_luminance_of_the_second_rule_is_that_of_pillow_for_every_colour_and_keeps_gray() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels[0], pixels[1, :, 0] = 255, 0
    spec = PreprocessSpec(size=64, channels=1, luminance=2)
    np.testing.assert_array_equal(apply_geometry(pixels, spec)[0], np.asarray(Image.fromarray(pixels).convert("L")))
    grays = np.arange(64 * 64).reshape(64, 64, 1).repeat(3, axis=2) % 256
    np.testing.assert_array_equal(apply_geometry(grays.astype(np.uint8), spec)[0], grays[:, :, 0])


def test_luminance_of_the_first_rule_is_cut_off_as_it_was() -> None:
    white = np.full((32, 32, 3), 255, np.uint8)
    assert apply_geometry(white, PreprocessSpec(size=32, channels=1)).unique().tolist() == [254]


@pytest.mark.parametrize("rule", [1, 2])
def test_luminance_of_floats_follows_the_same_rule_and_one_channel_is_luminance(rule: Any) -> None:
    bytes_ = torch.from_numpy(np.random.default_rng(4).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8))
    whole, exact = take_luminance(bytes_, rule).float(), take_luminance(bytes_.float(), rule)
    assert (whole - exact).abs().max() <= (1 if rule == 1 else 0.5001)
    gray = bytes_[:, :1]
    assert torch.equal(take_luminance(gray, rule), gray)


def test_page_says_the_rule_of_luminance_where_it_is_not_the_first(classifier: Classifier) -> None:
    """Bundles of earlier versions do not say it, and earlier versions read bundles that do not."""
    first, second = (PreprocessSpec(size=32, channels=1, luminance=rule) for rule in (1, 2))
    assert "luminance" not in first.model_dump(mode="json")
    assert second.model_dump(mode="json")["luminance"] == 2
    for spec in (first, second):
        assert PreprocessSpec.model_validate_json(spec.model_dump_json()) == spec


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(ModelSpec(name="timm/test_efficientnet", num_classes=3, mean=MEAN, std=STD)).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8))


@torch.inference_mode()
def test_normalisation_is_that_of_the_textbook(classifier: Classifier, images: torch.Tensor) -> None:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    by_hand = classifier.backbone((images.float() / 255 - mean) / std)
    torch.testing.assert_close(classifier(images), by_hand, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_floats_of_0_to_255_give_what_bytes_give(classifier: Classifier, images: torch.Tensor) -> None:
    assert torch.equal(classifier(images.float()), classifier(images))


@torch.inference_mode()
def test_gray_picture_gives_what_three_equal_channels_give(classifier: Classifier, images: torch.Tensor) -> None:
    gray = images[:, :1]
    assert torch.equal(classifier(gray), classifier(gray.expand(-1, 3, -1, -1).contiguous()))


HEADS = {
    "resnet18": "fc",
    "shufflenet_v2_x0_5": "fc",
    "mobilenet_v3_small": "classifier.3",
    "squeezenet1_1": "classifier.1",
    "densenet121": "classifier",
    "vit_b_32": "heads.head",
    "timm/test_efficientnet": "classifier",
    "timm/test_resnet": "fc",
    "timm/test_convnext": "head.fc",
    "timm/test_vit": "head",
}


@pytest.mark.parametrize("name", HEADS)
def test_head_is_found(name: str) -> None:
    with torch.device("meta"):
        assert find_head(build_backbone(name, 7)) == HEADS[name]


@pytest.mark.parametrize("name", HEADS)
def test_head_has_an_output_for_each_class(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, 7)
        assert next(backbone.get_submodule(find_head(backbone)).parameters()).shape[0] == 7


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet81", "no model 'resnet81': did you mean 'resnet18' or "),
        ("timm/resnet81", "no model 'timm/resnet81': did you mean 'timm/resnet18' or "),
        ("?", "no model '?': names are torchvision builders (resnet18) or timm/NAME"),
        ("fcn_resnet50", "no model 'fcn_resnet50': did you mean "),
    ],
)
def test_unknown_model_is_refused_with_near_names(name: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_backbone(name, 2)
    assert str(caught.value).startswith(sentence)


def test_answer_is_the_class_of_the_largest_logit() -> None:
    said = answer(torch.tensor([0.0, 2.0, 1.0]), ["a", "b", "c"], Decision())
    assert (said.label, said.probability) == ("b", pytest.approx(0.665241, abs=1e-6))


def test_probabilities_of_an_answer_sum_to_one() -> None:
    said = answer(torch.tensor([30.0, -2.0, 1.0]), ["a", "b", "c"], Decision())
    assert sum(said.probabilities.values()) == pytest.approx(1)


def test_lower_class_number_wins_a_tie() -> None:
    assert answer(torch.tensor([1.0, 3.0, 3.0]), ["a", "b", "c"], Decision()).label == "b"


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, for damage."""
    return shutil.copytree(bundle_path, tmp_path / "bundle")


def test_bundle_gives_the_logits_of_the_model_that_was_saved(
    classifier: Classifier, images: torch.Tensor, tmp_path: Path
) -> None:
    save_bundle(
        tmp_path / "bundle",
        classifier,
        synthesise_pictures(),
        preprocess=PreprocessSpec(size=32),
        classes=["a", "b", "c"],
        display_names=["a", "b", "c"],
        decision=Decision(),
        probes="synthetic",
        dataset="0" * 64,
        recipe="0" * 64,
        metrics={},
    )
    with torch.inference_mode():
        expected = classifier(images)
    assert torch.equal(Bundle.load(tmp_path / "bundle").compute_logits(images), expected)


def test_saved_bundle_leaves_no_temporary_folder(bundle_path: Path) -> None:
    assert [path.name for path in bundle_path.parent.iterdir()] == ["bundle"]


def test_bundle_keeps_its_identity_on_disk(bundle: Path, bundle_path: Path) -> None:
    assert read_bundle_page(bundle).fingerprint() == Bundle.load(bundle_path).page.fingerprint()


def refusal(folder: Path, kind: type[Exception] = ShardError) -> str:
    with pytest.raises(kind) as caught:
        Bundle.load(folder)
    return str(caught.value)


def edit_page(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    change(content)
    (folder / "bundle.json").write_text(json.dumps(content))


def test_one_changed_byte_of_the_weights_is_refused(bundle: Path) -> None:
    path = bundle / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert refusal(bundle) == f"{path}: sha256 differs from bundle.json; restore the bundle from a backup"


def test_other_geometry_than_that_of_the_probes_is_refused(bundle: Path) -> None:
    edit_page(bundle, lambda content: content["preprocess"].update(interpolation="bicubic"))
    assert refusal(bundle).startswith("preprocessing differs from training's: up to ")


def test_other_size_than_that_of_the_probes_is_refused(bundle: Path) -> None:
    edit_page(bundle, lambda content: content["preprocess"].update(size=32))
    assert refusal(bundle) == (
        "the bundle has 8 probes that become [3, 32, 32], but 8 are recorded with shape [3, 64, 64]; "
        "restore the bundle from a backup"
    )


def test_page_with_another_normalisation_than_the_weights_is_refused(bundle: Path) -> None:
    """The weights bring it, so the logits are right; but whoever goes by the page, a fine-tuning, is not."""
    edit_page(bundle, lambda page: page["model"].update(mean=[0.4, 0.5, 0.5]))
    assert "bundle.json says mean 0.4, 0.5, 0.5, but weights.safetensors has 0, 0, 0; " in refusal(bundle)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (lambda names: [*names, "more"], " outputs, there are "),
        (lambda names: [names[0]] * len(names), "two classes have the same name"),
    ],
)
def test_page_whose_classes_are_not_the_outputs_is_refused(
    bundle: Path, names: Callable[[list[str]], list[str]], sentence: str
) -> None:
    edit_page(bundle, lambda page: page.update(classes=names(page["classes"])))
    assert sentence in refusal(bundle)


def test_probes_that_are_no_pictures_and_none_at_all_are_refused(bundle: Path) -> None:
    (bundle / "probes" / "000.bin").write_bytes(b"no picture")
    assert refusal(bundle).startswith("a probe of the bundle is damaged (")
    tensors = load_file(bundle / "probes" / TENSORS)
    for path in (bundle / "probes").glob("*.bin"):
        path.unlink()
    save_file({name: tensor[:0].contiguous() for name, tensor in tensors.items()}, bundle / "probes" / TENSORS)
    assert refusal(bundle).startswith("the bundle has 0 probes")


def make_old(folder: Path) -> Path:
    edit_page(folder, lambda page: page.pop("decoding"))
    return folder


def test_bundle_without_a_version_of_decoding_loads_warns_and_keeps_its_fingerprint(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = json.loads((make_old(bundle) / "bundle.json").read_text())
    loaded = Bundle.load(bundle)
    assert (loaded.page.decoding, loaded.page.fingerprint()) == (1, fingerprint_json(page))
    (warning,) = caplog.messages
    assert warning.startswith(f"the bundle has decoding version 1; this program has version {DECODING}, which reads")
    assert warning.endswith("pack their files into a new folder and train again")


def test_bundle_of_this_version_of_decoding_loads_without_a_word(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Bundle.load(bundle).page.decoding == DECODING
    assert caplog.messages == []


@pytest.mark.parametrize("bits", [12, 16], ids=["other pixels", "refused"])
def test_probe_that_decodes_otherwise_by_now_is_no_damage(
    bundle: Path, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    channels = 3 if bits == 16 else 1
    probe = jpeg2000.codestream([jpeg2000.ramp(bits)] * channels, [bits] * channels)
    (bundle / "probes" / "000.bin").write_bytes(probe)
    assert refusal(bundle).startswith(("a probe of the bundle is damaged", "preprocessing differs from training's"))
    Bundle.load(make_old(bundle))
    assert caplog.messages[1:] == ["1 of the bundle's 8 probes is such a picture and was not compared"]


def test_missing_probe_is_refused(bundle: Path) -> None:
    (bundle / "probes" / "003.bin").unlink()
    assert refusal(bundle).startswith("the bundle has 7 probes that become [3, 64, 64], but 8 are recorded with shape ")


def test_other_weights_than_those_of_the_probes_are_refused(bundle: Path) -> None:
    path = bundle / "weights.safetensors"
    tensors = load_file(path)
    tensors["backbone.fc.weight"] *= 1.01
    save_file(tensors, path)
    edit_page(bundle, lambda content: content.update(weights_sha256=fingerprint_file(path)))
    assert refusal(bundle).startswith("the model's logits differ from training's by ")
    assert refusal(bundle).endswith(" of the largest (limit 0.0001); weights or libraries are not those of the bundle")


def test_other_normalisation_than_that_of_the_probes_is_refused(bundle: Path) -> None:
    """Mean and std are tensors of the weights too; a page that says otherwise does not win."""
    path = bundle / "weights.safetensors"
    tensors = load_file(path)
    tensors["mean"] += 1
    save_file(tensors, path)
    edit_page(bundle, lambda content: content.update(weights_sha256=fingerprint_file(path)))
    assert "bundle.json says mean 0, 0, 0, but weights.safetensors has 0.003922, 0.003922, 0.003" in refusal(bundle)


def test_weights_of_another_shape_are_refused(bundle: Path) -> None:
    edit_page(bundle, lambda content: content["model"].update(name="timm/test_resnet"))
    assert refusal(bundle).startswith(f"{bundle} is damaged (Error(s) in loading state_dict for Classifier")


@pytest.mark.parametrize("name", ["weights.safetensors", "probes/probes.safetensors"])
def test_missing_tensors_are_refused(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert refusal(bundle).startswith(f"{bundle} is damaged (")


def test_another_version_is_refused_with_both(bundle: Path) -> None:
    edit_page(bundle, lambda content: content.update(version=2))
    assert refusal(bundle) == (
        f"{bundle}/bundle.json is of version 2, this program reads version 1; "
        "restore the bundle from a backup or train again, or use the program that made it"
    )


def test_damaged_page_is_refused(bundle: Path) -> None:
    (bundle / "bundle.json").write_text('{"version": 1, ')
    assert refusal(bundle).startswith(f"{bundle}/bundle.json is damaged (")


def test_page_of_an_earlier_version_keeps_its_fingerprint(bundle: Path) -> None:
    """A field that came later and is not in the file does not count."""
    edit_page(bundle, lambda content: [content.pop("origin"), content["model"].pop("image_size")])
    content = json.loads((bundle / "bundle.json").read_text())
    assert Bundle.load(bundle).page.fingerprint() == fingerprint_json(content)


def test_mnasnet_comes_back_though_safetensors_keeps_no_versions(tmp_path: Path) -> None:
    theirs, ours = (Classifier(ModelSpec(name="mnasnet0_5", num_classes=2)) for _ in range(2))
    save_file({name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}, tmp_path / "w.safetensors")
    ours.load_state_dict(load_file(tmp_path / "w.safetensors"))
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)


def test_folder_without_a_page_is_no_bundle(tmp_path: Path) -> None:
    assert refusal(tmp_path, UsageError) == (
        f"{tmp_path} is not a bundle (it has no bundle.json); a finished run keeps its bundle in runs/NAME/bundle"
    )


def test_missing_folder_is_no_bundle(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone", UsageError).startswith(f"{tmp_path}/gone does not exist; ")


def test_picture_larger_than_the_dataset_kept_is_shrunk_as_packing_shrank_it() -> None:
    """A photograph sent to the endpoint must come out as its shrunk copy in the shards does, but for JPEG's loss."""
    wave = np.linspace(0, 60, 900)
    pixels = (127 + 120 * np.sin(wave[:600, None] * wave[None] / 9)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(file, "PNG")
    stored = store_picture(file.getvalue(), StoreOptions(max_side=120, quality=100)).data
    spec = PreprocessSpec(size=64, max_side=120)
    original, kept = (prepare(data, spec).float() for data in (file.getvalue(), stored))
    assert (original - kept).abs().mean() < 0.5
    unshrunk = prepare(file.getvalue(), spec.model_copy(update={"max_side": None})).float()
    assert (unshrunk - kept).abs().mean() > 1
