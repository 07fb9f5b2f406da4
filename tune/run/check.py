"""What can be known of trials before the first one starts: whether recipe, model and data fit."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from shards.errors import ShardError, UsageError
from trainer.contract.model.backbone import build_without_memory
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.loop.build import build_model_spec
from trainer.run.launch import open_data
from trainer.step.freeze import list_frozen
from trainer.weights.resolve import resolve_recipe
from tune.space.options import Space
from tune.space.variants import Trial


def refuse_useless(trials: Sequence[Trial], space: Space) -> None:
    """Refuse a sweep of which no trial can train, or a level that no trial can use.

    A trial that cannot train because of a combination of levels is left to record its own refusal.

    Raises:
        UsageError: There is such a level; the message has the reason.
    """
    refusals = {trial.name: str(err) for trial in trials if (err := find_refusal(trial)) is not None}
    if len(refusals) == len(trials):
        raise UsageError(next(iter(refusals.values())))
    for factor, levels in space.factors.items():
        for level in levels:
            _refuse_level(factor, level, [each for each in trials if each.variant.levels[factor] == level], refusals)


def _refuse_level(factor: str, level: str, trials: Sequence[Trial], refusals: Mapping[str, str]) -> None:
    if trials and all(trial.name in refusals for trial in trials):
        raise UsageError(
            f"no trial can use level '{level}' of factor '{factor}': {refusals[trials[0].name]}. Mend the level, or "
            "leave it out"
        )


def find_refusal(trial: Trial) -> UsageError | ShardError | None:
    """Return why a trial cannot train, as far as that is known without weights, memory and steps; None if it may."""
    try:
        recipe, dataset = open_data(resolve_recipe(trial.recipe))
        _check_frozen(build_model_spec(recipe, len(dataset.classes)), tuple(recipe.freeze))
    except (UsageError, ShardError) as err:
        return err
    return None


@functools.lru_cache(maxsize=256)
def _check_frozen(spec: ModelSpec, freeze: tuple[str, ...]) -> None:
    """Raise UsageError if there is no such model, or if `freeze` names none of its parameters or all of them."""
    list_frozen(build_without_memory(lambda: Classifier(spec)), list(freeze))
