"""Load tensors into a backbone by name: rename, fit shapes, reject invalid ones, and report."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from shards.errors import ShardError
from trainer.contract.model.backbone import load_tensors
from trainer.contract.model.head import find_heads
from trainer.contract.model.model import ModelSpec
from trainer.weights.expectation import Expectation
from trainer.weights.key_maps import KEY_MAPS, describe_foreign, find_key_map, strip_prefixes, unwrap_heads
from trainer.weights.leftovers import ABSENT, COUNTER, TABLE, find_leftovers, list_untrained, shorten
from trainer.weights.read import Tensors
from trainer.weights.rows import unroll


@dataclass(frozen=True)
class LoadReport:
    """Result of loading: numbers of tensors, names left out, and why."""

    matched: int
    left_out: dict[str, str]
    """Tensors of the file that were not loaded, with the reason."""
    missing: tuple[str, ...] = ()
    """Tensors of the model that were not in the file, except BatchNorm's batch counters, which old files lack."""
    changes: tuple[str, ...] = ()
    """Changes made to names and tensors to fit the model."""
    leftovers: tuple[str, ...] = ()
    """Names in `left_out` that show the file to be another network."""
    untrained: tuple[str, ...] = ()
    """Names in `missing` that belong to the trunk and so start untrained."""
    source: str = ""
    """Name of what was loaded, for display."""
    head: str = ""
    """Why the file's head does not fit the model, if known."""

    def __str__(self) -> str:
        total = self.matched + len(self.missing)
        number = f"{self.matched} of {total}" if self.missing else f"all {total}"
        parts = [f"{number} tensors loaded", *self.changes]
        if self.left_out:
            parts.append(f"left out {shorten(f'{name} ({why})' for name, why in self.left_out.items())}")
        if others := [name for name in self.missing if name not in self.untrained]:
            parts.append(f"nothing for {shorten(others)}")
        if self.untrained:
            parts.append(f"untrained numbers left in {shorten(self.untrained)}")
        if self.head:
            parts.append(self.head)
        return "; ".join(parts)


def match_tensors(
    backbone: nn.Module,
    spec: ModelSpec,
    tensors: Tensors,
    key_map: str | None = None,
    title: str = "the file",
    single_output: bool = False,
    trained: Expectation | None = None,
) -> LoadReport:
    """Load tensors into a backbone by name; return a report.

    Args:
        backbone: Its tensors are replaced.
        spec: The spec it was built from.
        tensors: Tensors by their source's names.
        key_map: Name of the key map to the model's names; None: found by the names, if needed.
        title: Name of the source in errors.
        single_output, trained: As in `load_weights`.

    Raises:
        ShardError: Less than half of the model's tensors are found, or some have values that are not finite;
            nothing is loaded.
    """
    own, heads = backbone.state_dict(), find_heads(backbone)
    changes: list[str] = []
    foreign = tensors
    tensors = _rename(tensors, own, heads, key_map, changes, spec.name)
    tensors, head = _unroll(tensors, backbone, heads, changes)
    tensors = _fit_shapes(tensors, backbone, spec, trained, changes)
    if single_output:
        tensors = _double_outputs(tensors, own, heads, changes)
    left_out = {name: ABSENT for name in tensors if name not in own}
    left_out |= {
        name: f"shape {list(tensor.shape)}, the model has {list(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    }
    fitting = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    if 2 * len(fitting) < len(own):
        what = describe_foreign(foreign)
        not_ours = f"it is {what}, whose names are not mapped to {spec.name}'s" if what else ""
        raise ShardError(
            f"only {len(fitting)} of the {len(own)} tensors of {spec.name} are in {title}; "
            f"{not_ours or 'these weights belong to another model'}, so nothing was loaded"
        )
    _refuse_odd(fitting, own, title)
    load_tensors(backbone, fitting, strict=False)
    missing = tuple(name for name in own if name not in fitting and not name.endswith(COUNTER))
    return LoadReport(
        matched=len(fitting),
        left_out=left_out,
        missing=missing,
        changes=tuple(changes),
        leftovers=find_leftovers({name: tensors[name] for name in left_out}, own, fitting, heads),
        untrained=list_untrained(missing, heads),
        head=head,
    )


def _refuse_odd(tensors: Tensors, own: Mapping[str, Tensor], title: str) -> None:
    """Raise for tensors of a wrong type or with values that are not finite.

    Raises:
        ShardError: A tensor has integers instead of floats, or values that are not finite.
    """
    kinds = [name for name, each in tensors.items() if own[name].is_floating_point() and not each.is_floating_point()]
    if kinds:
        kind = str(tensors[kinds[0]].dtype).removeprefix("torch.")
        raise ShardError(
            f"{title} has {kind} in {shorten(kinds)}, where the model has floats; save the tensors before they are "
            "quantised"
        )
    odd = [name for name, tensor in tensors.items() if tensor.is_meta or not tensor.isfinite().all()]
    if odd:
        raise ShardError(
            f"{title} has values that are not finite in {shorten(odd)}; its training diverged, "
            "so use an earlier checkpoint"
        )


def _rename(
    tensors: Tensors, own: Mapping[str, Tensor], heads: list[str], key_map: str | None, changes: list[str], model: str
) -> Tensors:
    names = strip_prefixes(tensors, own)
    key_map = key_map or find_key_map(names.values(), own)
    if key_map:
        joined = KEY_MAPS[key_map].join({names[name]: tensor for name, tensor in tensors.items()})
        if joined.keys() != set(names.values()):
            tensors, names = joined, {name: name for name in joined}
    stripped = sum(name != target for name, target in names.items())
    if stripped:
        changes.append(f"prefixes taken off {stripped} names")
    if key_map:
        KEY_MAPS[key_map].refuse(model)
        mapped = KEY_MAPS[key_map].map(names.values(), own)
        names = {name: mapped[target] for name, target in names.items()}
        changes.append(f"names mapped from {key_map}")
    unwrapped = unwrap_heads(names.values(), heads)
    changes += [f"{name} used as {target}" for name, target in unwrapped.items()]
    names = {name: unwrapped.get(target, target) for name, target in names.items()}
    renamed: Tensors = {}
    for name, target in names.items():
        # If two names map to one (`fc.weight` and `module.fc.weight`), the plain one is used; the other keeps its name.
        renamed[target if target not in renamed and (name == target or target not in tensors) else name] = tensors[name]
    return renamed


def _unroll(tensors: Tensors, backbone: nn.Module, heads: list[str], changes: list[str]) -> tuple[Tensors, str]:
    """Map tensors of a Sequential of the model's children to its own names; also return why the head does not fit."""
    own = backbone.state_dict()
    if 2 * len(_list_fitting(tensors, own)) >= len(own):
        return tensors, ""
    row = unroll(tensors, backbone, heads)
    if row is None:
        return tensors, ""
    changes.append(f"{len(row.names)} names mapped from layers in a row")
    return {row.names.get(name, name): tensor for name, tensor in tensors.items()}, row.head


def _fit_shapes(
    tensors: Tensors, backbone: nn.Module, spec: ModelSpec, trained: Expectation | None, changes: list[str]
) -> Tensors:
    """Return the tensors fitted to the model: input channels, position tables, and names of the authors' files."""
    own, fitted = backbone.state_dict(), dict(tensors)
    if spec.in_channels == 1:
        from trainer.weights.gray import narrow_first_layers  # late: most backbones take three

        fitted, narrowed = narrow_first_layers(fitted, backbone, spec, trained)
        changes += narrowed
    before = _list_fitting(fitted, own)
    if not list_untrained(own.keys() - before, find_heads(backbone)):
        return fitted
    refitted = _fit_by_library(fitted, backbone)
    after = _list_fitting(refitted, own)
    if len(after) <= len(before):
        return fitted
    tables = [name for name in fitted if name in after - before and TABLE.search(name)]
    changes += [f"{name} interpolated to the size" for name in tables]
    if others := len(after - before) - len(tables):
        changes.append(f"{others} tensors renamed or reshaped by the library's own code")
    return refitted


def _list_fitting(tensors: Tensors, own: Mapping[str, Tensor]) -> set[str]:
    return {name for name, tensor in tensors.items() if name in own and tensor.shape == own[name].shape}


def _fit_by_library(tensors: Tensors, backbone: nn.Module) -> Tensors:
    """Return the tensors converted by the library's own code for the model; unchanged if it has none.

    It interpolates position tables to the model's size and maps the names of the authors' own files.
    """
    fit = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)  # a convention of timm
    try:
        if isinstance(backbone, VisionTransformer):
            return dict(interpolate_embeddings(backbone.image_size, backbone.patch_size, tensors))
        with warnings.catch_warnings(action="ignore"):  # from timm's arithmetic
            return tensors if fit is None else dict(fit(dict(tensors), backbone))
    except Exception:  # written for specific files, it may raise anything on others
        return tensors


def _double_outputs(tensors: Tensors, own: Mapping[str, Tensor], heads: list[str], changes: list[str]) -> Tensors:
    """Return the tensors with heads of one output expanded to two classes, 0 for the first."""
    doubled = dict(tensors)
    for head in heads:
        old, new = tensors.get(f"{head}.weight"), own[f"{head}.weight"]
        if old is not None and old.shape == (1, *new.shape[1:]) and len(new) == 2:
            for name in {f"{head}.weight", f"{head}.bias"} & set(tensors):
                doubled[name] = torch.cat([torch.zeros_like(tensors[name]), tensors[name]])
            changes.append(f"the one output of {head} used as the logit of the second class")
    return doubled
