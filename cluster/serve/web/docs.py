"""The documentation at /docs, written from the table of pages, the models of answers, and the limits in force."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from pydantic import BaseModel

from cluster.serve.answer import Prediction, Wishes
from cluster.serve.options import Limits
from cluster.serve.page import Page
from cluster.serve.problem import TITLES, ProblemPage


def write_docs(pages: Sequence[Page], limits: Limits) -> str:
    """Return the page as HTML."""
    template = Template((files("cluster.serve.web") / "docs.html").read_text(encoding="utf-8"))
    return template.substitute(
        pages=_draw_table(
            ("Page", "What it is for"),
            ((f"`{page.method} {page.path}`", page.summary) for page in pages if not page.is_part),
        ),
        options=_draw_table(
            ("Option", "Values", "Meaning"),
            ((f"`{name}`", _say_values(each), each.get("description", "")) for name, each in _read_fields(Wishes)),
        ),
        answer=_draw_fields(Prediction),
        limits=_draw_table(
            ("Limit", "Here", "Meaning"),
            (
                (f"`{name}`", f"{limits.describe()[name]:g}", each.get("description", ""))
                for name, each in _read_fields(Limits)
            ),
        ),
        problem=_draw_fields(ProblemPage),
        problems=_draw_table(
            ("Status", "`type`", "Meaning"),
            ((str(status), f"`urn:shardline:{kind}`", title) for kind, (status, title) in TITLES.items()),
        ),
    )


def _read_fields(model: type[BaseModel]) -> list[tuple[str, dict[str, Any]]]:
    return list(model.model_json_schema()["properties"].items())


def _draw_fields(model: type[BaseModel]) -> str:
    rows = ((f"`{name}`", each.get("description", "")) for name, each in _read_fields(model))
    return _draw_table(("Field", "Meaning"), rows)


def _say_values(schema: dict[str, Any]) -> str:
    """Return the values of an option in words.

    >>> _say_values({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}], "default": None})
    'number from 0 to 1'
    >>> _say_values({"type": "boolean", "default": False})
    'true or false'
    """
    kind = next((each for each in schema.get("anyOf", []) if each["type"] != "null"), schema)
    words = "true or false" if kind["type"] == "boolean" else str(kind["type"])
    for bound, word in (("minimum", "from"), ("maximum", "to")):
        words += f" {word} {kind[bound]:g}" if bound in kind else ""
    return words


def _draw_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{_mark_code(each)}</th>' for each in head)
    drawn = ("".join(f"<td>{_mark_code(cell)}</td>" for cell in row) for row in rows)
    lines = "\n".join(f"<tr>{cells}</tr>" for cells in drawn)
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>\n{lines}\n</tbody></table></div>'
    )


def _mark_code(text: str) -> str:
    """Return text as HTML, with what stands in backticks as code.

    >>> _mark_code("`a < b`, in words")
    '<code>a &lt; b</code>, in words'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(" ".join(text.split())))
