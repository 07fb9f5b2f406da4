"""Starting weights: from wherever a recipe's `weights` says, into a backbone, by name."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from shards.errors import ShardError, UsageError
from shards.fingerprint import fingerprint_bytes, fingerprint_file
from trainer.contract.backbone import find_first_convolutions, find_timm_cfg, is_size_fixed, load_tensors, one_line
from trainer.contract.bundle import WEIGHTS, is_bundle, read_bundle_page
from trainer.contract.head import find_heads
from trainer.contract.model import ModelSpec
from trainer.contract.names import TIMM_PREFIX
from trainer.weights.expectation import SCRATCH, Expectation
from trainer.weights.installed import INSTALLED, find_installed
from trainer.weights.key_maps import KEY_MAPS, find_key_map, strip_prefixes, unwrap_heads
from trainer.weights.published import find_published, list_tags, read_timm_cfg
from trainer.weights.read import Found, Tensors, hide_query, read_bytes, read_tensors

_SHOWN: Final = 6
_COUNTER: Final = "num_batches_tracked"
_TABLE: Final = r"pos_embed|relative_position|rel_pos"
"""What tables of positions are called, in both libraries."""


@dataclass(frozen=True)
class LoadReport:
    """What came of loading: numbers of tensors, and the names that were left out and why."""

    matched: int
    left_out: dict[str, str]
    """Tensors of the file that went nowhere, with the reason."""
    missing: tuple[str, ...] = ()
    """Tensors of the model that got nothing; counters of BatchNorm's batches, which old files lack, do not count."""
    changes: tuple[str, ...] = ()
    """What was done to names and tensors to make them fit."""

    def __str__(self) -> str:
        parts = [f"{self.matched} tensors loaded", *self.changes]
        if self.left_out:
            parts.append(f"left out {_shorten([f'{name} ({why})' for name, why in self.left_out.items()])}")
        if self.missing:
            parts.append(f"nothing for {_shorten(list(self.missing))}")
        return "; ".join(parts)


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def read_expectation(model: str, weights: str) -> Expectation:
    """Return what the weights of a recipe expect of a picture.

    Args:
        model: The library's name of the model.
        weights: As in the recipe. A file says nothing itself: it is taken for one of the library's kind.

    Raises:
        UsageError: The weights are another model's.
    """
    if weights in INSTALLED:
        return INSTALLED[weights].expects
    if published := find_published(model, weights):
        return published.expects
    if weights != "none" and is_bundle(Path(weights)):
        page = read_bundle_page(Path(weights))
        mean, std = (values * (3 // len(values)) for values in (page.model.mean, page.model.std))
        return Expectation(mean, std, page.preprocess.size, page.preprocess.interpolation, page.preprocess.resize)
    own = _read_own(model)
    if weights != "none":
        return own or SCRATCH
    if own and is_size_fixed(model):
        return Expectation(SCRATCH.mean, SCRATCH.std, own.size, SCRATCH.interpolation)
    return SCRATCH


def read_own_expectation(model: str) -> Expectation:
    """Return what a model's authors trained it with; that of a new model where the library does not say."""
    return _read_own(model) or SCRATCH


def _read_own(model: str) -> Expectation | None:
    if published := find_published(model, "pretrained"):
        return published.expects
    if not model.startswith(TIMM_PREFIX):
        return None
    cfg = find_timm_cfg(model)
    return read_timm_cfg(cfg) if cfg else None


def load_weights(backbone: nn.Module, spec: ModelSpec, weights: str, single_output: bool = False) -> LoadReport | None:
    """Load weights into a backbone by name, the head left out where it has other classes; None for `none`.

    A head that got no weights is set to zero, so that training starts at the loss of a guess, ln K; the random
    heads of some libraries start far above and spoil the features before they are of use.

    Args:
        backbone: Its tensors are replaced.
        spec: What it was built by.
        weights: As in the recipe.
        single_output: Take a head of one output, whose sigmoid is the probability of the second of two classes, for
            one of two: with 0 for the first class the softmax says the same.

    Raises:
        UsageError: No such weights, not on this machine, or made for another model.
        ShardError: Not a readable weights file, less than half of the tensors match, or one has values that are not
            finite.
    """
    if weights == "none":
        return None
    source = _read_source(spec, weights)
    tensors, title = source.found.tensors, hide_query(weights)
    report = match_tensors(backbone, spec, tensors, source.key_map, title, single_output)
    beside = [f"{key} of the same file not taken" for key in source.found.beside]
    for head in find_heads(backbone):
        if f"{head}.weight" in report.missing:
            for parameter in backbone.get_submodule(head).parameters():
                nn.init.zeros_(parameter)
    return replace(report, changes=(*beside, *report.changes))


class _Source(NamedTuple):
    """Tensors by the names of their source, and the key map that it is known to need."""

    found: Found
    key_map: str | None = None


def _read_source(spec: ModelSpec, weights: str) -> _Source:
    if weights in INSTALLED:
        return _Source(read_tensors(find_installed(weights, spec.name)), INSTALLED[weights].key_map)
    if published := find_published(spec.name, weights):
        found = read_tensors(str(published.locate()))
        if spec.name.startswith(TIMM_PREFIX):
            found = Found(_pass_through_timm(f"{published.model}.{published.tag}", found.tensors, spec))
        return _Source(found)
    path = Path(weights)
    if is_bundle(path):
        page = read_bundle_page(path)
        if fingerprint_file(path / WEIGHTS) != page.weights_sha256:
            raise ShardError(f"{path / WEIGHTS}: sha256 differs from bundle.json; restore the bundle from a backup")
        content = {name: tensor for name, tensor in load_file(path / WEIGHTS).items() if name not in ("mean", "std")}
        return _Source(Found({name.removeprefix("backbone."): tensor for name, tensor in content.items()}))
    if "://" not in weights and not path.exists():
        tags = list_tags(spec.name)
        raise UsageError(
            f"no weights '{weights}': neither a file, nor none, nor one of {', '.join(INSTALLED)}; "
            f"{spec.name} has {', '.join(tags) or 'no published ones'}"
        )
    return _Source(read_tensors(weights))


def _pass_through_timm(name: str, tensors: Tensors, spec: ModelSpec) -> Tensors:
    """Return timm's published tensors under the names of its model, position tables fitted to the size.

    Raises:
        ShardError: timm cannot make them fit.
    """
    import timm

    options: dict[str, Any] = {"img_size": spec.image_size} if spec.image_size and is_size_fixed(spec.name) else {}
    try:
        model = timm.create_model(
            name.removeprefix(TIMM_PREFIX),
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": tensors},
            **options,
        )
    except (AssertionError, KeyError, RuntimeError, ValueError) as err:
        raise ShardError(f"the file of {name} does not hold the weights of that model ({one_line(err)})") from err
    content: Tensors = model.state_dict()
    return content


def describe_origin(spec: ModelSpec, weights: str) -> str:
    """Return where weights came from, and the sha256 of their file."""
    path = Path(weights)
    if weights in INSTALLED:
        title, path = INSTALLED[weights].package, Path(find_installed(weights, spec.name))
    elif published := find_published(spec.name, weights):
        title, path = published.url, published.locate()
    elif is_bundle(path):
        title, path = f"bundle {path.name}", path / WEIGHTS
    else:
        where = hide_query(weights)
        title = where if "://" in where else path.name
    digest = fingerprint_bytes(read_bytes(weights)) if "://" in weights else fingerprint_file(path)
    return f"{title}, sha256 {digest}"


def match_tensors(
    backbone: nn.Module,
    spec: ModelSpec,
    tensors: Tensors,
    key_map: str | None = None,
    title: str = "the file",
    single_output: bool = False,
) -> LoadReport:
    """Load tensors into a backbone by name; return what came of it.

    Args:
        backbone: Its tensors are replaced.
        spec: What it was built by.
        tensors: By the names of their source.
        key_map: Name of the key map from those to the model's; None: found by the names, if there is need of one.
        title: What the tensors are called in errors.
        single_output: As in `load_weights`.

    Raises:
        ShardError: Less than half of the model's tensors are among them, or some have values that are not finite;
            nothing is loaded.
    """
    own, heads = backbone.state_dict(), find_heads(backbone)
    changes: list[str] = []
    tensors = _rename(tensors, own, heads, key_map, changes, spec.name)
    tensors = _fit_shapes(tensors, backbone, spec, changes)
    if single_output:
        tensors = _double_outputs(tensors, own, heads, changes)
    left_out = {name: "not in the model" for name in tensors if name not in own}
    left_out |= {
        name: f"shape {list(tensor.shape)}, the model has {list(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    }
    fitting = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    if 2 * len(fitting) < len(own):
        raise ShardError(
            f"only {len(fitting)} of the {len(own)} tensors of {spec.name} are in {title}; "
            "these weights belong to another model, so nothing was loaded"
        )
    _refuse_odd(fitting, own, title)
    load_tensors(backbone, fitting, strict=False)
    missing = tuple(name for name in own if name not in fitting and not name.endswith(_COUNTER))
    return LoadReport(len(fitting), left_out, missing, tuple(changes))


def _refuse_other_padding(model: str) -> None:
    """Refuse efficientnet_pytorch's tensors, which come from TensorFlow, for a model with other padding and epsilon.

    Raises:
        UsageError: Names and shapes fit, and answers would be wrong.
    """
    bare = model.removeprefix(TIMM_PREFIX).partition(".")[0]
    if model.startswith(TIMM_PREFIX) and not bare.startswith("tf_"):
        raise UsageError(
            f"the weights are efficientnet_pytorch's, which pads as TensorFlow does, and {model} does not: it would "
            f"answer wrongly; name {TIMM_PREFIX}tf_{bare}"
        )


def _refuse_odd(tensors: Tensors, own: Mapping[str, Tensor], title: str) -> None:
    """Refuse tensors that are no numbers of the model's kind.

    Raises:
        ShardError: Integers where the model has floats, or values that are not finite.
    """
    kinds = [name for name, each in tensors.items() if own[name].is_floating_point() and not each.is_floating_point()]
    if kinds:
        kind = str(tensors[kinds[0]].dtype).removeprefix("torch.")
        raise ShardError(
            f"{title} has {kind} in {_shorten(kinds)}, where the model has floats; save the tensors before they are "
            "quantised"
        )
    odd = [name for name, tensor in tensors.items() if tensor.is_meta or not tensor.isfinite().all()]
    if odd:
        raise ShardError(
            f"{title} has values that are no finite numbers in {_shorten(odd)}; its training went wrong there, "
            "so take an earlier checkpoint"
        )


def _rename(
    tensors: Tensors, own: Mapping[str, Tensor], heads: list[str], key_map: str | None, changes: list[str], model: str
) -> Tensors:
    names = strip_prefixes(tensors, own)
    key_map = key_map or find_key_map(names.values(), own)
    if key_map == "efficientnet_pytorch":
        _refuse_other_padding(model)
    stripped = sum(name != target for name, target in names.items())
    if stripped:
        changes.append(f"prefixes taken off {stripped} names")
    if key_map:
        mapped = KEY_MAPS[key_map].map(names.values(), own)
        names = {name: mapped[target] for name, target in names.items()}
        changes.append(f"names mapped from {key_map}")
    unwrapped = unwrap_heads(names.values(), heads)
    changes += [f"{name} taken for {target}" for name, target in unwrapped.items()]
    names = {name: unwrapped.get(target, target) for name, target in names.items()}
    renamed: Tensors = {}
    for name, target in names.items():
        # Two that would be one (`fc.weight` and `module.fc.weight`): the plain name counts, the other stays itself.
        renamed[target if target not in renamed and (name == target or target not in tensors) else name] = tensors[name]
    return renamed


def _fit_shapes(tensors: Tensors, backbone: nn.Module, spec: ModelSpec, changes: list[str]) -> Tensors:
    """Return the tensors with the picture's channels and the position tables made to fit."""
    own, fitted = backbone.state_dict(), dict(tensors)
    for name in (f"{layer}.weight" for layer in find_first_convolutions(backbone)):
        if spec.in_channels == 1 and name in fitted and fitted[name].shape[1:2] == (3,):
            from timm.models import adapt_input_conv

            fitted[name] = adapt_input_conv(1, fitted[name])
            changes.append(f"{name} summed over its channels")
    tables = [name for name in fitted if re.search(_TABLE, name) and name in own]
    tables = [name for name in tables if fitted[name].shape != own[name].shape]
    if tables:
        fitted = _fit_tables(fitted, backbone)
        changes += [f"{name} interpolated to the size" for name in tables if fitted[name].shape == own[name].shape]
    return fitted


def _fit_tables(tensors: Tensors, backbone: nn.Module) -> Tensors:
    """Return the tensors with position tables for the model's size, by the library's own code; as they were without."""
    fit = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)  # a convention of timm's
    try:
        if isinstance(backbone, VisionTransformer):
            return dict(interpolate_embeddings(backbone.image_size, backbone.patch_size, tensors))
        with warnings.catch_warnings(action="ignore"):  # of timm's own arithmetic
            return tensors if fit is None else dict(fit(dict(tensors), backbone))
    except (AssertionError, KeyError, RuntimeError, ValueError):
        return tensors


def _double_outputs(tensors: Tensors, own: Mapping[str, Tensor], heads: list[str], changes: list[str]) -> Tensors:
    """Return the tensors with heads of one output made such of two classes, 0 for the first."""
    doubled = dict(tensors)
    for head in heads:
        old, new = tensors.get(f"{head}.weight"), own[f"{head}.weight"]
        if old is not None and old.shape == (1, *new.shape[1:]) and len(new) == 2:
            for name in {f"{head}.weight", f"{head}.bias"} & set(tensors):
                doubled[name] = torch.cat([torch.zeros_like(tensors[name]), tensors[name]])
            changes.append(f"the one output of {head} taken for the sigmoid of the second class")
    return doubled
