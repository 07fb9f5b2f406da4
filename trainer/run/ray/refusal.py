"""What a rank refuses, and no restart would heal: it ends a run on Ray Train at once, with the rank's sentence."""

from __future__ import annotations

from ray.train import ControllerError, WorkerGroupError

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


def is_final(place: str, err: Exception) -> bool:
    """Say whether no restart would heal an error of Ray Train: a rank refused something, or a disk takes no more.

    place: the run's, by which its board is known.
    """
    return is_full_disk(err) or Board(place).read("refusal") is not None


def is_full_disk(err: BaseException) -> bool:
    """Say whether an error of Ray Train is a disk's: what its own files need room for as well."""
    inner = list(err.worker_failures.values()) if isinstance(err, WorkerGroupError) else []
    inner += [err.controller_failure] if isinstance(err, ControllerError) else []
    return any(explain_disk(each) is not None for each in [err, *inner])
