"""Groups that a split must keep together, found in picture names."""

from __future__ import annotations

import re
from dataclasses import replace

from shards.errors import UsageError
from shards.sources.model import Source, SourceList


def group_by_regex(listed: SourceList, pattern: str) -> SourceList:
    """Return the list with groups found by `pattern` in each name: its first capture group, or the whole match.

    A picture whose name does not match keeps its group.

    Raises:
        UsageError: Not a regular expression, or one that matches no name.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as err:
        raise UsageError(f"--group-regex '{pattern}' is not a regular expression ({err})") from err
    found = [_find(compiled, source) for source in listed.sources]
    if not any(found):
        example = f"; the first name is '{listed.sources[0].name}'" if listed.sources else ""
        raise UsageError(f"--group-regex '{pattern}' finds a group in no picture{example}")
    sources = [
        replace(source, group=group) if group else source for source, group in zip(listed.sources, found, strict=True)
    ]
    notes = list(listed.notes)
    missing = [source.name for source in sources if not source.group]
    if missing:
        notes.append(
            f"--group-regex finds no group in {len(missing):,} of {len(sources):,} pictures (the first is "
            f"'{missing[0]}'); each of them is split on its own"
        )
    replaced = sum(bool(group and source.group) for source, group in zip(listed.sources, found, strict=True))
    if replaced:
        notes.append(f"--group-regex replaces {replaced:,} groups that the source gives")
    return replace(listed, sources=sources, notes=notes, gives=listed.gives | {"group"})


def _find(pattern: re.Pattern[str], source: Source) -> str:
    match = pattern.search(source.name)
    if match is None:
        return ""
    return (match.group(1) if pattern.groups else match.group()) or ""
