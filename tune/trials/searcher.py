"""The search that learns: Optuna's tree-structured Parzen estimator, through Ray's OptunaSearch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from tune.space.search import Range, order_options
from tune.space.suggested import add_suggested, read_suggested
from tune.space.variants import Trial

SCORE = "score"
_TRIES = 100
"""Suggestions that are refused because they were tried before, until the space counts as exhausted."""

logger = logging.getLogger(__name__)


class RecipeSearcher(Searcher):
    """Suggests trials as recipes: the baseline, what was suggested before, then what Optuna learns from their scores.

    Nothing but the folder of the sweep outlives it: a resumed sweep suggests the earlier trials again, which report
    their epochs again, so that Optuna learns what it had learnt.

    Args:
        search: The ranges.
        count: Number of suggested trials; the baseline is one more.
        sweep_dir: Folder of the sweep, in which suggestions are written down.
        make: Return the trial with this number and these options; number None: the baseline.
        seed: Seed of the sampler.
    """

    def __init__(
        self,
        search: Mapping[str, Range],
        count: int,
        sweep_dir: Path,
        make: Callable[[int | None, Mapping[str, Any]], Trial],
        seed: int,
    ) -> None:
        super().__init__(metric=SCORE, mode="max")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search, self._count, self._sweep_dir, self._make = search, count, sweep_dir, make
        self._known = read_suggested(sweep_dir)
        points = [_encode(values, search) for values in self._known]
        self._optuna = OptunaSearch(
            lambda trial: _suggest(trial, search),
            metric=SCORE,
            mode="max",
            points_to_evaluate=[point for point in points if point is not None],
            sampler=optuna.samplers.TPESampler(seed=seed),
        )
        self.count = count + 1
        """Trials in all, with the baseline."""
        self._tried: list[dict[str, Any]] = []
        """Options of each trial so far, by its number."""
        self._scores: dict[int, float] = {}
        self._begun = False
        self._asked: dict[str, tuple[int, str]] = {}
        """Tune's id of a trial -> its number, and the id under which Optuna was asked for it."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the configuration of the next trial; called by Tune."""
        if not self._begun:
            self._begun = True
            return configure(self._make(None, {}))
        number = len(self._tried)
        values = None
        if number < len(self._known):
            values = self._repeat(trial_id, number)
        elif number < self._count:
            values = self._ask(trial_id, number)
        if values is None:
            return Searcher.FINISHED
        self._tried.append(values)
        return configure(self._make(number, values))

    def _repeat(self, trial_id: str, number: int) -> dict[str, Any]:
        values = self._known[number]
        # Values outside of a range that was changed since are nothing that Optuna can be told of.
        if _encode(values, self._search) is not None:
            self._optuna.suggest(trial_id)
            self._asked[trial_id] = number, trial_id
        return values

    def _ask(self, trial_id: str, number: int) -> dict[str, Any] | None:
        """Return values that were not tried before, written down; None if there are no others."""
        for again in range(_TRIES):
            asked = f"{trial_id}-{again}"
            values = self._optuna.suggest(asked)
            assert values is not None
            if values not in self._tried:
                self._asked[trial_id] = number, asked
                add_suggested(self._sweep_dir, values)
                return values
            score = self._scores.get(self._tried.index(values))
            self._optuna.on_trial_complete(asked, None if score is None else {SCORE: score})
        logger.warning("Optuna finds no more than %s different trials of the search", f"{number:,}")
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take the score of an epoch; called by Tune."""
        if trial_id in self._asked:
            number, asked = self._asked[trial_id]
            self._scores[number] = result[SCORE]
            self._optuna.on_trial_result(asked, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the last score of a trial; called by Tune."""
        if trial_id in self._asked:
            self._optuna.on_trial_complete(self._asked[trial_id][1], result, error)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the folder of the sweep has all; called by Tune."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Tune's own state is never restored."""
        raise NotImplementedError(checkpoint_path)


def configure(trial: Trial) -> dict[str, Any]:
    """Return what `run_trial` is given of a trial."""
    return {"recipe": trial.recipe.model_dump(mode="json")}


def _suggest(trial: optuna.Trial, search: Mapping[str, Range]) -> dict[str, Any]:
    """Return a value of each option whose condition holds."""
    values: dict[str, Any] = {}
    for option in order_options(search):
        each = search[option]
        if all(values.get(other) == wanted for other, wanted in each.when.items()):
            values[option] = each.suggest(trial, option)
    return {option: values[option] for option in search if option in values}


def _encode(values: Mapping[str, Any], search: Mapping[str, Range]) -> dict[str, Any] | None:
    """Return what `_suggest` would have asked Optuna for; None if it cannot have suggested these values."""
    if any(option not in search or not search[option].holds(value) for option, value in values.items()):
        return None
    return {option: search[option].encode(value) for option, value in values.items()}
