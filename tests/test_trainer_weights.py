"""Pretrained weights are proven by what they say of photographs, not by the absence of errors."""

from __future__ import annotations

import argparse
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage
import sklearn
import timm
import torch
import torchvision.models
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shards.errors import ShardError, UsageError
from shards.storage.storage import open_storage
from trainer.contract.model.backbone import build_backbone
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.recipes.recipe import Recipe
from trainer.weights.expectation import SCRATCH
from trainer.weights.expected import read_expectation, read_own_expectation
from trainer.weights.installed import INSTALLED, find_installed
from trainer.weights.key_maps import KEY_MAPS, KeyMap, map_efficientnet_pytorch
from trainer.weights.load import load_weights
from trainer.weights.match import LoadReport
from trainer.weights.published import find_published, list_tags

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
    expects = read_expectation(name, weights)
    return Classifier(ModelSpec(name=name, num_classes=num_classes, mean=expects.mean, std=expects.std)).eval()


@pytest.fixture(scope="module")
def pretrained() -> Classifier:
    model = make_classifier()
    load_weights(model.backbone, model.spec, LITE0)
    return model


@torch.inference_mode()
def rank_classes(model: Classifier, photograph: Path, size: int = 224) -> list[int]:
    """ImageNet classes, the most probable first."""
    spec = IMAGENET.model_copy(update={"size": size, "resize": size + 32})
    logits: Tensor = model(prepare(photograph.read_bytes(), spec).unsqueeze(0))
    return logits[0].argsort(descending=True).tolist()


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_pretrained_model_names_what_a_photograph_shows(pretrained: Classifier, photograph: Path) -> None:
    assert rank_classes(pretrained, photograph)[0] in PHOTOGRAPHS[photograph]


@pytest.mark.parametrize(("number", "size"), [(1, 240), (2, 260)])
def test_larger_models_of_the_family_name_what_the_photographs_show(number: int, size: int) -> None:
    weights = f"efficientnet-lite{number}"
    model = make_classifier(1000, weights, f"timm/tf_efficientnet_lite{number}")
    tensors = len(model.backbone.state_dict())
    loaded = load_weights(model.backbone, model.spec, weights)
    assert str(loaded) == f"all {tensors} tensors loaded; names mapped from efficientnet_pytorch"
    assert read_expectation(model.spec.name, weights).size == size
    assert count_right(model, size) >= 5  # both take the flower for a honeycomb
    plain = Classifier(model.spec.model_copy(update={"mean": (0.0,) * 3, "std": (1 / 255,) * 3})).eval()
    plain.backbone.load_state_dict(model.backbone.state_dict())
    assert count_right(plain, size) <= 2
    source = read_weights(number)
    target = model.backbone.state_dict()
    assert map_efficientnet_pytorch(source, target) == dict(zip(source, target, strict=True))  # in order of computation


def count_right(model: Classifier, size: int) -> int:
    """Photographs with an acceptable class among the first two."""
    return sum(bool({*rank_classes(model, path, size)[:2]} & classes) for path, classes in PHOTOGRAPHS.items())


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
    key_map = INSTALLED[LITE0].key_map
    monkeypatch.setitem(KEY_MAPS, key_map, replace(KEY_MAPS[key_map], map=wrong))
    model = make_classifier()
    load_weights(model.backbone, model.spec, LITE0)
    right = [rank_classes(model, photograph)[0] in classes for photograph, classes in PHOTOGRAPHS.items()]
    assert sum(right) <= 2


def read_weights(number: int) -> dict[str, Tensor]:
    name = f"efficientnet-lite{number}"
    tensors: dict[str, Tensor] = torch.load(find_installed(name, INSTALLED[name].model), weights_only=True)
    return tensors


def test_key_map_pairs_the_tensors_in_the_order_in_which_both_libraries_compute() -> None:
    """Both libraries register their layers in forward order, which is a second way to the same pairs."""
    source, target = read_weights(0), make_classifier().backbone.state_dict()
    assert map_efficientnet_pytorch(source, target) == dict(zip(source, target, strict=True))


def test_key_map_pairs_tensors_of_one_shape() -> None:
    source, target = read_weights(0), make_classifier().backbone.state_dict()
    mapped = map_efficientnet_pytorch(source, target)
    assert {key: source[key].shape for key in mapped} == {key: target[mapped[key]].shape for key in mapped}


def test_report_of_a_full_load_counts_every_tensor() -> None:
    model = make_classifier()
    assert str(load_weights(model.backbone, model.spec, LITE0)) == (
        f"all {len(model.backbone.state_dict())} tensors loaded; names mapped from efficientnet_pytorch"
    )


def test_head_of_another_class_count_is_left_out_and_reported() -> None:
    model = make_classifier(num_classes=3)
    assert str(load_weights(model.backbone, model.spec, LITE0)) == (
        "294 of 296 tensors loaded; names mapped from efficientnet_pytorch; left out classifier.weight (shape "
        "[1000, 1280], the model has [3, 1280]), classifier.bias (shape [1000], the model has [3]); "
        "nothing for classifier.weight, classifier.bias"
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
        "the weights efficientnet-lite0 belong to timm/tf_efficientnet_lite0, "
        "but the recipe's model is shufflenet_v2_x0_5"
    )


def test_missing_weights_are_refused_with_the_names_that_exist() -> None:
    model = make_classifier(3, "none", "shufflenet_v2_x0_5")
    with pytest.raises(
        UsageError,
        match=r"^no weights 'gone\.pth': not a file, not none, and not one of efficientnet-lite0, efficientnet-lite1, "
        r"efficientnet-lite2; "
        r"shufflenet_v2_x0_5 has IMAGENET1K_V1$",
    ):
        load_weights(model.backbone, model.spec, "gone.pth")


class Malice:
    """What a pickle may hold: a call that is made when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickle_with_code_is_refused_without_running_it(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "was-here"
    torch.save({"weight": Malice(trace)}, path)
    model = make_classifier(3, "none", "shufflenet_v2_x0_5")
    with pytest.raises(
        ShardError, match=rf"^{path} holds no state dict .* it has a dict of weight; save only the model"
    ):
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
    torch.save({"epoch": 3, "best": 0.5}, tmp_path / "run.pth")
    model = make_classifier(3, "none", SHUFFLE)
    with pytest.raises(ShardError) as caught:
        load_weights(model.backbone, model.spec, str(tmp_path / "run.pth"))
    assert str(caught.value) == (
        f"{tmp_path}/run.pth holds no state dict (names to tensors), not under any of state_dict, model_state_dict, "
        "model_state, model, module, net, network, weights, params either; it has a dict of epoch, best; "
        "save only the model: torch.save(model.state_dict(), NEW)"
    )


SHUFFLE = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def shuffle() -> dict[str, Tensor]:
    """The tensors of a model of three classes."""
    torch.manual_seed(5)
    return dict(build_backbone(SHUFFLE, 3).state_dict())


def load_shuffle(weights: str, num_classes: int = 3, name: str = SHUFFLE) -> tuple[dict[str, Tensor], LoadReport]:
    model = make_classifier(num_classes, "none", name)
    report = load_weights(model.backbone, model.spec, weights)
    assert report is not None
    return dict(model.backbone.state_dict()), report


def prefix(tensors: dict[str, Tensor], text: str) -> dict[str, Tensor]:
    return {text + name: tensor for name, tensor in tensors.items()}


WRAPPINGS = {
    "bare": lambda t: t,
    "state_dict": lambda t: {"state_dict": t, "epoch": 1},
    "model_state": lambda t: {"model_state": t, "optimizer_state": {"state": {}}},
    "model_state_dict": lambda t: {"model_state_dict": t, "optimizer_state_dict": {"state": {}}},
    "model": lambda t: {"model": t, "args": argparse.Namespace(lr=0.1)},
    "nested": lambda t: {"model": {"state_dict": t}},
    "module.": lambda t: prefix(t, "module."),
    "model.module.": lambda t: {"state_dict": prefix(t, "model.module.")},
    "pretrain_": lambda t: prefix(t, "pretrain_"),
    "backbone.": lambda t: prefix(t, "backbone.") | {"mean": torch.zeros(3)},
    "numpy score": lambda t: {"state_dict": t, "best": np.float64(0.5)},
    "numpy arrays": lambda t: {"state_dict": t, "losses": np.arange(3.0), "classes": np.array(["a", "b"])},
    "a name of its own": lambda t: {"shuffle": t, "criterion": {}, "epoch": 1},
    "configuration beside": lambda t: {"model": {"name": "shuffle", "lr": 0.1}, "weights_now": t},
    "self.net": lambda t: {"state_dict": prefix(t, "net.") | {"loss.weight": torch.ones(3)}, "hyper_parameters": {}},
    "module.net.encoder.": lambda t: prefix(t, "module.net.encoder."),
    "sparse": lambda t: t | {"fc.weight": t["fc.weight"].to_sparse()},
    "counter": lambda t: {**t, "epoch": 7},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("file", ["w.pth", "w.pth.tar.epoch_3"])
def test_tensors_are_found_however_a_checkpoint_wraps_them(
    wrapping: str, file: str, shuffle: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(WRAPPINGS[wrapping](shuffle), tmp_path / file)
    loaded, report = load_shuffle(str(tmp_path / file))
    torch.testing.assert_close(loaded, shuffle, rtol=0, atol=0)
    assert (report.matched, report.missing) == (len(shuffle), ())


def test_two_models_in_a_file_are_not_chosen_from(shuffle: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(prefix(shuffle, "student.") | prefix(shuffle, "teacher."), tmp_path / "flat.pth")
    torch.save({"generator": shuffle, "critic": shuffle}, tmp_path / "deep.pth")
    with pytest.raises(
        ShardError, match=r"several models that fit, under student\. and teacher\.; choose one by --key st"
    ):
        load_shuffle(str(tmp_path / "flat.pth"))
    with pytest.raises(ShardError, match=r"but several, under generator, critic; choose one by --key generator \("):
        load_shuffle(str(tmp_path / "deep.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_finite_numbers_are_refused(
    value: float, shuffle: dict[str, Tensor], tmp_path: Path
) -> None:
    broken = shuffle["fc.bias"].clone()
    broken[1] = value
    torch.save(shuffle | {"fc.bias": broken}, tmp_path / "w.pth")
    with pytest.raises(ShardError, match=r"w\.pth has values that are not finite in fc\.bias; its training diverged"):
        load_shuffle(str(tmp_path / "w.pth"))


def test_quantised_weights_are_refused(shuffle: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(shuffle | {"fc.weight": (100 * shuffle["fc.weight"]).to(torch.int8)}, tmp_path / "w.pth")
    with pytest.raises(ShardError, match=r"has int8 in fc\.weight, where the model has floats; save the tensors"):
        load_shuffle(str(tmp_path / "w.pth"))


@pytest.mark.slow
def test_position_table_of_no_square_is_left_out(tmp_path: Path) -> None:
    tensors = dict(build_backbone("vit_b_32", 3, image_size=64).state_dict())
    torch.save(tensors | {"encoder.pos_embedding": torch.zeros(1, 4, 768)}, tmp_path / "w.pth")
    model = make_classifier(3, "none", "vit_b_32")
    report = load_weights(model.backbone, model.spec, str(tmp_path / "w.pth"))
    assert report is not None
    assert report.missing == ("encoder.pos_embedding",)


def test_efficientnet_pytorch_is_refused_for_another_padding(tmp_path: Path) -> None:
    """Names and shapes are the same; the answers would not be."""
    torch.save({"state_dict": {"net._conv_stem.weight": torch.zeros(32, 3, 3, 3)}}, tmp_path / "w.pth")
    model = make_classifier(3, "none", "timm/efficientnet_lite0")
    with pytest.raises(UsageError, match=r"which pads as TensorFlow does; .* set model=timm/tf_efficientnet_lite0"):
        load_weights(model.backbone, model.spec, str(tmp_path / "w.pth"))


def test_side_before_timm_s_crop_is_rounded_as_timm_does() -> None:
    import timm.data

    cfg = timm.get_pretrained_cfg("vit_tiny_patch16_224")
    assert cfg is not None
    transform = timm.data.create_transform(**timm.data.resolve_data_config(cfg.to_dict()))
    assert read_own_expectation("timm/vit_tiny_patch16_224").resize == transform.transforms[0].size == 248


def test_signature_of_a_uri_is_in_no_sentence(http_shards: str, s3: str, tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 1024), "fc.bias": torch.zeros(3)}, tmp_path / "w.pth")
    open_storage(s3.format(path="weights")).write("head.pth", (tmp_path / "w.pth").read_bytes())
    with pytest.raises(ShardError, match="only 2 of the") as caught:
        load_shuffle(http_shards.format(path="weights/head.pth") + "?signature=geheim")
    assert "geheim" not in str(caught.value)


def test_safetensors_are_told_by_content(shuffle: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(shuffle, tmp_path / "weights.bin")
    torch.testing.assert_close(load_shuffle(str(tmp_path / "weights.bin"))[0], shuffle, rtol=0, atol=0)


def test_report_says_what_was_done_and_what_was_left_out(shuffle: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(prefix(shuffle, "module.") | {"module.extra": torch.zeros(1)}, tmp_path / "w.pth")
    assert str(load_shuffle(str(tmp_path / "w.pth"), num_classes=2)[1]) == (
        f"{len(shuffle) - 2} of {len(shuffle)} tensors loaded; prefixes taken off {len(shuffle) + 1} names; left out "
        "extra (not in the model), fc.weight (shape [3, 1024], the model has [2, 1024]), fc.bias (shape [3], the model "
        "has [2]); nothing for fc.weight, fc.bias"
    )


def test_two_names_that_would_be_one_are_not_mixed_up(shuffle: dict[str, Tensor], tmp_path: Path) -> None:
    """An average beside the plain weights, as some checkpoints keep it: the plain name counts."""
    torch.save(prefix(dict.fromkeys(shuffle, torch.zeros(1)), "module.") | shuffle, tmp_path / "w.pth")
    loaded, report = load_shuffle(str(tmp_path / "w.pth"))
    torch.testing.assert_close(loaded, shuffle, rtol=0, atol=0)
    assert len(report.left_out) == len(shuffle)


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_weights_come_from_a_store(
    scheme: str, s3: str, http_shards: str, shuffle: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(shuffle, tmp_path / "w.pth")
    open_storage(s3.format(path="weights")).write("w 肺.pth", (tmp_path / "w.pth").read_bytes())
    where = (s3 if scheme == "s3" else http_shards).format(path="weights/w%20%E8%82%BA.pth")
    torch.testing.assert_close(load_shuffle(where)[0], shuffle, rtol=0, atol=0)


def test_weights_that_a_store_does_not_have_are_told_by_their_uri(s3: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_shuffle(s3.format(path="weights/gone.pth"))
    assert str(caught.value.filename).endswith("shards/weights/gone.pth")


def test_bundle_gives_its_weights_and_all_that_they_expect(bundle_path: Path) -> None:
    loaded, report = load_shuffle(str(bundle_path))
    theirs = load_file(bundle_path / "weights.safetensors")
    assert torch.equal(loaded["conv1.0.weight"], theirs["backbone.conv1.0.weight"])
    assert (report.matched, report.left_out) == (len(loaded), {})
    assert read_expectation(SHUFFLE, str(bundle_path)).size == 64


def test_weights_of_another_model_s_bundle_are_refused(bundle_path: Path) -> None:
    with pytest.raises(ShardError, match="these weights belong to another model, so nothing was loaded"):
        load_shuffle(str(bundle_path), name="resnet18")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where the libraries keep their files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize("tag", ["IMAGENET1K_V1", "DEFAULT", "pretrained", "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"])
def test_published_weights_are_read_from_the_cache_of_torch(tag: str, hub: Path) -> None:
    theirs = torchvision.models.get_model(SHUFFLE, weights=None)
    torch.save(theirs.state_dict(), hub / "shufflenetv2_x0.5-f707e7126e.pth")
    loaded, report = load_shuffle(tag, num_classes=2)
    assert torch.equal(loaded["conv5.0.weight"], theirs.state_dict()["conv5.0.weight"])
    assert report.missing == ("fc.weight", "fc.bias")
    assert not loaded["fc.weight"].any()


def test_published_weights_that_are_not_there_are_told_with_url_and_place(hub: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_shuffle("pretrained", name="resnet50")
    assert str(caught.value) == (
        "the weights IMAGENET1K_V2 of resnet50 are not on this machine; download "
        f"https://download.pytorch.org/models/resnet50-11ad3fa6.pth to {hub}/resnet50-11ad3fa6.pth, "
        "or train from scratch with weights=none"
    )


def test_published_weights_of_another_model_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^ResNet50_Weights\.DEFAULT are weights of another model; resnet18 has IMAGE"
    ):
        load_shuffle("ResNet50_Weights.DEFAULT", name="resnet18")


def test_every_published_file_of_torchvision_has_a_url_and_a_place(hub: Path) -> None:
    found = [find_published(name, tag) for name in ("resnet50", "regnet_y_16gf") for tag in list_tags(name)]
    assert [item and item.put.name for item in found] == [item and item.url.rpartition("/")[2] for item in found]
    assert len(found) == 6


def test_timm_s_weights_are_read_from_where_the_sentence_says(hub: Path) -> None:
    name = "timm/test_vit"
    with pytest.raises(UsageError) as caught:
        load_shuffle("pretrained", name=name)
    assert str(caught.value).startswith(
        "the weights r160_in1k of timm/test_vit are not on this machine; download "
        "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors to "
    )
    place = Path(str(caught.value).partition(" to ")[2].partition(",")[0])
    theirs = timm.create_model("test_vit").state_dict()
    save_file(theirs, place)
    loaded, report = load_shuffle("r160_in1k", name=name)
    assert torch.equal(loaded["blocks.0.attn.qkv.weight"], theirs["blocks.0.attn.qkv.weight"])
    assert set(report.missing) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(("name", "table"), [("timm/test_vit", "pos_embed"), ("vit_b_32", "encoder.pos_embedding")])
def test_position_table_is_interpolated_to_the_size_of_the_recipe(name: str, table: str, hub: Path) -> None:
    own = find_published(name, "pretrained")
    assert own is not None
    theirs = dict(build_backbone(name, None).state_dict())
    theirs[table] = torch.full_like(theirs[table], 0.25)
    torch.save(theirs, own.put)
    spec = ModelSpec(name=name, num_classes=2, image_size=96)
    model = Classifier(spec)
    report = load_weights(model.backbone, spec, "pretrained")
    loaded = model.backbone.get_parameter(table)
    assert report is not None
    assert not [name for name in report.missing if "head" not in name]
    assert loaded.shape[1] < theirs[table].shape[1]
    torch.testing.assert_close(loaded, torch.full_like(loaded, 0.25))  # a constant stays one, however interpolated


@pytest.mark.slow
@pytest.mark.parametrize(("name", "table"), [("timm/test_vit", "pos_embed"), ("vit_b_32", "encoder.pos_embedding")])
def test_position_table_of_a_file_is_interpolated_too(name: str, table: str, tmp_path: Path) -> None:
    """A constant one stays what it is at any size."""
    tensors = dict(build_backbone(name, 3, image_size=64).state_dict())
    torch.save(tensors | {table: torch.full_like(tensors[table], 0.5)}, tmp_path / "w.pth")
    spec = ModelSpec(name=name, num_classes=3, image_size=128)
    model = Classifier(spec)
    report = load_weights(model.backbone, spec, str(tmp_path / "w.pth"))
    assert report is not None
    assert (report.missing, report.changes) == ((), (f"{table} interpolated to the size",))
    found = model.backbone.state_dict()[table]
    assert found.shape[1] > tensors[table].shape[1]
    torch.testing.assert_close(found, torch.full_like(found, 0.5))


def load_both(name: str, path: Path, tensors: dict[str, Tensor]) -> tuple[Classifier, Classifier, LoadReport]:
    """Return the weights in a backbone of one channel and in one of three, each behind ImageNet's normalisation."""
    torch.save(tensors, path)
    trained = SCRATCH.normalised("imagenet")
    (mean, std), models = trained.for_channels(1), []
    for own in ({"in_channels": 1, "mean": mean, "std": std}, {"mean": trained.mean, "std": trained.std}):
        model = Classifier(ModelSpec.model_validate({"name": name, "num_classes": 3} | own)).eval()
        report = load_weights(model.backbone, model.spec, str(path), trained=trained)
        assert report is not None
        models.append((model, report))
    (gray, changed), (colour, _) = models
    return gray, colour, changed


def randomise(backbone: nn.Module) -> dict[str, Tensor]:
    """Return tensors that nothing is left out of: running means are not 0 and running variances not 1."""
    state, generator = dict(backbone.state_dict()), torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if name.endswith(("running_mean", "running_var", "bias")):
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
    return state


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (SHUFFLE, "conv1.0"),  # batch normalisation behind a layer without a bias
        pytest.param("vgg11_bn", "features.0", marks=pytest.mark.slow),  # a bias, and batch normalisation behind it
        ("timm/test_resnet", "conv1.0"),  # of several layers
        ("timm/test_efficientnet", "conv_stem"),  # BatchNormAct2d
        ("timm/test_vit", "patch_embed.proj"),  # a bias
    ],
)
def test_one_channel_gives_what_three_equal_ones_give(name: str, stem: str, tmp_path: Path) -> None:
    gray, colour, report = load_both(name, tmp_path / "w.pth", randomise(build_backbone(name, 3)))
    assert (report.changes, report.missing) == ((f"{stem}.weight summed over its channels",), ())
    assert (report.left_out, report.leftovers) == ({}, ())
    pictures = torch.randint(0, 256, (2, 1, colour.spec.image_size or 160, colour.spec.image_size or 160)).float()
    outputs = [run_to_normalised(model, stem, pictures) for model in (gray, colour)]
    inner = (..., slice(2, -2), slice(2, -2)) if "vit" not in name else ...  # the border sees padding
    torch.testing.assert_close(outputs[0][inner], outputs[1][inner], rtol=1e-4, atol=1e-4)


def run_to_normalised(model: Classifier, stem: str, pictures: Tensor) -> Tensor:
    """Return what the first layer gives, and the batch normalisation behind it where there is one."""
    held = [name for name, module in model.backbone.named_modules() if module._parameters or module._buffers]
    behind = model.backbone.get_submodule(held[held.index(stem) + 1])
    first = model.backbone.get_submodule(stem)
    outputs: list[Tensor] = []
    with (
        (behind if isinstance(behind, nn.BatchNorm2d) else first).register_forward_hook(
            lambda *given: outputs.append(given[2])
        ),
        torch.inference_mode(),
    ):
        model(pictures)
    return outputs[0]


def test_logits_of_gray_pictures_are_those_of_three_channels_where_nothing_is_padded(tmp_path: Path) -> None:
    gray, colour, _ = load_both("timm/test_vit", tmp_path / "w.pth", build_backbone("timm/test_vit", 3).state_dict())
    pictures = torch.randint(0, 256, (2, 1, 160, 160)).float()
    with torch.inference_mode():
        torch.testing.assert_close(gray(pictures), colour(pictures), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/test_nfnet", "but the layer rescales its weights: outputs change"),
        ("timm/test_efficientnet_gn", "but no bias can absorb the means: outputs are shifted"),
        ("squeezenet1_1", None),
    ],
)
def test_first_layer_that_cannot_be_narrowed_without_a_change_says_so(
    name: str, said: str | None, tmp_path: Path
) -> None:
    _, _, report = load_both(name, tmp_path / "w.pth", dict(build_backbone(name, 3).state_dict()))
    (change,) = report.changes
    assert change.endswith(said or "summed over its channels")


def test_gray_photographs_are_named_by_the_summed_weights(pretrained: Classifier) -> None:
    spec = pretrained.spec.model_copy(update={"in_channels": 1, "mean": (0.5,), "std": (0.5,)})
    model = Classifier(spec).eval()
    load_weights(model.backbone, spec, LITE0)
    gray = IMAGENET.model_copy(update={"channels": 1})
    named = []
    for photograph, classes in PHOTOGRAPHS.items():
        with torch.inference_mode():
            logits: Tensor = model(prepare(photograph.read_bytes(), gray).unsqueeze(0))
        named.append(int(logits.argmax()) in classes)
    assert sum(named) >= 4


def test_efficientnet_pytorch_file_is_recognised_by_its_names(pretrained: Classifier, tmp_path: Path) -> None:
    """The same key map as the installed package's, here for a file that somebody saved."""
    torch.save({"state_dict": prefix(read_weights(0), "module.")}, tmp_path / "lite0.pth")
    model = make_classifier()
    report = load_weights(model.backbone, model.spec, str(tmp_path / "lite0.pth"))
    assert report is not None
    assert "names mapped from efficientnet_pytorch" in report.changes
    torch.testing.assert_close(dict(model.backbone.state_dict()), dict(pretrained.backbone.state_dict()))


def test_densenet_file_with_the_names_of_old_is_read(hub: Path) -> None:
    theirs = build_backbone("densenet121", None).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): theirs[name] for name in theirs}
    assert set(old) != set(theirs)
    torch.save(old, hub / "densenet121-a639ec97.pth")
    loaded, report = load_shuffle("IMAGENET1K_V1", num_classes=1000, name="densenet121")
    torch.testing.assert_close(loaded, dict(theirs), rtol=0, atol=0)
    assert report.changes == ("names mapped from old densenet",)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"<!DOCTYPE html><html>404</html>", "it is a web page, perhaps the error page of a download; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS; fetch the file itself with"),
        (pickle.dumps({"weight": [1.0]}), "it is a plain pickle, which runs code when read; save the tensors with"),
        (b"", "it is empty; copy it again"),
        (b"PK\x03\x04archive/data.pkl", "it is truncated or damaged; copy it again"),
        ((99).to_bytes(8, "little") + b'{"fc.weight":', "it is truncated or damaged; copy it again"),
    ],
)
def test_what_is_no_weights_file_is_named(data: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(ShardError) as caught:
        load_shuffle(str(tmp_path / "w.pth"))
    assert sentence in str(caught.value)


def test_torchscript_is_refused_with_what_to_do(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")  # type: ignore[no-untyped-call]
    recwarn.clear()
    with pytest.raises(
        ShardError, match=r"save its tensors: torch\.save\(torch\.jit\.load\(FILE\)\.state_dict\(\), NEW\)"
    ):
        load_shuffle(str(tmp_path / "w.pt"))
    assert not recwarn.list


def test_zip_of_arrays_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.zeros(2))
    with pytest.raises(ShardError, match="it is a zip that torch"):
        load_shuffle(str(tmp_path / "w.npz"))


def test_plain_pickle_with_code_is_refused_before_the_code_runs(tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Malice(tmp_path / "was-here")))
    with pytest.raises(ShardError):
        load_shuffle(str(tmp_path / "evil.pkl"))
    assert not (tmp_path / "was-here").exists()


def test_recipe_of_a_ray_worker_finds_a_bundle_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    recipe = Recipe.model_validate({"data": "d", "name": "n", "model": SHUFFLE, "weights": "bundle"})
    assert recipe.with_absolute_paths().weights == str(tmp_path / "bundle")
