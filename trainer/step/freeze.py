"""Freeze layers of the backbone, for some epochs or the whole run."""

from __future__ import annotations

from torch import nn

from shards.errors import UsageError
from trainer.contract.model.head import find_heads
from trainer.contract.model.model import Classifier

Norm = nn.modules.batchnorm._BatchNorm


def list_frozen(model: Classifier, prefixes: list[str]) -> list[str]:
    """Return the names of the backbone parameters that begin with one of `prefixes`; `backbone` means all except the
    heads.

    Raises:
        UsageError: A prefix matches no parameter, or nothing is left to train.
    """
    heads = find_heads(model.backbone)
    names = [name for name, _ in model.backbone.named_parameters()]
    for prefix in prefixes:
        if prefix != "backbone" and not any(is_below(name, prefix) for name in names):
            tops = sorted({name.split(".")[0] for name in names})
            raise UsageError(
                f"freeze: no parameter of {model.spec.name} begins with '{prefix}'; it has {', '.join(tops)}"
            )
    chosen = [name for name in names if is_chosen(name, prefixes, heads)]
    if len(chosen) == len(names):
        raise UsageError("freeze leaves nothing to train; [backbone] freezes all except the head")
    return chosen


def apply_freeze(model: Classifier, prefixes: list[str], frozen: bool) -> list[nn.Module]:
    """Freeze or unfreeze backbone parameters by name prefix; return the norms that are now frozen.

    A frozen parameter has no gradient, so optimizers skip it: it does not change, decay or gather momentum, and starts
    fresh when it is unfrozen. The caller keeps the norms in evaluation mode.

    Raises:
        UsageError: A prefix matches no parameter, or nothing is left to train.
    """
    for name in list_frozen(model, prefixes):
        parameter = model.backbone.get_parameter(name)
        parameter.requires_grad_(not frozen)
        parameter.grad = None  # a gradient left from the last step would change it once more
    if not frozen:
        return []
    heads = find_heads(model.backbone)
    modules = model.backbone.named_modules()
    return [module for name, module in modules if isinstance(module, Norm) and is_chosen(name, prefixes, heads)]


def is_below(name: str, prefix: str) -> bool:
    """Return whether a dotted name is `prefix` or below it.

    >>> is_below("blocks.1.weight", "blocks.1"), is_below("blocks.10.weight", "blocks.1")
    (True, False)
    """
    return name == prefix or name.startswith(f"{prefix}.")


def is_chosen(name: str, prefixes: list[str], heads: list[str]) -> bool:
    """Return whether `prefixes` freeze a tensor or module of the backbone; heads: the names of its heads."""
    if "backbone" in prefixes and not any(is_below(name, head) for head in heads):
        return True
    return any(is_below(name, prefix) for prefix in prefixes)
