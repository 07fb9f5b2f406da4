"""docs/first_steps.ipynb, made from the first sections of docs/python.md: text and code cells without outputs."""

from __future__ import annotations

import json
import re

SECTIONS = ("Pack, train, ask", "Evaluate, decide, export", "The exact stream in a loop of your own")
_CODE = re.compile(r"```python\n(.*?)```\n", re.DOTALL)


def make_notebook(page: str) -> str:
    """Return the notebook's JSON: each code block is a code cell, the text between them is text cells."""
    sections = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    named = dict(zip(sections[1::2], sections[2::2], strict=True))
    cells = [_make_cell("markdown", "# First steps\n\nTaken from docs/python.md by `make docs`.")]
    for title in SECTIONS:
        body = named[title].partition("\nWith Lightning:\n")[0]
        pieces = _CODE.split(f"## {title}\n{body}")
        kinds = ["markdown", "code"] * len(pieces)
        cells += [_make_cell(kind, text.strip()) for kind, text in zip(kinds, pieces, strict=False) if text.strip()]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def _make_cell(kind: str, text: str) -> dict[str, object]:
    cell: dict[str, object] = {"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})
