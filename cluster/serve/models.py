"""The bundles that a replica has loaded: the one that answers, and one beside it that may answer a share."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cluster.serve.options import ServeOptions
from cluster.serve.place import bring_bundle
from cluster.serve.rollout import Rollout
from shards.errors import UsageError
from shards.files.sizes import format_size
from shards.storage.shown import show_location
from shards.workers.memory import read_free_memory
from trainer.contract.bundle import Bundle
from trainer.contract.compute.choice import load_with_backend
from trainer.contract.intact import WEIGHTS

logger = logging.getLogger(__name__)

_LOADING = 3
"""Memory for loading a bundle, in sizes of its weights: the file, the model, and features of its probes."""


@dataclass(eq=False)
class Served:
    """A loaded bundle that answers requests; only the event loop changes `in_hand`."""

    folder: str
    bundle: Bundle
    why: str
    """The back end that computes, and why."""
    fingerprint: str
    in_hand: int = 0
    """Pictures that it was chosen for and that are not answered yet."""
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Count a picture while the block runs."""
        self.in_hand += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_hand -= 1
            if not self.in_hand:
                self._idle.set()

    async def wait_until_idle(self) -> None:
        """Return when it has answered all that it was chosen for."""
        if self.in_hand:
            await self._idle.wait()


def load_served(folder: str, here: Path, options: ServeOptions) -> Served:
    """Return a bundle that has reproduced its probes on this machine; `here` is its folder on it.

    Raises:
        UsageError: It is no bundle, or the back end is not available here.
        ShardError: It is damaged, or gives other results here.
    """
    device = "cuda" if options.gpus_per_replica and torch.cuda.is_available() else "cpu"
    bundle, why = load_with_backend(here, device, options.backend)
    logger.info("%s: the replica %s", show_location(folder), why)
    return Served(folder, bundle, why, bundle.page.fingerprint())


def _check_memory(folders: list[Path]) -> None:
    """Raise UsageError if the weights of bundles do not fit into the memory that is free beside what is loaded."""
    needed = _LOADING * sum((folder / WEIGHTS).stat().st_size for folder in folders if (folder / WEIGHTS).is_file())
    free = read_free_memory()
    if needed > free:
        raise UsageError(
            f"loading {' and '.join(map(str, folders))} takes about {format_size(needed)}, but {format_size(free)} of "
            "memory is free on this node; free some, or serve it from another node"
        )


class Models:
    """The loaded bundles of one replica."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._loaded: dict[str, Served] = {}
        self._rollout: Rollout | None = None

    @property
    def rollout(self) -> Rollout | None:
        """What is in force; None before the first `follow`."""
        return self._rollout

    @property
    def active(self) -> Served:
        """The bundle that answers."""
        assert self._rollout is not None, "no bundle is loaded yet"
        return self._loaded[self._rollout.bundle]

    @property
    def beside(self) -> Served | None:
        return self._loaded.get(self._rollout.beside) if self._rollout and self._rollout.beside else None

    @property
    def shadow(self) -> Served | None:
        """The bundle that computes every picture without answering."""
        return self.beside if self._rollout and self._rollout.shadow else None

    async def follow(self, rollout: Rollout) -> None:
        """Load what is wanted, then put it into force; requests are answered meanwhile.

        Returns when no answer of what was in force before is outstanding.

        Raises:
            UsageError, ShardError, OSError: Like `bring_bundle` and `load_served`, or too little memory; it stays.
        """
        before = dict(self._loaded)
        wanted = [folder for folder in (rollout.bundle, rollout.beside) if folder]
        here = {each: await asyncio.to_thread(bring_bundle, each) for each in wanted if each not in before}
        _check_memory(list(here.values()))
        loaded: dict[str, Served] = {}
        for folder in wanted:
            if folder in before:
                loaded[folder] = before[folder]
            else:
                loaded[folder] = await asyncio.to_thread(load_served, folder, here[folder], self._options)
        self._loaded, self._rollout = loaded, rollout
        for folder, served in before.items():
            if folder != rollout.bundle:
                await served.wait_until_idle()

    def choose(self, client: str | None) -> Served:
        """Return the bundle that answers a request; the same for all requests of a client while shares stay."""
        assert self._rollout is not None, "no bundle is loaded yet"
        beside = self.beside
        if beside is None or not self._rollout.share:
            return self.active
        if client is None:
            drawn = random.random()
        else:
            drawn = int.from_bytes(hashlib.sha256(client.encode()).digest()[:8]) / 2**64
        return beside if drawn < self._rollout.share else self.active
