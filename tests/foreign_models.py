"""Models as other libraries define them, written from their published definitions, for libraries that are not here."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def named(**children: nn.Module) -> nn.Module:
    """A module that only names its children, as the libraries nest them."""
    return nn.ModuleDict(children)


class HfViT(nn.Module):
    """transformers.ViTForImageClassification: query, key and value apart, the class token's vector into the head."""

    def __init__(self, width: int, depth: int, heads: int, places: int, patch: int, num_classes: int) -> None:
        super().__init__()
        self.heads = heads
        projection = nn.Conv2d(3, width, patch, patch)
        self.vit = nn.Module()
        self.vit.embeddings = nn.Module()
        self.vit.embeddings.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.vit.embeddings.position_embeddings = nn.Parameter(torch.randn(1, places + 1, width))
        self.vit.embeddings.patch_embeddings = named(projection=projection)
        layers = [
            named(
                attention=named(
                    attention=named(**{name: nn.Linear(width, width) for name in ("query", "key", "value")}),
                    output=named(dense=nn.Linear(width, width)),
                ),
                intermediate=named(dense=nn.Linear(width, 2 * width)),
                output=named(dense=nn.Linear(2 * width, width)),
                layernorm_before=nn.LayerNorm(width, eps=1e-12),
                layernorm_after=nn.LayerNorm(width, eps=1e-12),
            )
            for _ in range(depth)
        ]
        self.vit.encoder = named(layer=nn.ModuleList(layers))
        self.vit.layernorm = nn.LayerNorm(width, eps=1e-12)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        embed, own = self.vit.embeddings, self.vit
        hidden = embed.patch_embeddings["projection"](images).flatten(2).transpose(1, 2)
        hidden = torch.cat([embed.cls_token.expand(len(hidden), -1, -1), hidden], 1) + embed.position_embeddings
        for layer in own.encoder["layer"]:
            attention = layer["attention"]
            inside = layer["layernorm_before"](hidden)
            query, key, value = (
                attention["attention"][name](inside).unflatten(2, (self.heads, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
            mixed = (scores.softmax(3) @ value).transpose(1, 2).flatten(2)
            hidden = attention["output"]["dense"](mixed) + hidden
            inside = functional.gelu(layer["intermediate"]["dense"](layer["layernorm_after"](hidden)))
            hidden = layer["output"]["dense"](inside) + hidden
        logits: Tensor = self.classifier(own.layernorm(hidden)[:, 0])
        return logits


def convolve(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Module:
    """transformers.ResNetConvLayer without its activation."""
    convolution = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
    return named(convolution=convolution, normalization=nn.BatchNorm2d(outside))


def apply(layer: nn.Module, images: Tensor) -> Tensor:
    normalised: Tensor = layer["normalization"](layer["convolution"](images))  # type: ignore[index]
    return normalised


class HfResNetLayer(nn.Module):
    """transformers.ResNetBasicLayer and ResNetBottleNeckLayer, whose stride is in the 3x3 convolution."""

    def __init__(self, inside: int, outside: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if inside != outside or stride != 1:
            self.shortcut = convolve(inside, outside, 1, stride)
        narrow = outside // 4
        parts = (
            [(inside, narrow, 1, 1), (narrow, narrow, 3, stride), (narrow, outside, 1, 1)]
            if bottleneck
            else [(inside, outside, 3, stride), (outside, outside, 3, 1)]
        )
        self.layer = nn.ModuleList(convolve(*part) for part in parts)

    def forward(self, images: Tensor) -> Tensor:
        hidden = images
        for number, layer in enumerate(self.layer):
            hidden = apply(layer, hidden)
            hidden = hidden.relu() if number + 1 < len(self.layer) else hidden
        return (hidden + (apply(self.shortcut, images) if hasattr(self, "shortcut") else images)).relu()


class HfResNet(nn.Module):
    """transformers.ResNetForImageClassification."""

    def __init__(self, depths: list[int], widths: list[int], bottleneck: bool, num_classes: int) -> None:
        super().__init__()
        stages, inside = [], 64
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            layers = []
            for position in range(depth):
                layers.append(HfResNetLayer(inside, width, 2 if number and not position else 1, bottleneck))
                inside = width
            stages.append(named(layers=nn.Sequential(*layers)))
        self.resnet = named(embedder=named(embedder=convolve(3, 64, 7, 2)), encoder=named(stages=nn.ModuleList(stages)))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(inside, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        hidden = apply(self.resnet["embedder"]["embedder"], images).relu()  # type: ignore[index]
        hidden = functional.max_pool2d(hidden, 3, 2, 1)
        for stage in self.resnet["encoder"]["stages"]:  # type: ignore[index]
            hidden = stage["layers"](hidden)
        logits: Tensor = self.classifier(functional.adaptive_avg_pool2d(hidden, 1))
        return logits


class LightningTransfer(nn.Module):
    """The model of Lightning's page on transfer learning: the children of another but the last, and a classifier."""

    def __init__(self, backbone: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.feature_extractor = nn.Sequential(*list(backbone.children())[:-1])
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.feature_extractor(images).flatten(1))
        return logits


class FastaiConcatPool(nn.Module):
    """fastai.layers.AdaptiveConcatPool2d: maximum, then average."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([functional.adaptive_max_pool2d(images, 1), functional.adaptive_avg_pool2d(images, 1)], 1)


def make_fastai(backbone: nn.Module, width: int, num_classes: int) -> nn.Module:
    """fastai.vision.learner.create_cnn_model: the body without pooling and head, and fastai's own head."""
    head = nn.Sequential(
        FastaiConcatPool(), nn.Flatten(), nn.BatchNorm1d(2 * width), nn.Dropout(0.25),
        nn.Linear(2 * width, 512, bias=False), nn.ReLU(), nn.BatchNorm1d(512), nn.Dropout(0.5),
        nn.Linear(512, num_classes, bias=False),
    )  # fmt: skip
    return nn.Sequential(nn.Sequential(*list(backbone.children())[:-2]), head)


class MmpretrainClassifier(nn.Module):
    """mmpretrain.ImageClassifier with a LinearClsHead: `backbone`, and `head.fc`."""

    def __init__(self, backbone: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        del backbone.fc
        self.backbone = backbone
        self.head = named(fc=nn.Linear(width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        hidden = images
        for name, layer in self.backbone.named_children():
            hidden = layer(hidden).relu() if name == "bn1" else hidden if name == "relu" else layer(hidden)
        logits: Tensor = self.head["fc"](hidden.flatten(1))  # type: ignore[index]
        return logits


class MmpretrainViT(nn.Module):
    """mmpretrain.ImageClassifier of a VisionTransformer with a VisionTransformerClsHead."""

    def __init__(self, width: int, depth: int, heads: int, places: int, patch: int, num_classes: int) -> None:
        super().__init__()
        self.heads = heads
        own = self.backbone = nn.Module()
        own.cls_token = nn.Parameter(torch.randn(1, 1, width))
        own.pos_embed = nn.Parameter(torch.randn(1, places + 1, width))
        own.patch_embed = named(projection=nn.Conv2d(3, width, patch, patch))
        own.layers = nn.ModuleList(
            named(
                ln1=nn.LayerNorm(width, eps=1e-6),
                attn=named(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width)),
                ln2=nn.LayerNorm(width, eps=1e-6),
                ffn=named(
                    layers=nn.Sequential(
                        nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0)),
                        nn.Linear(2 * width, width),
                        nn.Dropout(0),
                    )
                ),
            )
            for _ in range(depth)
        )
        own.ln1 = nn.LayerNorm(width, eps=1e-6)
        self.head = named(layers=named(head=nn.Linear(width, num_classes)))

    def forward(self, images: Tensor) -> Tensor:
        own = self.backbone
        hidden = own.patch_embed["projection"](images).flatten(2).transpose(1, 2)
        hidden = torch.cat([own.cls_token.expand(len(hidden), -1, -1), hidden], 1) + own.pos_embed
        for layer in own.layers:
            query, key, value = (
                each.unflatten(2, (self.heads, -1)).transpose(1, 2)
                for each in layer["attn"]["qkv"](layer["ln1"](hidden)).chunk(3, 2)
            )
            mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
            hidden = hidden + layer["attn"]["proj"](mixed)
            hidden = hidden + layer["ffn"]["layers"](layer["ln2"](hidden))
        logits: Tensor = self.head["layers"]["head"](own.ln1(hidden)[:, 0])  # type: ignore[index]
        return logits
