"""Map tensor names of ViT and ResNet from transformers, mmpretrain and timm to those of the model's library."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor

from shards.errors import UsageError
from trainer.contract.model.names import TIMM_PREFIX

Rules = tuple[tuple[str, str], ...]

_HF_VIT: Final[Rules] = (
    (r"(?:vit\.|deit\.)?embeddings\.cls_token", "cls_token"),
    (r"(?:vit\.|deit\.)?embeddings\.position_embeddings", "pos_embed"),
    (r"(?:vit\.|deit\.)?embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:vit\.|deit\.)?encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"(?:vit\.|deit\.)?encoder\.layer\.(\d+)\.attention\.attention\.qkv\.", r"blocks.\1.attn.qkv."),
    (r"(?:vit\.|deit\.)?encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"(?:vit\.|deit\.)?encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"(?:vit\.|deit\.)?encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
    (r"(?:vit\.|deit\.)?encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
    (r"(?:vit\.|deit\.)?layernorm\.", "norm."),
    (r"classifier\.", "head."),
)
"""To timm's names. Source: transformers.models.vit.modeling_vit; query, key and value are one tensor in timm."""
_MMPRETRAIN_VIT: Final[Rules] = (
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"layers\.(\d+)\.(?:ln|norm)([12])\.", r"blocks.\1.norm\2."),
    (r"layers\.(\d+)\.attn\.", r"blocks.\1.attn."),
    (r"layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (r"(?:ln|norm)1\.", "norm."),
    (r"head\.layers\.head\.", "head."),
)
"""To timm's names. Source: mmpretrain.models.backbones.vision_transformer."""
_TORCHVISION_VIT: Final[Rules] = (
    (r"cls_token", "class_token"),
    (r"pos_embed", "encoder.pos_embedding"),
    (r"patch_embed\.proj\.", "conv_proj."),
    (r"blocks\.(\d+)\.norm([12])\.", r"encoder.layers.encoder_layer_\1.ln_\2."),
    (r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_\2"),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.encoder_layer_\1.self_attention.out_proj."),
    (r"blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layers.encoder_layer_\1.mlp.0."),
    (r"blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layers.encoder_layer_\1.mlp.3."),
    (r"norm\.", "encoder.ln."),
    (r"head\.(?=weight|bias)", "heads.head."),
)
"""From timm's names."""
_HF_RESNET: Final = re.compile(
    r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:(shortcut)|layer\.(\d+))\.(convolution|normalization)\."
)


def rename(name: str, rules: Rules) -> str:
    """Return a name with its prefix replaced by the first matching rule; unchanged if none matches.

    >>> rename("vit.layernorm.weight", _HF_VIT), rename("pooler.bias", _HF_VIT)
    ('norm.weight', 'pooler.bias')
    """
    for pattern, new in rules:
        if match := re.match(pattern, name):
            return match.expand(new) + name[match.end() :]
    return name


def _map_vit(source: Iterable[str], target: Iterable[str], rules: Rules) -> dict[str, str]:
    is_torchvision = "encoder.pos_embedding" in set(target)
    names = {name: rename(name, rules) for name in source}
    return {name: rename(new, _TORCHVISION_VIT) if is_torchvision else new for name, new in names.items()}


def map_hf_vit(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:
    """Return {source name: target name} from transformers' ViT to that of timm or torchvision.

    >>> map_hf_vit(["vit.encoder.layer.3.output.dense.bias"], [])
    {'vit.encoder.layer.3.output.dense.bias': 'blocks.3.mlp.fc2.bias'}
    """
    return _map_vit(source, target, _HF_VIT)


def map_mmpretrain_vit(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:
    """Return {source name: target name} from mmpretrain's ViT to that of timm or torchvision.

    >>> map_mmpretrain_vit(["layers.3.ln1.bias", "ln1.bias"], [])
    {'layers.3.ln1.bias': 'blocks.3.norm1.bias', 'ln1.bias': 'norm.bias'}
    """
    return _map_vit(source, target, _MMPRETRAIN_VIT)


def map_timm_vit(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:
    """Return {source name: target name} from timm's ViT names, which DINO also uses, to torchvision's.

    >>> map_timm_vit(["blocks.3.attn.qkv.bias"], ["encoder.pos_embedding"])
    {'blocks.3.attn.qkv.bias': 'encoder.layers.encoder_layer_3.self_attention.in_proj_bias'}
    """
    return _map_vit(source, target, ())


def join_qkv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with query, key and value of each layer concatenated to `qkv`."""
    joined: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.*\.attention\.attention\.)(query|key|value)\.(weight|bias)", name)
        parts = [f"{match[1]}{each}.{match[3]}" for each in ("query", "key", "value")] if match else []
        if match and all(part in tensors for part in parts):
            if match[2] == "query":
                joined[f"{match[1]}qkv.{match[3]}"] = torch.cat([tensors[part] for part in parts])
        else:
            joined[name] = tensor
    return joined


def map_hf_resnet(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:  # noqa: ARG001
    """Return {source name: target name} from transformers' ResNet to that of torchvision and timm.

    Source: transformers.models.resnet.modeling_resnet.

    >>> map_hf_resnet(["resnet.encoder.stages.0.layers.1.layer.2.normalization.bias", "classifier.1.bias"], [])
    {'resnet.encoder.stages.0.layers.1.layer.2.normalization.bias': 'layer1.1.bn3.bias', 'classifier.1.bias': 'fc.bias'}
    """
    outside = (
        (r"(?:resnet\.)?embedder\.embedder\.convolution\.", "conv1."),
        (r"(?:resnet\.)?embedder\.embedder\.normalization\.", "bn1."),
        (r"classifier\.1\.", "fc."),
    )
    mapped: dict[str, str] = {}
    for name in source:
        match = _HF_RESNET.match(name)
        if match is None:
            mapped[name] = rename(name, outside)
            continue
        stage, layer, shortcut, number, kind = match.groups()
        is_norm = kind == "normalization"
        part = f"downsample.{int(is_norm)}" if shortcut else f"{'bn' if is_norm else 'conv'}{int(number) + 1}"
        mapped[name] = f"layer{int(stage) + 1}.{layer}.{part}.{name[match.end() :]}"
    return mapped


def refuse_other_than_vit(model: str) -> None:
    """Raise if the weights of a plain ViT are to be loaded into a model that is not a plain ViT.

    Raises:
        UsageError: `model` is not a plain ViT.
    """
    if not re.match(r"(timm/)?(vit|deit3?|test_vit)(_|$|\.)", model) or re.search(r"quickgelu|_rope|_reg\d", model):
        raise UsageError(
            f"the weights are those of a plain ViT, but {model} computes differently; set model= to the ViT that they "
            f"belong to, such as vit_b_16 or {TIMM_PREFIX}vit_base_patch16_224"
        )


def refuse_other_than_resnet(model: str) -> None:
    """Raise if the weights of a plain ResNet are to be loaded into a model that is not a plain ResNet.

    Raises:
        UsageError: `model` is not a plain ResNet.
    """
    if not re.fullmatch(r"(timm/)?resnet(18|26|34|50|101|152)(\..*)?", model):
        raise UsageError(
            f"the weights are those of a plain ResNet, but {model} computes differently; set model= to the ResNet that "
            "they belong to, such as resnet50"
        )
