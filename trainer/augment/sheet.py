"""A contact sheet of augmentation: pictures as evaluation sees them, as training will, and mixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shards.dataset.dataset import Dataset
from shards.dataset.read import Sample, SampleReader
from shards.order.plan import Refs
from shards.storage.shown import show_location
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.evaluate.figures.figures import new_figure, save_figure
from trainer.evaluate.figures.fonts import apply_fonts, letter_texts
from trainer.feed.augment.mix import mix_images, plan_mix
from trainer.feed.meter import Meter
from trainer.feed.stream import TrainStream, make_load
from trainer.loop.build import build_preprocess
from trainer.ranks.ranks import Ranks
from trainer.recipes.options.augment import POLICIES, AugmentOptions
from trainer.recipes.recipe import ResolvedRecipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWS = 5
"""Number of epochs shown for each picture, and of mixed pictures per row."""
_MIXED_ROWS = 2
_LOOKED_AT = 256
"""Number of samples of the first step to choose classes from, and of steps to search for mixed ones."""
_CELL, _LEFT, _GAP, _TOP, _BETWEEN, _BOTTOM = 1.3, 1.35, 0.05, 1.15, 0.45, 0.2
"""Inches: side of a picture, room for names, between pictures, for titles, below mixed pictures, at the bottom."""
_INK, _SOFT, _ACCENT = "#1f2933", "#627282", "#2f6f9f"


@dataclass(frozen=True)
class Cell:
    """A picture uint8 or float32[C, S, S] in 0..255 with its caption."""

    image: Tensor
    caption: str = ""


@dataclass(frozen=True)
class Sheet:
    """names, rows: class and pictures of each sample, evaluation's first, then one per epoch. mixed: mixed ones."""

    names: list[str]
    rows: list[list[Cell]]
    mixed: list[Cell]


def write_contact_sheet(recipe: ResolvedRecipe, dataset: Dataset, path: Path, samples: int = 6) -> None:
    """Write a PNG with a row for each of some training pictures, from all classes, and rows of mixed pictures.

    Raises:
        UsageError: The options cannot be applied to these pictures.
        ShardError: A sample cannot be read or decoded.
    """
    title = f"{recipe.name}: augmentation of {show_location(recipe.data)}"
    caption = describe_augment(recipe.augment, build_preprocess(recipe, dataset))
    _write_sheet(path, title, caption, collect_pictures(recipe, dataset, samples))


def collect_pictures(recipe: ResolvedRecipe, dataset: Dataset, samples: int) -> Sheet:
    """Return the content of a sheet; the picture of epoch 1 is exactly the one used in the run's first epoch."""
    spec, split = build_preprocess(recipe, dataset), dataset.split("train")
    stream = TrainStream(split, recipe.model_copy(update={"workers": 0}), spec, Ranks(0, 1, torch.device("cpu")))
    try:
        with SampleReader(split) as reader:
            chosen = _choose_samples(stream, reader, samples)
        rows = [_draw_row(sample, copy, recipe, spec) for sample, copy in chosen]
        mixed = list(_mix_some(stream, recipe, dataset.classes))
    finally:
        stream.close()
    return Sheet([_name_labels(dataset.classes, sample.labels) for sample, _ in chosen], rows, mixed)


def describe_augment(options: AugmentOptions, spec: PreprocessSpec) -> str:
    """Return a description of the changes of a training picture, in order."""
    before = [operation.op for operation in options.pipeline if operation.when == "before"]
    after = [operation.op for operation in options.pipeline if operation.when == "after"]
    policy = POLICIES[options.policy]
    steps = [f"{policy.name}: {policy.summary}"] if policy.decoded else []
    steps += [f"{', '.join(before)} on the decoded picture"] if before else []
    steps.append(_describe_crop(options, spec))
    if options.policy != "none" and not policy.decoded:
        steps.append(f"{options.policy} ({options.chosen_backend})")
    steps += [f"{', '.join(after)} ({options.chosen_backend})"] if after else []
    steps += [f"erasing with p = {options.erase:g}"] if options.erase else []
    if options.mixes:
        alphas = {"mixup": options.mixup, "cutmix": options.cutmix}
        kinds = " or ".join(f"{name} (alpha {alpha:g})" for name, alpha in alphas.items() if alpha)
        steps.append(f"{kinds} on {options.mix_prob:.0%} of the steps")
    return "  →  ".join(steps)


def _describe_crop(options: AugmentOptions, spec: PreprocessSpec) -> str:
    size = spec.size
    if options.chosen_crop == "random":
        least, most = options.crop_scale
        return f"random {least:.0%} to {most:.0%} of the picture to {size}"
    if options.chosen_crop == "padded":
        return f"{spec.policy} to {options.crop_side(size)}, random crop of {size} with padding {options.crop_padding}"
    return f"{spec.policy} to {size}, as in evaluation"


# pictures


def _choose_samples(stream: TrainStream, reader: SampleReader, wanted: int) -> list[tuple[Sample, int]]:
    """Return samples of the first step with their copies: each class in turn, in the order of the step."""
    first = stream.plan(0).step(0)[slice(0, _LOOKED_AT)]
    by_class: dict[tuple[int, ...], list[tuple[Sample, int]]] = {}
    for sample, copy in _read(reader, first):
        by_class.setdefault(sample.labels, []).append((sample, copy))
    turns = sorted(
        (turn, labels, pair) for labels, pairs in by_class.items() for turn, pair in enumerate(pairs) if turn < wanted
    )
    return [pair for _, _, pair in sorted(turns[:wanted], key=lambda one: (one[1], one[0]))]


def _read(reader: SampleReader, refs: Refs) -> Iterator[tuple[Sample, int]]:
    for shard, row, copy in zip(refs.shards.tolist(), refs.rows.tolist(), refs.copies.tolist(), strict=True):
        yield reader.read_one(shard, row), copy


def _draw_row(sample: Sample, copy: int, recipe: ResolvedRecipe, spec: PreprocessSpec) -> list[Cell]:
    meter = Meter()
    draws = [make_load(recipe, spec, epoch)(sample, copy, meter) for epoch in range(_DRAWS)]
    return [Cell(prepare(sample.data, spec)), *(Cell(draw) for draw in draws)]


def _mix_some(stream: TrainStream, recipe: ResolvedRecipe, classes: list[str]) -> Iterator[Cell]:
    """Yield the first picture of each of the first steps with mixing."""
    plan, found = stream.plan(0), 0
    for step in range(min(plan.num_steps, _LOOKED_AT)):
        if found == _MIXED_ROWS * (_DRAWS + 1):
            return
        if plan_mix(recipe.augment, recipe.seed, 0, step, plan.step_size(step)) is None:
            continue
        batch = stream.peek(0, step, 1)
        assert batch.pairs is not None  # the plan mixes this step
        lam, kind = float(batch.pairs.lam[0]), "mixup" if batch.pairs.box is None else "cutmix"
        names = [_name_labels(classes, _read_labels(each[0])) for each in (batch.labels, batch.pairs.labels)]
        caption = f"{kind}, step {step + 1}\n{lam:.2f} {_cut(names[0])}\n{1 - lam:.2f} {_cut(names[1])}"
        yield Cell(mix_images(batch.images, batch.pairs)[0].clone(), caption)
        found += 1


def _read_labels(label: Tensor) -> tuple[int, ...]:
    """Return the classes of one sample: int64[], or float32[K] of 0 and 1."""
    return tuple(label.nonzero().flatten().tolist()) if label.ndim else (int(label),)


def _name_labels(classes: list[str], labels: tuple[int, ...]) -> str:
    return ", ".join(classes[label] for label in labels) or "none"


def _cut(name: str, length: int = 15) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


# the page


def _write_sheet(path: Path, title: str, caption: str, sheet: Sheet) -> None:
    families, spell = letter_texts([title, caption, *sheet.names, *(cell.caption for cell in sheet.mixed)])
    mixed = [Cell(cell.image, spell(cell.caption)) for cell in sheet.mixed]
    lettered = Sheet([spell(name) for name in sheet.names], sheet.rows, mixed)
    with apply_fonts(families):
        save_figure(_draw_sheet(spell(title), spell(caption), lettered), path)


def _draw_sheet(title: str, caption: str, sheet: Sheet) -> Figure:
    rows, mixed = sheet.rows, sheet.mixed
    columns, mixed_rows = _DRAWS + 1, -(-len(mixed) // (_DRAWS + 1))
    width = _LEFT + columns * (_CELL + _GAP) + 0.35
    pitch = _CELL + _GAP
    below = mixed_rows * (pitch + _BETWEEN) + (0.3 if mixed else 0)
    height = _TOP + len(rows) * pitch + below + _BOTTOM
    figure = new_figure(width, height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))  # in inches; axes for each cell are slow
    axes.set_axis_off()

    def write(text: str, left: float, top: float, **style: Any) -> None:
        figure.text(left / width, 1 - top / height, text, **{"color": _INK, "va": "top", **style})

    def place(cell: Cell, left: float, top: float) -> None:
        _show(axes, cell, left, top)
        if cell.caption:
            style = {"ha": "center", "fontsize": 7, "color": _SOFT, "linespacing": 1.15}
            write(cell.caption, left + _CELL / 2, top + _CELL + 0.03, **style)

    write(title, 0.2, 0.18, fontsize=13, weight="bold")
    write(caption, 0.2, 0.5, fontsize=8, color=_SOFT, wrap=True)
    for column, head in enumerate(["evaluation", *(f"epoch {epoch + 1}" for epoch in range(_DRAWS))]):
        left = _left(column) + _CELL / 2
        colour = _SOFT if column == 0 else _ACCENT
        write(head, left, _TOP - 0.08, ha="center", va="bottom", fontsize=9, color=colour, weight="bold")
    for number, cells in enumerate(rows):
        top = _TOP + number * pitch
        write(_cut(sheet.names[number], 17), _LEFT - 0.12, top + _CELL / 2, ha="right", va="center", fontsize=9)
        for column, cell in enumerate(cells):
            place(cell, _left(column), top)
    start = _TOP + len(rows) * pitch + 0.3
    if mixed:
        write("mixed", _LEFT - 0.12, start + _CELL / 2, ha="right", va="center", fontsize=9, weight="bold")
    for number, cell in enumerate(mixed):
        place(cell, _LEFT + (number % columns) * pitch, start + (number // columns) * (pitch + _BETWEEN))
    return figure


def _left(column: int) -> float:
    """Return the left edge of a column, inches; evaluation's column is set apart."""
    return _LEFT + column * (_CELL + _GAP) + (0.15 if column else 0)


def _show(axes: Any, cell: Cell, left: float, top: float) -> None:
    pixels = cell.image.round().byte().permute(1, 2, 0).numpy()
    place = {"extent": (left, left + _CELL, top + _CELL, top), "aspect": "auto", "zorder": 1}
    if pixels.shape[2] == 1:
        axes.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255, **place)
    else:
        axes.imshow(pixels, **place)
    axes.plot(
        [left, left + _CELL, left + _CELL, left, left],
        [top, top, top + _CELL, top + _CELL, top],
        color="#d5dbe1",
        linewidth=0.6,
    )
