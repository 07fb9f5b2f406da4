"""What a rank refuses, and no restart would heal: it ends a run on Ray Train at once, with the rank's sentence."""

from __future__ import annotations

from typing import Any

from ray.train import ControllerError, FailureConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.exceptions import TrainingFailedError

from shards.errors import ShardError, UsageError
from shards.files.disk import explain_disk
from trainer.run.ray.board import Board

REFUSALS: dict[str, type[Exception]] = {"usage": UsageError, "refused": ShardError, "outside": OSError}


def post_refusal(board: Board, err: Exception) -> None:
    """Let the command know what a rank has refused, before the other ranks fail because of it."""
    kind = next(name for name, error in REFUSALS.items() if isinstance(err, error))
    board.post("refusal", f"{kind}:{err}")


def read_refusal(text: str | None) -> Exception | None:
    """Return the error of what `post_refusal` has posted, None where it is nothing of the kind.

    >>> read_refusal("usage:no such model"), read_refusal("finished")
    (UsageError('no such model'), None)
    """
    kind, _, sentence = (text or "").partition(":")
    return REFUSALS[kind](sentence) if kind in REFUSALS else None


class RefusalPolicy(DefaultFailurePolicy):
    """Ray Train's own policy of restarts, but for what a rank refused and for a disk that takes no more.

    place: the run's, by which its board is known.
    """

    def __init__(self, failure_config: FailureConfig, place: str) -> None:
        super().__init__(failure_config)
        self._place = place

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        if is_full_disk(training_failed_error) or Board(self._place).read("refusal") is not None:
            return FailureDecision.RAISE
        decision: FailureDecision = super().make_decision(training_failed_error)
        return decision


class RefusableTrainer(TorchTrainer):
    """A TorchTrainer that restarts its ranks by `RefusalPolicy`; place: the run's."""

    def __init__(self, *arguments: Any, place: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._place = place

    def _initialize_and_run_controller(self, **options: Any) -> Any:
        # The only way in for a policy of one's own; Ray has no public one.
        options["failure_policy"] = RefusalPolicy(self.run_config.failure_config, self._place)
        return super()._initialize_and_run_controller(**options)


def is_full_disk(err: BaseException) -> bool:
    """Say whether an error of Ray Train is a disk's: what its own files need room for as well."""
    inner = list(err.worker_failures.values()) if isinstance(err, WorkerGroupError) else []
    inner += [err.controller_failure] if isinstance(err, ControllerError) else []
    return any(explain_disk(each) is not None for each in [err, *inner])
