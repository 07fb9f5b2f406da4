"""Where the command's rows go: lines on standard output, or a CSV or JSON-lines file that is published whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from cluster.client.answer import Answer
from cluster.client.rows import Row
from shards.errors import UsageError
from trainer.contract.columns import PREFIX, format_value, join_row, list_columns, read_value

Form = Literal["text", "csv", "jsonl"]
FILE_FORMS: Final[tuple[Form, ...]] = ("csv", "jsonl")
Write = Callable[[str], object]
_RANKED: Final = "top_"


def choose_form(out: Path | None, as_json: bool) -> Form:
    """Return the form of the output: that of the file's ending; without a file text, or JSON lines.

    Raises:
        UsageError: The ending is unknown or contradicts `as_json`, or the file cannot be made there.
    """
    if out is None:
        return "jsonl" if as_json else "text"
    form: Form | None = next((form for form in FILE_FORMS if out.name.lower().endswith(f".{form}")), None)
    if form is None:
        raise UsageError(f"--out {out} must end in .csv or .jsonl, which sets the format")
    if as_json and form != "jsonl":
        raise UsageError(f"--json and --out {out} contradict each other; name a file that ends in .jsonl")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise UsageError(f"--out {out} cannot be written there; choose another file")
    return form


def choose_columns(model: Mapping[str, Any], top_k: int | None) -> list[str]:
    """Return the columns of the CSV: those of `trainer.predict`, with `top_k` the ranked classes in place of all.

    Args:
        model: What /v1/model says.
        top_k: Number of ranked classes; None: all probabilities.

    >>> model = {"classes": ["cat", "dog"], "decision": {"rule": "argmax"}}
    >>> choose_columns(model, 1)
    ['path', 'label', 'probability', 'top_1', 'top_1_probability']
    """
    names = list_columns(model["classes"], model["decision"])
    if top_k is None:
        return names
    places = range(1, min(top_k, len(model["classes"])) + 1)
    kept = [name for name in names if not name.startswith(PREFIX)]
    return kept + [name for place in places for name in (f"{_RANKED}{place}", f"{_RANKED}{place}_probability")]


def describe_csv(columns: list[str], row: Row) -> str:
    """Return the line of an answered picture."""
    assert row.answer is not None
    return join_row([format_value(name, _read(name, row.path, row.answer)) for name in columns])


def describe_json(row: Row) -> str:
    """Return the line of a picture: its path, and the endpoint's answer or `error`."""
    said = {"error": row.refused} if row.answer is None else row.answer
    return json.dumps({"path": row.path, **said}, ensure_ascii=False) + "\n"


def describe_text(row: Row) -> str:
    """Return the line of an answered picture, for people."""
    assert row.answer is not None
    words = [row.path, ";".join(row.answer["labels"]) or "none", f"{row.answer['probability']:.4f}"]
    if "top_k" in row.answer:
        words.append(", ".join(f"{each['label']} {each['probability']:.4f}" for each in row.answer["top_k"]))
    if row.answer.get("abstain"):
        words.append("abstains")
    return "  ".join(words) + "\n"


def _read(name: str, path: str, answer: Answer) -> Any:
    if not name.startswith(_RANKED):
        return read_value(name, path, answer)
    place, _, what = name.removeprefix(_RANKED).partition("_")
    return answer["top_k"][int(place) - 1]["probability" if what else "label"]
