"""Folders as Hugging Face's libraries save a model: config.json, weights in one file or several, and preprocessing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_file, fingerprint_json
from trainer.recipes.options.preprocess import Interpolation
from trainer.weights.expectation import IMAGENET_MEAN, IMAGENET_STD, Expectation
from trainer.weights.published import read_timm_cfg

CONFIG, PICTURES = "config.json", "preprocessor_config.json"
_FILES: Final = ("model.safetensors", "pytorch_model.bin")
"""File names of the weights; with `.index.json` appended, an index of several files."""
_RESAMPLE: Final[dict[Any, Interpolation]] = {2: "bilinear", 3: "bicubic"}
"""Pillow's filter numbers."""


class _TimmCfg(NamedTuple):
    """The preprocessing fields of timm's metadata, with their defaults."""

    input_size: Sequence[int] = (3, 224, 224)
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    interpolation: str = "bicubic"
    crop_pct: float | None = 0.875


def is_saved_folder(folder: Path) -> bool:
    """Return whether a folder is a model as saved by Hugging Face's libraries."""
    return (folder / CONFIG).is_file() and any(
        (folder / f"{name}{index}").is_file() for name in _FILES for index in ("", ".index.json")
    )


def list_weight_files(folder: Path) -> list[Path]:
    """Return the files of a saved model's tensors.

    Raises:
        UsageError: A file named by the index is missing.
        ShardError: The index is damaged.
    """
    for name in _FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                files = sorted({folder / str(file) for file in _read_json(index)["weight_map"].values()})
            except (AttributeError, KeyError) as err:
                raise ShardError(f"{index} has no weight_map; copy the folder again") from err
            absent = next((file for file in files if not file.is_file()), None)
            if absent is not None:
                raise UsageError(f"{index} names {absent.name}, which is missing; copy all {len(files)} files")
            return files
    raise UsageError(f"{folder} has none of {', '.join(_FILES)}; name a weights file")


def fingerprint_saved(folder: Path) -> str:
    """Return the fingerprint of a saved model: the sha256 of its file, or of the list of its files' sha256."""
    files = list_weight_files(folder)
    return fingerprint_file(files[0]) if len(files) == 1 else fingerprint_json([*map(fingerprint_file, files)])


def check_architecture(folder: Path) -> None:
    """Raise if no library model has a saved model's names or arithmetic.

    Raises:
        ShardError: The architecture is not supported.
    """
    config = _read_json(folder / CONFIG)
    kind = config.get("model_type")
    if config.get("architecture"):  # saved by timm, with timm's names
        return
    if kind not in ("vit", "resnet"):
        raise ShardError(
            f"{folder} has a model of type '{kind}' with names from transformers; only those of vit and resnet "
            "are mapped. Use the same architecture's weights from timm or torchvision"
        )
    odd = {name: config[name] for name, usual in _USUAL[kind].items() if config.get(name, usual) != usual}
    if odd:
        said = ", ".join(f"{name} {value}" for name, value in odd.items())
        raise ShardError(f"{folder}/{CONFIG} has {said}: no model of timm or torchvision computes this")


_USUAL: Final[dict[str, dict[str, Any]]] = {
    "vit": {"hidden_act": "gelu", "qkv_bias": True},
    "resnet": {"hidden_act": "relu", "downsample_in_bottleneck": False, "downsample_in_first_stage": False},
}
"""Config values of the libraries' models, by type."""


def read_saved_classes(folder: Path) -> list[str] | None:
    """Return the names of a saved model's classes, None if it only has placeholders (`LABEL_0`)."""
    config = _read_json(folder / CONFIG)
    labels = config.get("id2label") or {}
    named = config.get("label_names")
    names = [str(labels[key]) for key in sorted(labels, key=int)] if labels else [str(name) for name in named or ()]
    return None if not names or names[0] == "LABEL_0" or len(set(names)) < len(names) else names


def read_saved_expectation(folder: Path) -> Expectation | None:
    """Return the preprocessing that a saved model expects; None if it is not stated."""
    path = folder / PICTURES
    if not path.is_file():
        cfg = _read_json(folder / CONFIG).get("pretrained_cfg")
        known = {name: cfg[name] for name in _TimmCfg._fields if name in cfg} if isinstance(cfg, dict) else None
        return None if known is None else read_timm_cfg(_TimmCfg(**known))
    page = _read_json(path)
    size = page.get("crop_size") or page.get("size") or 224
    if isinstance(size, dict):
        size = size.get("shortest_edge") or size.get("height") or 224
    size = int(size)
    mean, std = (tuple(map(float, page.get(name) or ())) for name in ("image_mean", "image_std"))
    if page.get("do_normalize") is False or not mean or not std:
        mean, std = (0.0,) * 3, (1.0,) * 3
    # transformers' own rule: from 384 pixels on, crop_pct is not used.
    keeps_ratio = (bool(page.get("crop_pct")) and size < 384) or page.get("do_center_crop") is True
    before = _side_before(page, size)
    return Expectation(
        mean, std, size, _RESAMPLE.get(page.get("resample"), "bilinear"), before if keeps_ratio else None,
        policy="crop" if keeps_ratio else "stretch",
    )  # fmt: skip


def _side_before(page: dict[str, Any], size: int) -> int:
    """Return the shorter side before the crop, pixels."""
    if page.get("crop_pct"):
        return int(size / float(page["crop_pct"]))
    side = page.get("size", size)
    return int(side.get("shortest_edge", size)) if isinstance(side, dict) else int(side)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ShardError(f"{path} is not JSON ({str(err).splitlines()[0]}); copy it again") from err
    return content
