"""The command that packs a dataset's pictures again, as the remedy for changes that an update cannot make."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shards.dataset.origin import PackCommand
from shards.storage.storage import FolderStorage, Storage


@dataclass(frozen=True)
class Repack:
    """How a dataset was packed, as far as known.

    recorded: The commands that made it. asked: The command that updates it now; None if Python code does.
    """

    storage: Storage
    recorded: tuple[PackCommand, ...] = ()
    asked: PackCommand | None = None

    def spell(self, complete: bool) -> str:
        """Return the remedy for a message: what to run, with the full command if known.

        complete: Whether the present source has all pictures of the dataset.
        """
        asked = self.asked
        if asked is None or not (complete or self._knows_all()):
            return "pack all pictures into a new folder"
        if complete:
            known = self.recorded[:1] if self._knows_all() else ()
            options = _join([*(words for each in known for words in each.options), *asked.options])
            return f"pack all pictures into a new folder: `{self._spell(asked.source, options)}`"
        commands = {each.source: each.options for each in reversed((*self.recorded, asked))}
        order = dict.fromkeys(each.source for each in (*self.recorded, asked))
        lines = [
            self._spell(source, [*commands[source], *(["--update"] if number else [])])
            for number, source in enumerate(order)
        ]
        others = [each for each in order if each != asked.source]
        if not others:
            return f"pack what the source holds now into a new folder: `{lines[0]}`"
        return (
            f"make {', '.join(others)} give the same where they list these pictures, and pack again: "
            f"`{' && '.join(lines)}`"
        )

    def spell_whole(self, complete: bool) -> str:
        """Return the remedy if pictures of several sources must be packed at once, because no update can add the rest.

        complete: As for `spell`.
        """
        if complete or self.asked is None:
            return self.spell(complete=True)
        options = _join([*(words for each in self.recorded[:1] for words in each.options), *self.asked.options])
        return (
            "the source lacks pictures of the dataset: put all of them, old and new, into one list or folder, here "
            f"called ALL, and pack that into a new folder: `{self._spell('ALL', options)}`"
        )

    def _knows_all(self) -> bool:
        """Return whether the command that made the dataset is recorded, not only its updates."""
        return any(each.update == 0 for each in self.recorded)

    def _spell(self, source: str, options: Iterable[str]) -> str:
        words = ["python", "-m", "shards", "pack", source, self._name_target(), *options]
        return shlex.join(words)

    def _name_target(self) -> str:
        number = 2
        while isinstance(self.storage, FolderStorage) and Path(f"{self.storage}-{number}").exists():
            number += 1
        return f"{self.storage}-{number}"


def _join(words: Iterable[str]) -> list[str]:
    """Return the words of all options; of a repeated option, only the last.

    >>> _join(["--split", "none", "--allow-leaks", "--seed", "1", "--split", "val=0.2", "--range=-5,3"])
    ['--split', 'val=0.2', '--allow-leaks', '--seed', '1', '--range=-5,3']
    """
    options: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word.partition("=")[0]
            options[name] = [word]
        else:
            options[name].append(word)
    return [word for given in options.values() for word in given]
