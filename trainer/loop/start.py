"""Load and report a run's initial weights; raise if layers without weights would stay frozen."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from shards.errors import UsageError
from trainer.contract.model.backbone import find_first_convolutions
from trainer.contract.model.head import find_heads
from trainer.contract.model.model import Classifier
from trainer.recipes.recipe import ResolvedRecipe
from trainer.step.freeze import is_chosen, list_frozen
from trainer.weights.expectation import Expectation
from trainer.weights.leftovers import STATISTICS, is_learnt, refuse_leftovers, shorten
from trainer.weights.load import load_weights
from trainer.weights.match import LoadReport
from trainer.weights.read import Choice

logger = logging.getLogger(__name__)


def load_start(model: Classifier, recipe: ResolvedRecipe, trained: Expectation, begun: bool) -> None:
    """Load a recipe's weights into a model that was built for it, and log the result.

    Args:
        model: Its tensors are replaced.
        recipe: The recipe with weights and freeze.
        trained: The preprocessing that the weights were trained with.
        begun: Whether the run has a snapshot; then checks of new runs are skipped.

    Raises:
        UsageError: The weights are unknown, or layers to freeze have none.
        ShardError: The weights do not fit, or belong to another network.
    """
    choice = Choice(recipe.weights_key, recipe.weights_ema)
    report = load_weights(model.backbone, model.spec, recipe.weights, choice=choice, trained=trained)
    if report is not None:
        _report_loading(report, model, recipe, begun)
    if recipe.freeze:
        _refuse_frozen_noise(report, model, recipe, begun)


def _report_loading(report: LoadReport, model: Classifier, recipe: ResolvedRecipe, begun: bool) -> None:
    """Log what was loaded: a warning if something of the trunk or the file was not.

    Raises:
        ShardError: There are leftovers that the recipe does not allow.
    """
    name = model.spec.name
    if not (recipe.allow_leftovers or begun):
        remedy = f"{_advise(report, model)}, or insist with allow_leftovers=true"
        refuse_leftovers(report.leftovers, report.left_out, name, report.source, remedy)
    level = logging.WARNING if report.leftovers or report.untrained else logging.INFO
    logger.log(level, "weights %s into %s: %s", report.source, name, report)


def _refuse_frozen_noise(report: LoadReport | None, model: Classifier, recipe: ResolvedRecipe, begun: bool) -> None:
    """Raise if frozen layers got no weights: later layers would learn from features of random layers."""
    unloaded = list(model.backbone.state_dict()) if report is None else report.missing
    noise = [name for name in _list_frozen(model, recipe.freeze, unloaded) if is_learnt(name)]
    if not noise:
        return
    if report is None:
        source, lack = "weights=none", "loads nothing"
        remedy = f"train them ({_release(recipe)}), or give weights= that include them"
    else:
        source, lack = report.source, f"has nothing for {shorten(noise)}"
        remedy = f"remove these from freeze, train all layers ({_release(recipe)}), or give weights= that include them"
    fact = f"freeze={_write(recipe.freeze)} keeps layers as loaded, but {source} {lack}: they stay random"
    if not begun:
        raise UsageError(f"{fact}; {remedy}")
    logger.warning("%s. The run started this way and is resumed unchanged; start another one for better weights", fact)


def _list_frozen(model: Classifier, prefixes: list[str], unloaded: Iterable[str]) -> list[str]:
    """Return the backbone's tensors without weights that would stay frozen: parameters and statistics."""
    heads, frozen = find_heads(model.backbone), set(list_frozen(model, prefixes))
    return [
        name for name in unloaded if name in frozen or (name.endswith(STATISTICS) and is_chosen(name, prefixes, heads))
    ]


def _release(recipe: ResolvedRecipe) -> str:
    """Return the options that freeze nothing."""
    return "freeze=[]" if recipe.freeze_epochs is None else "freeze=[] freeze_epochs=null"


def _write(names: list[str]) -> str:
    return f"[{', '.join(names)}]"


def _advise(report: LoadReport, model: Classifier) -> str:
    """Return what to check if a file has leftovers."""
    first = {f"{layer}.weight" for layer in find_first_convolutions(model.backbone)}
    if model.spec.in_channels == 3 and set(report.leftovers) <= first:
        return (
            "give the model= that it belongs to; if it was trained on pictures with one channel, set "
            "preprocess.channels=1 preprocess.gray_backbone=true"
        )
    return "give the model= that it belongs to"
