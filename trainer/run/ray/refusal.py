"""Final errors of a rank, which no restart would fix: they end a run on Ray Train at once with the rank's message."""

from __future__ import annotations

from ray.train import ControllerError, WorkerGroupError

from shards.errors import ShardError, UsageError
from shards.files.disk import explain_disk
from trainer.run.ray.board import Board

REFUSALS: dict[str, type[Exception]] = {"usage": UsageError, "refused": ShardError, "outside": OSError}


def post_refusal(board: Board, err: Exception) -> None:
    """Post a rank's final error for the command, before the other ranks fail because of it."""
    kind = next(name for name, error in REFUSALS.items() if isinstance(err, error))
    board.post("refusal", f"{kind}:{err}")


def read_refusal(text: str | None) -> Exception | None:
    """Return the error posted by `post_refusal`; None if the text is something else.

    >>> read_refusal("usage:no such model"), read_refusal("finished")
    (UsageError('no such model'), None)
    """
    kind, _, sentence = (text or "").partition(":")
    return REFUSALS[kind](sentence) if kind in REFUSALS else None


def is_final(place: str, err: Exception) -> bool:
    """Return whether an error of Ray Train is final: a rank posted a final error, or a disk is full.

    place: The run's location, which identifies its board.
    """
    return is_full_disk(err) or Board(place).read("refusal") is not None


def is_full_disk(err: BaseException) -> bool:
    """Return whether an error of Ray Train is a disk error, which its own files can also cause."""
    inner = list(err.worker_failures.values()) if isinstance(err, WorkerGroupError) else []
    inner += [err.controller_failure] if isinstance(err, ControllerError) else []
    return any(explain_disk(each) is not None for each in [err, *inner])
