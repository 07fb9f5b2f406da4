"""What the ranks of a stopped trial had reserved is given to the next one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shards.cli.progress import Clock
from trainer.run.ray.launch import release_killed
from tune.space.variants import Trial
from tune.trials.trial import STOPPED_FILE

_GRACE_S = 3.0
"""Seconds in which Tune ends a stopped trial's process, and Ray Train's controller with it."""


class Rooms:
    """Releases the room of trials of several ranks some seconds after they were stopped.

    Ray's own cleaner does not always do so when a controller is killed; the next trial would then wait for it.
    """

    def __init__(self, trials: Sequence[Trial], clock: Clock = time.monotonic) -> None:
        self._trials, self._clock = trials, clock
        self._stopped: dict[str, float] = {
            trial.name: float("inf") for trial in trials if (trial.folder.path / STOPPED_FILE).exists()
        }
        """Name of a stopped trial -> when it was seen; infinity: its room has been released."""

    def finish(self) -> None:
        """Release the rooms of all stopped trials, some seconds later if need be."""
        self.look()
        if any(seen != float("inf") for seen in self._stopped.values()):
            time.sleep(_GRACE_S)
            self.look()

    def look(self) -> None:
        """Release the rooms whose time has come."""
        for trial in list(self._trials):
            if trial.recipe.most_ranks == 1 or not (trial.folder.path / STOPPED_FILE).exists():
                continue
            if self._clock() - self._stopped.setdefault(trial.name, self._clock()) >= _GRACE_S:
                self._stopped[trial.name] = float("inf")
                release_killed(trial.folder)
