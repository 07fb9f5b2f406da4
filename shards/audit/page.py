"""`audit.html`: the summary as one file without scripts, for a browser, a phone or paper."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

import numpy as np
from PIL import Image

from shards.audit.audit import Audit
from shards.audit.duplicates import MIN_CORRELATION
from shards.audit.facts import THUMBNAIL_SIDE
from shards.audit.summary import MAX_LISTED, MAX_SHOWN, Bars, Shown, Summary
from shards.errors import ShardError
from shards.pictures.decode import DecodeOptions, decode

SHOWN_PAIRS = MAX_SHOWN
SIDE = 160
"""Longer side in pixels of the pictures on the page."""

Load = Callable[[int], bytes]
"""Returns the encoded bytes of the picture at a position; raises OSError or ShardError if it cannot."""

_WIDTH, _HEIGHT, _BASE = 320, 130, 100
_REMEDIES = (
    "<code>--drop-duplicates</code> keeps one of each set of equal pictures, none if their labels differ; "
    "<code>--merge-and-resplit train,val</code> splits again and keeps groups together; <code>--allow-leaks</code> "
    "packs them as they are."
)


def render_page(audit: Audit, summary: Summary, title: str, load: Load, options: DecodeOptions) -> str:
    """Return the page as HTML text.

    Args:
        title: What was audited.
        load: Returns the encoded bytes of the pictures in `summary.shown`.
    """
    pictures = {row: _shrink(audit, row, load, options) for pair in summary.shown for row in pair.rows}
    template = Template((files("shards.audit") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        verdict=escape(summary.verdict),
        refused=" refused" if summary.refused else "",
        remedies=f"<p>{_REMEDIES}</p>" if summary.refused else "",
        notes="".join(f'<p class="dim">Note: {escape(note)}.</p>' for note in summary.notes),
        classes=_draw_classes(summary),
        bars=f'<div class="grid">{"".join(map(_draw_bars, summary.bars))}</div>',
        formats=_draw_formats(summary),
        pairs=_draw_pairs(summary, pictures),
        torn=_draw_torn(summary),
        rejected=_draw_rejected(summary),
        misnamed=_draw_misnamed(summary),
        left_out=_draw_left_out(summary),
    )


def _shrink(audit: Audit, row: int, load: Load, options: DecodeOptions) -> bytes:
    """Return a small JPEG of a picture; if the picture is unavailable, of its thumbnail in the audit."""
    try:
        image = Image.fromarray(decode(load(row), options))
    except (OSError, ShardError):  # an update compares with pictures that may no longer be in the source
        side = THUMBNAIL_SIDE
        image = Image.fromarray(np.asarray(audit.examined.thumbnails[row]).reshape(side, side))
        image = image.resize((SIDE, SIDE))
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _draw_classes(summary: Summary) -> str:
    splits = list(summary.splits)
    rows = [
        [name, *(_number(summary.class_counts[split][place]) for split in splits)]
        for place, name in enumerate(summary.classes)
    ]
    rows.append(["pictures", *(_number(summary.splits[split]) for split in splits)])
    if summary.classes:
        rows.append(["largest to smallest", *(_ratio(summary.imbalance[split]) for split in splits)])
    return _table(["", *splits], rows, "number")


def _number(count: int) -> str:
    return f"{count:,}"


def _ratio(ratio: float | None) -> str:
    return "a class has none" if ratio is None else f"{ratio:.1f}"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """Return a table with every cell escaped; all columns after the first have the CSS class `kind`."""
    head = "".join(_cell("th", text, kind if place else "name") for place, text in enumerate(titles))
    body = "".join(
        f"<tr>{''.join(_cell('td', text, kind if place else 'name') for place, text in enumerate(row))}</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(tag: str, text: str, kind: str) -> str:
    zero = " zero" if text == "0" else ""
    return f'<{tag} class="{kind}{zero}">{escape(text)}</{tag}>'


def _draw_bars(bars: Bars) -> str:
    """Return a histogram as SVG; its horizontal axis is spaced like the edges."""
    tallest = max(bars.counts)
    width = _WIDTH / len(bars.counts)
    shapes = "".join(
        f'<rect x="{place * width:.1f}" y="{_BASE * (1 - count / tallest):.1f}" width="{max(width - 1, 1):.1f}" '
        f'height="{_BASE * count / tallest:.1f}" fill="#3d6fb4">'
        f"<title>{_edge(bars.edges[place])} to {_edge(bars.edges[place + 1])}: {count:,}</title></rect>"
        for place, count in enumerate(bars.counts)
    )
    low, high = _edge(bars.edges[0]), _edge(bars.edges[-1])
    text = f'y="{_BASE + 18}" font-size="13" fill="#5b6470"'
    spacing = ", logarithmic" if bars.logarithmic else ""
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(bars.title)}">{shapes}'
        f'<line x1="0" y1="{_BASE}" x2="{_WIDTH}" y2="{_BASE}" stroke="#5b6470"/>'
        f'<text x="0" {text}>{low}</text><text x="{_WIDTH}" text-anchor="end" {text}>{high}</text></svg>'
        f'<figcaption class="dim">{escape(bars.title)}, {escape(bars.unit)}{spacing}; '
        f"tallest bar {tallest:,}</figcaption></figure>"
    )


def _edge(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"


def _draw_formats(summary: Summary) -> str:
    rows = [["format", _list(summary.formats)], ["mode", _list(summary.modes)]]
    if summary.peak:
        rows.append(["deep gray", f"largest value {summary.peak:,.0f}"])
    return _table(["", "pictures"], rows, "name")


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _draw_pairs(summary: Summary, pictures: Mapping[int, bytes]) -> str:
    clusters = summary.leaks + summary.conflicts + summary.duplicates
    if not clusters:
        return ""
    counted = f"leaks: {summary.leaks:,}, conflicts: {summary.conflicts:,}, inside one split: {summary.duplicates:,}"
    cards = "\n".join(_draw_pair(pair, pictures) for pair in summary.shown)
    return (
        f'<h2>Equal pictures</h2><p class="dim">{counted}; {len(summary.shown):,} shown, leaks first.</p>'
        f'<div class="pairs">\n{cards}\n</div>'
    )


def _draw_pair(pair: Shown, pictures: Mapping[int, bytes]) -> str:
    tags = " ".join(f'<span class="tag {what}">{what}</span>' for what in pair.what)
    alike = "every pixel is equal" if pair.exact else f"similarity {pair.similarity:.4f}"
    if pair.similarity < MIN_CORRELATION:
        alike = "edited: mirrored, turned, cropped or bordered"
    more = f"; {pair.size:,} equal pictures in all" if pair.size > 2 else ""
    sides = "".join(
        f'<div>{_draw_picture(pictures[row])}<div class="name">{escape(name)}</div>'
        f"<div><b>{escape(split)}</b> {escape(label)}</div></div>"
        for row, name, split, label in zip(pair.rows, pair.names, pair.splits, pair.labels, strict=True)
    )
    return (
        f'<div class="pair"><p>{tags} <span class="dim">{alike}{more}</span></p><div class="sides">{sides}</div></div>'
    )


def _draw_picture(data: bytes) -> str:
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def _draw_torn(summary: Summary) -> str:
    rows = [[group, _list(counts)] for group, counts in summary.torn]
    return _section("Groups in several splits", summary.num_torn, ["group", "pictures"], rows)


def _draw_rejected(summary: Summary) -> str:
    rows = [[name, kind, reason] for name, kind, reason in summary.rejected]
    return _section("Unreadable pictures", summary.num_rejected, ["picture", "kind", "reason"], rows)


def _draw_misnamed(summary: Summary) -> str:
    rows = [[name, kind] for name, kind in summary.misnamed]
    return _section("Endings of another format", summary.num_misnamed, ["picture", "is really"], rows)


def _draw_left_out(summary: Summary) -> str:
    rows = [[ending, _number(count)] for ending, count in summary.left_out.items()]
    return _section("Files that are not pictures", sum(summary.left_out.values()), ["ending", "files"], rows)


def _section(title: str, count: int, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a heading with the total and a table of the first rows, or '' if there are none."""
    if not count:
        return ""
    first = f"; the first {MAX_LISTED}" if count > MAX_LISTED else ""
    return f'<h2>{title}</h2><p class="dim">{count:,} in all{first}</p>{_table(titles, rows, "name")}'
