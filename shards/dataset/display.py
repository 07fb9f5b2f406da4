"""Datasets and splits as HTML, for notebooks: what there is, and some of the pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from shards.dataset.dataset import Dataset
from shards.dataset.read import Sample, SampleReader
from shards.dataset.split import Split

_SHOWN, _SIDE = 12, 96
"""Pictures, and pixels of a picture's longer side."""
_CLASSES = 50


def draw_dataset(dataset: Dataset) -> str:
    """Return a table of how many samples of each class each split has."""
    splits = dataset.manifest.splits
    rows = [["class", *splits]]
    for number, name in list(enumerate(dataset.manifest.display_names))[:_CLASSES]:
        rows.append([name, *(f"{each.class_counts[number]:,}" for each in splits.values())])
    if (left := len(dataset.classes) - _CLASSES) > 0:
        rows.append([f"and {left:,} more", *[""] * len(splits)])
    rows.append(["samples", *(f"{each.samples:,}" for each in splits.values())])
    return _draw_table(rows)


def _draw_table(rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def draw_split(split: Split) -> str:
    """Return up to 12 pictures, evenly spaced over the split in stored order, above their classes.

    Raises:
        ShardError: One that cannot be read or decoded.
    """
    chosen = np.linspace(0, split.num_samples - 1, min(_SHOWN, split.num_samples)).astype(int)
    with SampleReader(split) as reader:
        figures = "".join(
            _draw_picture(split, reader.read_one(*split.find_sample(number))) for number in chosen.tolist()
        )
    return f"<div>{escape(split.name)}: {split.num_samples:,} samples</div><div>{figures}</div>"


def _draw_picture(split: Split, sample: Sample) -> str:
    image = Image.fromarray(split.decode_picture(sample.data))
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    named = escape(", ".join(split.classes[label] for label in sample.labels) or "no label")
    picture = f'<img src="{source}" alt="{named}" title="{escape(sample.source)}">'
    return f'<figure style="display:inline-block;margin:4px">{picture}<figcaption>{named}</figcaption></figure>'
