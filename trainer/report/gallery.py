"""Pictures with what the model made of them: its worst errors, and labels that are likely mistakes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.dataset.read import SampleReader
from shards.errors import ShardError
from trainer.contract.bundle import Bundle
from trainer.contract.model.cam import explain
from trainer.evaluate.answers import name_answers
from trainer.evaluate.extras import describe_error, try_extra
from trainer.evaluate.label_issues import find_label_issues, find_multi_label_issues
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.rows import Rows
from trainer.evaluate.worst import find_worst, read_image
from trainer.report.markup import embed_pixels, escape, show_note
from trainer.report.sources import Evaluation, Finished

logger = logging.getLogger(__name__)

MOST = 24
"""Pictures of a gallery."""
_SIDE = 160
"""Pixels of a thumbnail at most."""
_TOGETHER = 4
"""Pictures that are explained in one pass: its activations are all kept for the gradients."""
_OPAQUE = 0.6
"""Of the map, where it is 1."""


@dataclass(frozen=True)
class Shown:
    """One picture to be shown: its row, the class whose map is laid over it, and the words about it."""

    position: int
    asked: int
    words: list[str]


def select_worst(predictions: Predictions, most: int = MOST) -> list[Shown]:
    """Return wrong answers, the worst first, asking about the class that was wrongly given (or wrongly missed)."""
    rows = _read_rows(predictions)
    return list(_SELECT[rows.task.name].worst(predictions, rows, find_worst(rows, most).tolist()))


def _select_worst_class(predictions: Predictions, rows: Rows, positions: list[int]) -> Iterator[Shown]:
    labels, answers = name_answers(rows, predictions.display_names)
    rates = rows.task.rate_truth(rows.labels, rows.logits)
    for position in positions:
        asked = int(rows.logits[position].argmax())
        given = f"{answers[position]} {predictions.probabilities[position, asked]:.3f}"
        yield Shown(position, asked, [given, f"label {labels[position]} {rates[position]:.3f}"])


def _select_worst_set(predictions: Predictions, rows: Rows, positions: list[int]) -> Iterator[Shown]:
    names = predictions.display_names
    labels, answers = name_answers(rows, names)
    losses = rows.task.log_losses(rows.labels, rows.logits)
    for position in positions:
        asked = int(losses[position].argmax())
        probability = f"map: {names[asked]} {predictions.probabilities[position, asked]:.3f}"
        words = [answers[position] or "none", f"labels {labels[position] or 'none'}", probability]
        yield Shown(position, asked, words)


def select_issues(predictions: Predictions, most: int = MOST) -> tuple[list[Shown], int]:
    """Return likely label mistakes, the surest first, and how many there are beside."""
    return _SELECT[predictions.task.name].issues(predictions, most)


def _select_issues_of_each(predictions: Predictions, most: int) -> tuple[list[Shown], int]:
    labels, probabilities, names = predictions.labels, predictions.probabilities, predictions.display_names
    pairs = find_multi_label_issues(labels, probabilities)
    told = [
        Shown(k, asked, [f"{names[asked]} {_say(labels[k, asked])}", f"model {probabilities[k, asked]:.3f}"])
        for k, asked in pairs[:most].tolist()
    ]
    return told, len(pairs)


def _select_issues_of_class(predictions: Predictions, most: int) -> tuple[list[Shown], int]:
    labels, probabilities, names = predictions.labels, predictions.probabilities, predictions.display_names
    issues = find_label_issues(labels, probabilities)
    told = []
    for k in issues[:most].tolist():
        others = probabilities[k].copy()
        others[labels[k]] = -1
        asked = int(others.argmax())
        words = [f"{names[asked]} {probabilities[k, asked]:.3f}"]
        told.append(Shown(k, asked, [*words, f"label {names[labels[k]]} {probabilities[k, labels[k]]:.3f}"]))
    return told, len(issues)


def _say(label: int) -> str:
    return "is in the labels" if label else "is not in the labels"


@dataclass(frozen=True)
class _Select:
    """What a gallery has of its own for each task: which class is asked about, and what is said of it."""

    worst: Callable[[Predictions, Rows, list[int]], Iterator[Shown]]
    issues: Callable[[Predictions, int], tuple[list[Shown], int]]


_SELECT = {
    "single-label": _Select(_select_worst_class, _select_issues_of_class),
    "multi-label": _Select(_select_worst_set, _select_issues_of_each),
}


def _read_rows(predictions: Predictions) -> Rows:
    ids, paths = predictions.known["sample_id"].to_numpy(), predictions.known["path"].to_pylist()
    return Rows(predictions.task, ids, predictions.labels, predictions.logits, paths)


def draw_gallery(run: Finished, evaluation: Evaluation, shown: list[Shown]) -> str:
    """Return the pictures as the model sees them, each beside itself under the map of the class it is asked about.

    Pictures that cannot be read any more are left out, and the maps where one fails; a sentence says so.
    """
    found, notes = _read_shown(run, evaluation, shown)
    images = [_to_colours(image) for _, image in found]
    asked = [each.asked for each, _ in found]

    def overlay() -> list[npt.NDArray[np.uint8]]:
        heats = explain_images(run.bundle, [image for _, image in found], asked)
        return [lay_over(pixels, heat) for pixels, heat in zip(images, heats, strict=True)]

    maps = try_extra("the map beside each picture", overlay, notes.append)
    paths, figures = evaluation.predictions.known["path"], []
    for number, (each, _) in enumerate(found):
        path = str(paths[each.position].as_py())
        views = embed_pixels(images[number], path, _SIDE)
        views += embed_pixels(maps[number], f"map on {path}", _SIDE) if maps is not None else ""
        first, *rest = map(escape, each.words)
        words = "<br>".join([f"<b>{first}</b>", *rest])
        caption = f"{words}<br><span class=path>{escape(path)}</span>"
        figures.append(f"<figure><div class=pair>{views}</div><figcaption>{caption}</figcaption></figure>")
    told = "".join(show_note(f"{note}.") for note in notes)
    return told + (f"<div class=gallery>{''.join(figures)}</div>" if figures else "")


def _read_shown(
    run: Finished, evaluation: Evaluation, shown: list[Shown]
) -> tuple[list[tuple[Shown, Tensor]], list[str]]:
    """Return what can still be read with its image, and a sentence about the rest, if there is any."""
    split, ids = run.dataset.split(evaluation.part), evaluation.predictions.known["sample_id"].to_numpy()
    found: list[tuple[Shown, Tensor]] = []
    lost: list[Exception] = []
    with SampleReader(split) as reader:
        for each in shown:
            try:
                found.append((each, read_image(reader, split, int(ids[each.position]), run.page.preprocess)))
            except (ShardError, OSError) as err:
                lost.append(err)
    if not lost:
        return found, []
    note = f"{len(lost)} of {len(shown)} pictures cannot be read any more and are left out ({describe_error(lost[0])})"
    logger.warning("the report on %s: %s", evaluation.part, note)
    return found, [note]


def explain_images(bundle: Bundle, images: list[Tensor], asked: list[int]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield float32[S, S] of each image uint8[C, S, S], 0..1: what speaks for the class that is asked about."""
    for start in range(0, len(images), _TOGETHER):
        batch = torch.stack(images[start : start + _TOGETHER]).to(bundle.device)
        classes = torch.tensor(asked[start : start + _TOGETHER], device=bundle.device)
        yield from explain(bundle.model, batch, classes).cpu().numpy()


def _to_colours(image: Tensor) -> npt.NDArray[np.uint8]:
    """Return uint8[H, W, 3] of uint8[C, H, W]."""
    pixels: npt.NDArray[np.uint8] = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return pixels


def lay_over(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return uint8[H, W, 3], the picture under the colours of a map float32[H, W]; where it is 0, the picture."""
    from matplotlib import colormaps

    share = _OPAQUE * heat[..., None]
    colours = 255 * colormaps["turbo"](heat)[..., :3]
    mixed: npt.NDArray[np.uint8] = ((1 - share) * pixels + share * colours).round().astype(np.uint8)
    return mixed
