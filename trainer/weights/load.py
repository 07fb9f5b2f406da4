"""Load initial weights, as named by a recipe's `weights`, into a backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import nn

from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_bytes, fingerprint_file
from trainer.contract.bundle import read_bundle_page
from trainer.contract.intact import WEIGHTS, is_bundle
from trainer.contract.model.backbone import is_size_fixed, one_line
from trainer.contract.model.head import find_heads
from trainer.contract.model.model import ModelSpec
from trainer.contract.model.names import TIMM_PREFIX
from trainer.weights.expectation import Expectation
from trainer.weights.installed import INSTALLED, find_installed
from trainer.weights.leftovers import shorten
from trainer.weights.match import LoadReport, match_tensors
from trainer.weights.published import find_published, list_tags
from trainer.weights.read import FOUND, Choice, Found, Tensors, chosen_by, hide_query, read_bytes, read_tensors
from trainer.weights.saved import check_architecture, fingerprint_saved, is_saved_folder


def load_weights(
    backbone: nn.Module,
    spec: ModelSpec,
    weights: str,
    single_output: bool = False,
    choice: Choice = FOUND,
    trained: Expectation | None = None,
) -> LoadReport | None:
    """Load weights into a backbone by name, without the head if its classes differ; return None for `none`.

    The report names leftovers; the caller decides whether to reject them (`refuse_leftovers`). A head without weights
    is set to zero, so that training starts at the loss of a guess, ln K; the random heads of some libraries start far
    higher and would damage the features first.

    Args:
        backbone: Its tensors are replaced.
        spec: The spec it was built from.
        weights: As in the recipe.
        single_output: Convert a head with one output, whose sigmoid is the probability of the second of two classes, to
            two outputs: with 0 for the first class the softmax is the same.
        choice: Which of several models in a file.
        trained: Mean and deviation that the weights were trained with, for a one-channel backbone; None: spec's.

    Raises:
        UsageError: The weights are unknown, not on this machine, or of another model.
        ShardError: The file is unreadable, less than half of the tensors match, or one has values that are not
            finite.
    """
    if weights == "none":
        return None
    source = _read_source(spec, weights, choice)
    tensors, title = source.found.tensors, hide_query(weights)
    report = match_tensors(backbone, spec, tensors, source.key_map, source.title or title, single_output, trained)
    for head in find_heads(backbone):
        if f"{head}.weight" in report.missing:
            for parameter in backbone.get_submodule(head).parameters():
                nn.init.zeros_(parameter)
    return replace(report, changes=(*_describe_choice(source.found), *report.changes), source=source.title or title)


def _describe_choice(found: Found) -> list[str]:
    """Return notes about choices made in reading a file that a user may want to change."""
    taken = [f"{found.average} taken, the average of the weights (--no-ema, weights_ema=false: not)"]
    beside = [f"{key} of the same file not taken" for key in found.beside]
    unbuilt = [f"read without building {shorten(found.unbuilt, 3)}"]
    return [*(taken if found.average else []), *beside, *(unbuilt if found.unbuilt else [])]


class _Source(NamedTuple):
    """Tensors by their source's names, the key map if known, and a title for messages.

    title: Set for weights that a recipe names by a word.
    """

    found: Found
    key_map: str | None = None
    title: str = ""


def _read_source(spec: ModelSpec, weights: str, choice: Choice) -> _Source:
    one_alone = weights in INSTALLED or is_bundle(Path(weights)) or find_published(spec.name, weights) is not None
    if choice.key is not None and one_alone:
        raise UsageError(
            f"{chosen_by(choice.key)} chooses one of several models in a file, but {weights} has only one; leave it out"
        )
    if weights in INSTALLED:
        file = find_installed(weights, spec.name)
        return _Source(read_tensors(file), INSTALLED[weights].key_map, f"{weights} ({file})")
    if published := find_published(spec.name, weights):
        file = str(published.locate())
        found = read_tensors(file)
        if spec.name.startswith(TIMM_PREFIX):
            found = Found(_pass_through_timm(f"{published.model}.{published.tag}", found.tensors, spec))
        return _Source(found, title=f"{published.tag} of {published.model} ({file})")
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
            f"no weights '{weights}': not a file, not none, and not one of {', '.join(INSTALLED)}; "
            f"{spec.name} has {', '.join(tags) or 'no published ones'}"
        )
    if is_saved_folder(path):
        check_architecture(path)
    return _Source(read_tensors(weights, choice))


def _pass_through_timm(name: str, tensors: Tensors, spec: ModelSpec) -> Tensors:
    """Return timm's published tensors by the names of its model, with position tables resized.

    Raises:
        ShardError: timm cannot convert them.
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
        raise ShardError(f"the published weights file of {name} does not fit that model ({one_line(err)})") from err
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
        title = where if "://" in where else path.absolute().name
    if is_saved_folder(path):
        return f"{title}, sha256 {fingerprint_saved(path)}"
    digest = fingerprint_bytes(read_bytes(weights)) if "://" in weights else fingerprint_file(path)
    return f"{title}, sha256 {digest}"
