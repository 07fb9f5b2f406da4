"""Key maps from other code's tensor names to the model's, each recognised by a characteristic name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from shards.errors import ShardError, UsageError
from trainer.contract.model.names import TIMM_PREFIX
from trainer.weights.foreign_names import (
    join_qkv,
    map_hf_resnet,
    map_hf_vit,
    map_mmpretrain_vit,
    map_timm_vit,
    refuse_other_than_resnet,
    refuse_other_than_vit,
)
from trainer.weights.read import chosen_by

KeyMap = Callable[[Iterable[str], Iterable[str]], dict[str, str]]


def _take_any(model: str) -> None:
    """Accept any model."""


@dataclass(frozen=True)
class NamedMap:
    """A key map, how to recognise its source, and the models it applies to."""

    mark: re.Pattern[str]
    """A pattern for a name that only the source has, never the model."""
    map: KeyMap
    refuse: Callable[[str], None] = _take_any
    """Raises UsageError for a model (library's name) that would compute wrong results with such tensors."""
    join: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    """Joins tensors that are split in the source, before names are mapped."""


def map_efficientnet_pytorch(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:
    """Return {source name: target name} from efficientnet_pytorch's names to timm's.

    efficientnet_pytorch numbers blocks consecutively; timm groups them by stage. The first stage has no expansion,
    which shifts the numbers of norms and the name of the last convolution.

    Raises:
        ShardError: The weights have more blocks than the model.

    >>> timm_names = ["blocks.0.0.conv_dw.weight", "blocks.1.0.conv_pw.weight"]
    >>> map_efficientnet_pytorch(["_blocks.1._expand_conv.weight"], timm_names)
    {'_blocks.1._expand_conv.weight': 'blocks.1.0.conv_pw.weight'}
    """
    names = list(source)
    blocks = sorted(
        {tuple(map(int, m.groups())) for name in target if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
    )
    expanded = {m[1] for name in names if (m := re.match(r"_blocks\.(\d+)\._expand_conv", name))}
    mapped: dict[str, str] = {}
    for name in names:
        if match := re.match(r"_blocks\.(\d+)\.([^.]+)\.(.+)", name):
            number, part, tensor = match.groups()
            if int(number) >= len(blocks):
                raise ShardError(f"the weights have a block {number}, the model only {len(blocks)}; they do not fit")
            stage, position = blocks[int(number)]
            parts = _WITH_EXPANSION if number in expanded else _WITHOUT_EXPANSION
            mapped[name] = f"blocks.{stage}.{position}.{parts.get(part, part)}.{tensor}"
        else:
            part, _, tensor = name.partition(".")
            mapped[name] = f"{_OUTSIDE.get(part, part)}.{tensor}"
    return mapped


_OUTSIDE: Final = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip
_SQUEEZE: Final = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_WITH_EXPANSION: Final = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3", **_SQUEEZE,
}  # fmt: skip
_WITHOUT_EXPANSION: Final = {
    "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2", **_SQUEEZE,
}  # fmt: skip


def refuse_other_padding(model: str) -> None:
    """Raise for efficientnet_pytorch's tensors, which come from TensorFlow, if the model pads differently.

    Raises:
        UsageError: Names and shapes fit, but results would be wrong.
    """
    bare = model.removeprefix(TIMM_PREFIX).partition(".")[0]
    if model.startswith(TIMM_PREFIX) and not bare.startswith("tf_"):
        raise UsageError(
            f"the weights are efficientnet_pytorch's, which pads as TensorFlow does; {model} does not, and would "
            f"compute wrong results; set model={TIMM_PREFIX}tf_{bare}"
        )


def map_old_densenet(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:  # noqa: ARG001
    """Return {source name: target name} from the names in torchvision's published densenet files.

    Source: torchvision.models.densenet._load_state_dict.

    >>> map_old_densenet(["features.denseblock1.denselayer1.norm.1.weight"], [])
    {'features.denseblock1.denselayer1.norm.1.weight': 'features.denseblock1.denselayer1.norm1.weight'}
    """
    return {name: re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)", r"\1", name) for name in source}


KEY_MAPS: Final = {
    "efficientnet_pytorch": NamedMap(
        re.compile(r"_conv_stem\.weight$"), map_efficientnet_pytorch, refuse_other_padding
    ),
    "old densenet": NamedMap(re.compile(r"features\.denseblock1\.denselayer1\.norm\.1\.weight$"), map_old_densenet),
    "transformers' ViT": NamedMap(
        re.compile(r"(vit\.|deit\.)?encoder\.layer\.0\.attention\.attention\.query\.weight$"),
        map_hf_vit,
        refuse_other_than_vit,
        join_qkv,
    ),
    "transformers' ResNet": NamedMap(
        re.compile(r"(resnet\.)?embedder\.embedder\.convolution\.weight$"), map_hf_resnet, refuse_other_than_resnet
    ),
    "mmpretrain's ViT": NamedMap(
        re.compile(r"layers\.0\.ffn\.layers\.0\.0\.weight$"), map_mmpretrain_vit, refuse_other_than_vit
    ),
    "timm's ViT": NamedMap(re.compile(r"blocks\.0\.attn\.qkv\.weight$"), map_timm_vit, refuse_other_than_vit),
}

FOREIGN: Final = (
    (re.compile(r"(model\.)?0\.conv\.weight$"), "an Ultralytics YOLO model"),
    (re.compile(r"\w+\.embeddings\.|(\w+\.)?(encoder|embedder)\.(layers?|stages)\.0\."), "a model of transformers"),
    (re.compile(r".*\.ffn\.layers\.0\.0\.|.*depthwise_conv\.|.*\.w_msa\."), "a model of mmpretrain"),
)
"""Patterns of names from networks without a key map."""


def describe_foreign(source: Iterable[str]) -> str | None:
    """Return the kind of network that a file's names show, if no key map applies; None if unknown.

    >>> describe_foreign(["model.0.conv.weight", "model.0.bn.weight"])
    'an Ultralytics YOLO model'
    """
    names = list(source)
    return next((what for mark, what in FOREIGN if any(mark.match(name) for name in names)), None)


def find_key_map(source: Iterable[str], target: Iterable[str]) -> str | None:
    """Return the name of the key map for a file's names; None if they need none."""
    names, own = list(source), set(target)
    for title, known in KEY_MAPS.items():
        if any(known.mark.match(name) for name in names) and not any(known.mark.match(name) for name in own):
            return title
    return None


PREFIXES: Final = ("module.", "_orig_mod.", "model.", "backbone.", "pretrain_")
"""Prefixes that wrappers add to names: DataParallel, torch.compile, Lightning and many projects."""


def strip_prefixes(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:
    """Return {source name: target name}, with wrapper prefixes removed until the model knows the name.

    If a project stores its model under a name of its own (`self.net`), that is removed too. A name that the model does
    not have is returned without any prefix.

    Raises:
        ShardError: Several models under different names fit.

    >>> strip_prefixes(["module.model.fc.weight", "backbone.fc.bias"], ["fc.weight", "backbone.fc.bias"])
    {'module.model.fc.weight': 'fc.weight', 'backbone.fc.bias': 'backbone.fc.bias'}
    >>> strip_prefixes(["module.net.fc.weight", "loss.weight"], ["fc.weight"])
    {'module.net.fc.weight': 'fc.weight', 'loss.weight': 'loss.weight'}
    """
    own = set(target)
    names = {name: _strip(name, own) for name in source}
    place = _find_place(names.values(), own)
    return {name: bare.removeprefix(place) if bare not in own else bare for name, bare in names.items()}


def _strip(name: str, own: set[str]) -> str:
    while name not in own:
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)
    return name


def _find_place(names: Iterable[str], own: set[str]) -> str:
    """Return the prefix before the model's names, such as `net.`; "" if there is none."""
    names = list(names)
    if 2 * sum(name in own for name in names) >= len(own):
        return ""
    marks = [known.mark for known in KEY_MAPS.values() if not any(map(known.mark.match, own))]
    fitting: Counter[str] = Counter()
    for name in names:
        places = [name[: dot.end()] for dot in re.finditer(r"\.", name)]
        fitting.update(place for place in places if name.removeprefix(place) in own)
        marked = [name[: found.start()] for mark in marks if (found := mark.search(name))]
        fitting.update({place: len(own) for place in marked if place.endswith(".") or not place})
    enough = [place for place, number in fitting.items() if 2 * number >= len(own)]
    if len(enough) > 1:
        raise ShardError(
            f"the weights have several models that fit, under {' and '.join(enough)}; choose one by "
            f"{chosen_by(enough[0].removesuffix('.'))}"
        )
    return enough[0] if enough else ""


def unwrap_heads(source: Iterable[str], heads: list[str]) -> dict[str, str]:
    """Return {source name: target name} for heads in a Sequential after dropout, as in tutorials.

    A Sequential with two layers is not a library head and stays unchanged. mmpretrain's `head.fc` maps to the first
    head.

    >>> unwrap_heads(["fc.1.weight", "fc.1.bias"], ["fc"])
    {'fc.1.weight': 'fc.weight', 'fc.1.bias': 'fc.bias'}
    >>> unwrap_heads(["conv1.weight", "head.fc.weight"], ["fc"])
    {'head.fc.weight': 'fc.weight'}
    """
    names = list(source)
    unwrapped: dict[str, str] = {}
    if heads[0] != "head.fc" and "head.fc.weight" in names and f"{heads[0]}.weight" not in names:
        unwrapped = {name: f"{heads[0]}.{name[8:]}" for name in names if name in ("head.fc.weight", "head.fc.bias")}
    for head in heads:
        inside = [match for name in names if (match := re.fullmatch(rf"{re.escape(head)}\.(\d+)\.(weight|bias)", name))]
        if len({match[1] for match in inside}) == 1 and f"{head}.weight" not in names:
            unwrapped |= {match[0]: f"{head}.{match[2]}" for match in inside}
    return unwrapped
