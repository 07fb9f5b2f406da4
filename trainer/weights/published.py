"""Weights that torchvision and timm publish: their preprocessing, and the paths of their files on this machine.

Nothing is ever downloaded: an error message is better than a training job waiting for a missing network.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torchvision.models

from shards.errors import UsageError
from trainer.contract.model.backbone import find_timm_cfg, list_torchvision
from trainer.contract.model.names import TIMM_PREFIX
from trainer.recipes.options.preprocess import Interpolation
from trainer.weights.expectation import HALF, Expectation

DEFAULT: Final = ("pretrained", "DEFAULT")
"""The name for the library's default weights of any model."""
_REPACKED: Final = ("inception_v3", "googlenet")
"""Models whose files come from TensorFlow and expect x*2-1; torchvision's builder converts internally."""


@dataclass(frozen=True)
class Published:
    """Weights of one model in a library."""

    tag: str
    model: str
    url: str
    """URL of the file."""
    find: Callable[[], Path | None]
    """Returns the file on this machine, if present."""
    put: Path
    """Path for a file downloaded by hand."""
    expects: Expectation
    classes: tuple[str, ...] | None = None
    """Class names of the head, if the library knows them."""

    def locate(self) -> Path:
        """Return the file.

        Raises:
            UsageError: The file is not on this machine; the message has its URL and the path for it.
        """
        path = self.find()
        if path is None:
            raise UsageError(
                f"the weights {self.tag} of {self.model} are not on this machine; download {self.url} to "
                f"{self.put}, or train from scratch with weights=none"
            )
        return path


def list_tags(model: str) -> list[str]:
    """Return the tags of the weights that a library publishes for a model, its default first."""
    if model.startswith(TIMM_PREFIX):
        tags = _list_timm_tags().get(model.removeprefix(TIMM_PREFIX).partition(".")[0], [])
        cfg = find_timm_cfg(model)
        return sorted(tags, key=lambda tag: cfg is None or tag != cfg.tag)
    if model not in list_torchvision():
        return []
    weights = torchvision.models.get_model_weights(model)
    return sorted((str(item.name) for item in weights), key=lambda tag: tag != weights.DEFAULT.name)


@functools.cache
def _list_timm_tags() -> dict[str, list[str]]:
    import timm  # here and below: models of torchvision need not wait for it

    tags: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        tags.setdefault(architecture, []).append(tag)
    return tags


def find_published(model: str, weights: str) -> Published | None:
    """Return the published weights of a model that a recipe's `weights` names; None if it names none.

    Raises:
        UsageError: The weights belong to another model.
    """
    if model.startswith(TIMM_PREFIX):
        tags = list_tags(model)
        tag = tags[0] if weights in DEFAULT and tags else weights
        return _describe_timm(model, tag) if tag in tags else None
    if model not in list_torchvision():
        return None
    known = torchvision.models.get_model_weights(model)
    name = known.DEFAULT.name if weights in DEFAULT else weights
    owner, dot, tag = name.rpartition(".")
    if dot and owner.endswith("_Weights") and owner != known.__name__:
        raise UsageError(f"{weights} are weights of another model; {model} has {', '.join(list_tags(model))}")
    if tag not in known.__members__ or owner not in ("", known.__name__):
        return None
    return _describe_torchvision(model, known[tag])


def _describe_torchvision(model: str, item: Any) -> Published:
    transforms = item.transforms()
    put = Path(torch.hub.get_dir()) / "checkpoints" / str(item.url).rpartition("/")[2]
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if model in _REPACKED:
        mean = std = HALF
    return Published(
        tag=str(item.name),
        model=model,
        url=str(item.url),
        find=lambda: put if put.is_file() else None,
        put=put,
        expects=Expectation(
            mean, std, int(transforms.crop_size[0]), transforms.interpolation.value, int(transforms.resize_size[0])
        ),
        classes=tuple(item.meta["categories"]),
    )


def _describe_timm(model: str, tag: str) -> Published:
    import timm

    architecture = model.removeprefix(TIMM_PREFIX).partition(".")[0]
    cfg = timm.get_pretrained_cfg(f"{architecture}.{tag}")
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    put = checkpoints / f"{architecture}.{tag}.safetensors"
    places = [put] + ([checkpoints / str(cfg.url).rpartition("/")[2]] if cfg.url else [])
    url = cfg.url or f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors"
    return Published(
        tag=tag,
        model=f"{TIMM_PREFIX}{architecture}",
        url=str(url),
        find=lambda: next((path for path in places if path.is_file()), None) or _find_in_hub(cfg.hf_hub_id),
        put=places[-1],
        expects=read_timm_cfg(cfg),
    )


def read_timm_cfg(cfg: Any) -> Expectation:
    """Return the preprocessing from timm's metadata; like timm, the side before the crop is rounded down."""
    size = int(cfg.input_size[-1])
    interpolation: Interpolation = "bilinear" if cfg.interpolation == "bilinear" else "bicubic"
    mean, std = tuple(cfg.mean), tuple(cfg.std)
    return Expectation(mean, std, size, interpolation, math.floor(size / cfg.crop_pct) if cfg.crop_pct else None)


def _find_in_hub(repository: str | None) -> Path | None:
    """Return the file in Hugging Face's cache."""
    if not repository:
        return None
    from huggingface_hub import try_to_load_from_cache  # here: it takes 0.3 s

    name, _, revision = repository.partition("@")
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None
