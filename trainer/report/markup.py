"""Elements of a self-contained HTML page: no scripts, no external files, readable on a phone and on paper."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.extras import try_extra
from trainer.report.letters import embed_letters

_PNG_BYTES = 200_000
"""Size up to which a figure is embedded unchanged; larger ones are converted to WebP."""
_FOLDED_ROWS = 40
"""Number of rows above which a table is collapsed."""
_WIDE = 1.5
"""Figures this many times wider than high scroll sideways on a phone."""

# Page fonts are those of the reader's system. Missing Chinese characters are embedded (letters.py); if that is not
# possible, Chinese fonts of Linux, macOS and Windows are named.
_STYLE = """
:root{--ink:#1b1f24;--soft:#57606a;--line:#d8dee4;--paper:#fff;--tint:#f6f8fa;--accent:#0b5cad;--warn:#fff4d6}
@media (prefers-color-scheme:dark){@media screen{:root{--ink:#e6edf3;--soft:#9aa4ae;--line:#30363d;--paper:#0d1117;
--tint:#161b22;--accent:#6cb0ff;--warn:#3a2f0b}}}
*{box-sizing:border-box}
body{font:16px/1.5 "Letters of this page",system-ui,"Noto Sans SC","Noto Sans CJK SC","PingFang SC","Microsoft YaHei",
sans-serif;
max-width:62rem;margin:1.5rem auto;padding:0 1rem;color:var(--ink);background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.7rem;margin:0}h2{font-size:1.3rem;margin:2.4rem 0 .6rem;border-bottom:2px solid var(--line)}
h3{font-size:1.05rem;margin:1.6rem 0 .4rem}a{color:var(--accent)}p{margin:.5rem 0}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:1rem 0;font-size:.9rem}
.soft,figcaption{color:var(--soft);font-size:.88rem}.big{font-size:1.35rem;font-weight:600}
.found{font-size:1.1rem}
.note{background:var(--warn);padding:.5rem .8rem;border-radius:6px}
.scroll{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}
td,th{padding:.22rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:pre;
overflow-wrap:break-word}
td:first-child,th:first-child{text-align:left;white-space:normal;padding-left:0;min-width:6em}
th{color:var(--soft);font-weight:600;vertical-align:bottom}
.words td{text-align:left;white-space:normal;overflow-wrap:anywhere}
.words td:first-child{color:var(--soft);overflow-wrap:normal;white-space:nowrap;vertical-align:top}
img{max-width:100%;height:auto;border-radius:4px;background:#fff}
.plots.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));gap:1rem}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(17rem,100%),1fr));gap:1.2rem}
.gallery figure{margin:0;break-inside:avoid}.views{display:flex;gap:4px}.views span{flex:0 1 33%;min-width:0;
font-size:.75rem;line-height:1.3;color:var(--soft)}.views img{display:block;width:100%;aspect-ratio:1}
@media screen and (max-width:600px){.plots{overflow-x:auto}.plots .wide{max-width:none;width:44rem}}
.gallery b{color:var(--ink)}.path{font-size:.75rem}
pre,code{font-family:"Letters of this page",ui-monospace,monospace}code{font-size:.9em}
pre{background:var(--tint);padding:.8rem;border-radius:6px;overflow-x:auto;font-size:.85rem;overflow-wrap:normal}
summary{cursor:pointer;color:var(--accent)}
@media print{@page{margin:15mm}body{margin:0;max-width:none;font-size:10.5pt}nav{display:none}
h2,h3,h3+.soft{break-after:avoid}img,tr,.note{break-inside:avoid}.plots img{max-height:120mm}
.plots.two{grid-template-columns:1fr 1fr}thead{display:table-header-group;break-after:avoid}
td,th{white-space:normal;font-size:8pt;padding:.15rem .5rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere}.scroll{overflow:visible}
.gallery{grid-template-columns:repeat(3,1fr);gap:.6rem}.gallery figcaption{font-size:7.5pt;line-height:1.3}}
"""


def write_page(title: str, sections: Sequence[tuple[str, str]], head: str) -> str:
    """Return a page: its head, links to the sections, and (heading, content) of each section."""
    notes: list[str] = []
    used = "".join([title, head, *(text for section in sections for text in section)])
    letters = try_extra("the font of Chinese letters", lambda: embed_letters(used), notes.append)
    head += "".join(show_note(f"{note}.") for note in notes)
    links = "".join(f"<a href='#{number}'>{escape(name)}</a>" for number, (name, _) in enumerate(sections))
    body = "".join(
        f"<section id='{number}'><h2>{escape(name)}</h2>{content}</section>"
        for number, (name, content) in enumerate(sections)
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{letters or ''}{_STYLE}</style>{head}<nav>{links}</nav>{body}</html>\n"
    )


def escape(text: object) -> str:
    """Escape text for elements and quoted attributes."""
    return html.escape(str(text))


def show_table(header: Sequence[str], body: Iterable[Sequence[Any]]) -> str:
    """Return a table of numbers that scrolls sideways if it is wide; a long one is collapsed."""
    rows = list(body)
    table = _wrap_rows(header, rows, "")
    if len(rows) <= _FOLDED_ROWS:
        return table
    return f"<details><summary>{len(rows):,} rows</summary>{table}</details>"


def show_facts(facts: dict[str, Any]) -> str:
    """Return a table of names and facts."""
    return _wrap_rows([], list(facts.items()), " class=words")


def _wrap_rows(header: Sequence[str], rows: Sequence[Sequence[Any]], kind: str) -> str:
    def row(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    head = f"<thead>{row(header, 'th')}</thead>" if header else ""
    return f"<div class=scroll><table{kind}>{head}{''.join(row(cells, 'td') for cells in rows)}</table></div>"


def show_note(text: str) -> str:
    return f"<p class=note>{escape(text)}</p>"


def show_code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def show_figures(*paths: Path) -> str:
    """Return the existing figures, side by side if they fit; "" if there are none."""
    there = [show_extra(path.name, partial(_embed_figure, path)) for path in paths if path.is_file()]
    kind = "'plots two'" if len(there) > 1 else "plots"
    return f"<div class={kind}>{''.join(there)}</div>" if there else ""


def show_extra(what: str, make: Callable[[], str]) -> str:
    """Return an optional element of a page; if making it fails, a note on why it is left out."""
    notes: list[str] = []
    shown = try_extra(what, make, notes.append)
    return show_note(f"{notes[0]}.") if shown is None else shown


def _embed_figure(path: Path) -> str:
    from PIL import Image

    data, kind = path.read_bytes(), "png"
    with Image.open(path) as image:
        is_wide = image.width >= _WIDE * image.height
        if len(data) > _PNG_BYTES:
            data, kind = _pack_webp(image.convert("RGB"), 88), "webp"
    return embed(data, kind, path.stem, " class=wide" if is_wide else "")


def embed_pixels(pixels: npt.NDArray[np.uint8], name: str, side: int) -> str:
    """Return an image element of uint8[H, W, 3], at most `side` pixels long."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return embed(_pack_webp(image, 80), "webp", name)


def embed(data: bytes, kind: str, name: str, attributes: str = "") -> str:
    """Return an image element with embedded data; kind: png or webp."""
    return f"<img{attributes} alt='{escape(name)}' src='data:image/{kind};base64,{base64.b64encode(data).decode()}'>"


def _pack_webp(image: Any, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()
