"""Pictures with predictions: the model's worst errors, and likely label mistakes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.dataset.read import SampleReader
from shards.errors import ShardError
from trainer.contract.bundle import Bundle
from trainer.contract.model.cam import explain
from trainer.evaluate.extras import describe_error, try_extra
from trainer.evaluate.label_issues import find_label_issues, find_multi_label_issues
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.rows import Rows
from trainer.evaluate.worst import find_worst, read_image
from trainer.report.markup import embed_pixels, escape, show_note
from trainer.report.sources import Evaluation, Finished

logger = logging.getLogger(__name__)

MOST = 24
"""Number of pictures in a gallery."""
_SIDE = 160
"""Maximum side of a thumbnail, pixels."""
_TOGETHER = 4
"""Pictures explained in one pass, limited because all activations are kept for gradients."""
_OPAQUE = 0.6
"""Opacity of the map where it is 1."""
_ALIKE = 0.7
"""Mean correlation from which maps count as alike: half of a map's variance is then common to all."""
_LEAST_PAIRS = 12
"""Minimum number of ordered pairs of maps, that of 4 pictures, for a note on likeness."""


@dataclass(frozen=True)
class Shown:
    """One picture to show.

    position: its row; maps: classes of overlaid maps, with their captions; words: the picture's caption.
    """

    position: int
    maps: tuple[tuple[str, int], ...]
    words: list[str]


def select_worst(predictions: Predictions, most: int = MOST) -> list[Shown]:
    """Return wrong predictions, the worst first, with maps of the predicted and of the true class."""
    rows = read_rows(predictions)
    return list(_SELECT[rows.task.name].worst(predictions, rows, find_worst(rows, most).tolist()))


def _select_worst_class(predictions: Predictions, rows: Rows, positions: list[int]) -> Iterator[Shown]:
    for position in positions:
        yield _ask_both(predictions, position, int(rows.logits[position].argmax()))


def _ask_both(predictions: Predictions, position: int, given: int) -> Shown:
    """Return a picture with one label, with maps of the predicted class and of its label."""
    names, label = predictions.display_names, int(predictions.labels[position])
    given_rate, label_rate = predictions.probabilities[position, [given, label]].tolist()
    words = [f"{names[given]} {given_rate:.3f}", f"label {names[label]} {label_rate:.3f}"]
    return Shown(position, ((names[given], given), (names[label], label)), words)


def _select_worst_set(predictions: Predictions, rows: Rows, positions: list[int]) -> Iterator[Shown]:
    names = predictions.display_names
    labels, answers = rows.name_answers(names)
    losses = rows.task.log_losses(rows.labels, rows.logits)
    for position in positions:
        wrong = np.where(rows.labels[position] != rows.predicted[position], losses[position], -1.0)
        maps, words = [], [answers[position] or "none", f"labels {labels[position] or 'none'}"]
        for what, missed in (("given", 0), ("missed", 1)):
            among = np.where(rows.labels[position] == missed, wrong, -1.0)
            asked = int(among.argmax())
            if among[asked] >= 0:
                maps.append((names[asked], asked))
                words.append(f"{what} {names[asked]} {predictions.probabilities[position, asked]:.3f}")
        yield Shown(position, tuple(maps), words)


def select_issues(predictions: Predictions) -> list[Shown]:
    """Return likely label mistakes, the most certain first."""
    return _SELECT[predictions.task.name].issues(predictions)


def mark_issues(worst: list[Shown], issues: list[Shown]) -> list[Shown]:
    """Return the worst errors with marks on likely label mistakes, which are not shown again."""
    marks: dict[int, list[str]] = {}
    for issue in issues:
        marks.setdefault(issue.position, []).append(issue.maps[0][0])
    return [
        replace(each, words=[*each.words, f"{LIKELY}: {', '.join(marks[each.position])}?"])
        if each.position in marks
        else each
        for each in worst
    ]


LIKELY = "likely label mistake"


def _select_issues_of_each(predictions: Predictions) -> list[Shown]:
    labels, probabilities, names = predictions.labels, predictions.probabilities, predictions.display_names
    return [
        Shown(
            k, ((names[asked], asked),),
            [f"{names[asked]} {_say(labels[k, asked])}", f"model {probabilities[k, asked]:.3f}"],
        )
        for k, asked in find_multi_label_issues(labels, probabilities).tolist()
    ]  # fmt: skip


def _select_issues_of_class(predictions: Predictions) -> list[Shown]:
    labels, probabilities = predictions.labels, predictions.probabilities
    told = []
    for k in find_label_issues(labels, probabilities).tolist():
        others = probabilities[k].copy()
        others[labels[k]] = -1
        told.append(_ask_both(predictions, k, int(others.argmax())))
    return told


def _say(label: int) -> str:
    return "is in the labels" if label else "is not in the labels"


@dataclass(frozen=True)
class _Select:
    """The task-specific functions of a gallery: the classes to explain, and captions."""

    worst: Callable[[Predictions, Rows, list[int]], Iterator[Shown]]
    issues: Callable[[Predictions], list[Shown]]


_SELECT = {
    "single-label": _Select(_select_worst_class, _select_issues_of_class),
    "multi-label": _Select(_select_worst_set, _select_issues_of_each),
}


def read_rows(predictions: Predictions) -> Rows:
    """Return the rows of saved predictions."""
    ids, paths = predictions.known["sample_id"].to_numpy(), predictions.known["path"].to_pylist()
    return Rows(predictions.task, ids, predictions.labels, predictions.logits, paths)


def draw_gallery(run: Finished, evaluation: Evaluation, shown: list[Shown]) -> str:
    """Return the pictures as the model sees them, each next to copies overlaid with maps of its classes.

    Unreadable pictures are left out, and all maps if one fails, with a note. A note also says if maps hardly differ
    between pictures.
    """
    found, notes = _read_shown(run, evaluation, shown)
    images = [_to_colours(image) for _, image in found]
    asked = [(number, name, each) for number, (row, _) in enumerate(found) for name, each in row.maps]

    def overlay() -> list[npt.NDArray[np.uint8]]:
        numbers, classes = [number for number, *_ in asked], [each for *_, each in asked]
        heats = list(explain_images(run.bundle, [found[number][1] for number in numbers], classes))
        if caveat := describe_likeness(heats, classes):
            notes.append(caveat)
        return [lay_over(images[number], heat) for number, heat in zip(numbers, heats, strict=True)]

    maps = try_extra("the map beside each picture", overlay, notes.append)
    paths, figures = evaluation.predictions.known["path"], []
    for number, (each, _) in enumerate(found):
        path = str(paths[each.position].as_py())
        views = _view(images[number], path, "picture")
        for (owner, name, _), pixels in zip(asked, maps or [], strict=maps is not None):
            views += _view(pixels, f"map of {name} on {path}", name) if owner == number else ""
        first, *rest = map(escape, each.words)
        words = "<br>".join([f"<b>{first}</b>", *rest])
        caption = f"{words}<br><span class=path>{escape(path)}</span>"
        figures.append(f"<figure><div class=views>{views}</div><figcaption>{caption}</figcaption></figure>")
    told = "".join(show_note(f"{note}.") for note in notes)
    return told + (f"<div class=gallery>{''.join(figures)}</div>" if figures else "")


def _view(pixels: npt.NDArray[np.uint8], alt: str, name: str) -> str:
    """Return a picture with a caption."""
    return f"<span>{embed_pixels(pixels, alt, _SIDE)}{escape(name)}</span>"


def describe_likeness(heats: list[npt.NDArray[np.float32]], classes: list[int]) -> str | None:
    """Return a note if the maps of a class, float32[S, S] each, hardly differ between pictures; else None.

    Maps are alike if their mean correlation, over all pairs of pictures with the same class, is `_ALIKE` or more.
    """
    total, pairs = 0.0, 0
    for number in set(classes):
        maps = [heat.ravel() - heat.mean() for heat, each in zip(heats, classes, strict=True) if each == number]
        units = np.array([each / np.linalg.norm(each) for each in maps if each.any()])
        # The sum over all pairs is the sum's product with itself minus each map's with itself.
        total += float((units.sum(axis=0) ** 2).sum()) - len(units) if len(units) else 0.0
        pairs += len(units) * (len(units) - 1)
    if pairs < _LEAST_PAIRS or total / pairs < _ALIKE:
        return None
    return (
        f"The maps hardly differ between pictures (those of one class correlate to {total / pairs:.2f} on average), so "
        "they show where the model looks in any picture rather than what it saw in this one"
    )


def _read_shown(
    run: Finished, evaluation: Evaluation, shown: list[Shown]
) -> tuple[list[tuple[Shown, Tensor]], list[str]]:
    """Return the readable pictures with their images, and a note about the rest, if any."""
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
    note = f"{len(lost)} of {len(shown)} pictures can no longer be read and are left out ({describe_error(lost[0])})"
    logger.warning("the report on %s: %s", evaluation.part, note)
    return found, [note]


def explain_images(bundle: Bundle, images: list[Tensor], asked: list[int]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield a map float32[S, S] in 0..1 for each image uint8[C, S, S]: how much each place speaks for its class."""
    for start in range(0, len(images), _TOGETHER):
        batch = torch.stack(images[start : start + _TOGETHER]).to(bundle.device)
        classes = torch.tensor(asked[start : start + _TOGETHER], device=bundle.device)
        yield from explain(bundle.model, batch, classes).cpu().numpy()


def _to_colours(image: Tensor) -> npt.NDArray[np.uint8]:
    """Return uint8[H, W, 3] of uint8[C, H, W]."""
    pixels: npt.NDArray[np.uint8] = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return pixels


def lay_over(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return uint8[H, W, 3], the picture overlaid with the colours of a map float32[H, W], unchanged where it is 0."""
    from matplotlib import colormaps

    share = _OPAQUE * heat[..., None]
    colours = 255 * colormaps["turbo"](heat)[..., :3]
    mixed: npt.NDArray[np.uint8] = ((1 - share) * pixels + share * colours).round().astype(np.uint8)
    return mixed
