"""An examination as text: a table of checks and nodes on 80 columns, then what is wrong, each with its remedy."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from cluster.doctor.examine import Examined, state_of
from cluster.doctor.verdict import Finding, Node
from shards.cli.sentences import count_things, join_some

_WIDTH = 80
_NAME, _CELL = 11, 22
_COLUMNS = (_WIDTH - _NAME) // (_CELL + 1)
_MARKS = {"red": "RED", "note": "note", "ok": "ok", "skipped": "-"}
_FOLDED = 2 * _COLUMNS
"""Nodes up to which each has a column; of more, those without findings are counted."""


def draw(examined: Examined) -> str:
    """Return the examination as text."""
    shown = choose_nodes(examined)
    blocks = [_draw_title(examined)]
    blocks += [_draw_block(examined, shown[at : at + _COLUMNS]) for at in range(0, len(shown), _COLUMNS)]
    if len(shown) < len(examined.nodes):
        blocks.append(f"{count_things(len(examined.nodes) - len(shown), 'node')} more: nothing was found.")
    skipped = [f"{name} ({each.skipped})" for name, each in examined.verdicts.items() if each.skipped]
    blocks += [_fill(f"Not looked at: {', '.join(skipped)}.")] if skipped else []
    blocks += [_draw_findings(examined)]
    return "\n\n".join(filter(None, blocks))


def choose_nodes(examined: Examined) -> list[Node]:
    """Return the nodes that get a column: all if they are few, else those with findings, and at least one."""
    if len(examined.nodes) <= _FOLDED:
        return list(examined.nodes)
    named = {name for verdict in examined.verdicts.values() for each in verdict.findings for name in each.nodes}
    found = [node for node in examined.nodes if node.name in named]
    return found[:_FOLDED] or [examined.nodes[0]]


def _draw_title(examined: Examined) -> str:
    if examined.cluster is None:
        return "This machine; no Ray cluster was named, and none runs here."
    return f"Ray cluster at {examined.cluster}, {count_things(len(examined.nodes), 'node')}"


def _draw_block(examined: Examined, nodes: Sequence[Node]) -> str:
    lines = [_draw_line("", [node.name[-_CELL:] for node in nodes])]
    if any(node.address for node in nodes):
        lines.append(_draw_line("", [f"{node.address}{' (head)' if node.head else ''}" for node in nodes]))
    for name, verdict in examined.verdicts.items():
        if verdict.cells and not verdict.skipped:
            cells = [_draw_cell(state_of(verdict, node.name), verdict.cells.get(node.name)) for node in nodes]
            lines.append(_draw_line(name, cells))
    return "\n".join(lines)


def _draw_cell(state: str, value: str | None) -> str:
    if value is None:
        return "-"
    return f"{_MARKS[state]:4} {value}"


def _draw_line(name: str, cells: Iterable[str]) -> str:
    return f"{name:{_NAME}}{' '.join(f'{cell[:_CELL]:{_CELL}}' for cell in cells)}".rstrip()


def _draw_findings(examined: Examined) -> str:
    lines = [_draw_finding("RED", *each) for each in examined.find("red")]
    lines += [_draw_finding("note", *each) for each in examined.find("note")]
    return "\n".join(lines)


def _draw_finding(mark: str, check: str, found: Finding) -> str:
    where = f"{join_some(found.nodes, 4)}: " if found.nodes else ""
    fact = _fill(f"{mark:4} {check}: {where}{found.fact}", "     ")
    return f"{fact}\n{_fill(f'     -> {found.remedy}', '        ')}"


def _fill(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
