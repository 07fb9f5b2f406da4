"""A benchmark's results: JSON, Markdown table and figure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from shards.files.atomic import write_atomically, write_text
from trainer.bench.rounds import Row
from trainer.contract.compute.parity import Parity

_DPI = 110


class Published(BaseModel):
    """A published number, on its authors' hardware."""

    model_config = ConfigDict(frozen=True)

    model: str
    batch_size: int
    images_per_s: float
    hardware: str


PUBLISHED: Final = (
    Published(model="resnet50", batch_size=128, images_per_s=191, hardware="GTX 1080 Ti"),
    Published(model="resnet50", batch_size=128, images_per_s=459, hardware="RTX 3060 laptop"),
    Published(model="resnet50", batch_size=128, images_per_s=24.3, hardware="i7-11800H"),
)
"""The tutorials' tables."""


class Standing(BaseModel):
    """Facts of one back end that do not depend on the batch size."""

    model_config = ConfigDict(frozen=True)

    start_s: float
    """Time until it is ready for batches of any size, including compilation."""
    parity: Parity
    keeps_parity: bool
    """Whether parity is good enough for serving."""


class BenchPage(BaseModel):
    """The content of `bench.json`."""

    model_config = ConfigDict(frozen=True)

    bundle: str
    """Fingerprint."""
    model: str
    image_size: int
    device: str
    cpu: str
    threads: int
    load: tuple[float, float]
    """Load of the machine over the last minute, at start and end; above the number of CPUs, it was overloaded."""
    date: str
    versions: dict[str, str]
    pictures: str
    """Source and number of the pictures."""
    rows: list[Row]
    back_ends: dict[str, Standing]
    absent: dict[str, str]
    """Back ends that could not be measured, and why."""
    published: list[Published]
    """Published numbers of the same model."""
    chosen: str | None = None
    """Back end recorded in the bundle for this kind of CPU."""


def read_load() -> float:
    """Return the load: the mean number of running or runnable processes over the last minute."""
    return round(os.getloadavg()[0], 1)


def write_page(folder: Path, page: BenchPage) -> None:
    """Write bench.json, table.md and bench.png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.md", draw_table(page))
    with write_atomically(folder / "bench.png") as file:
        draw_figure(page).savefig(file, format="png", dpi=_DPI)
    write_text(folder / "bench.json", page.model_dump_json(indent=2) + "\n")


def draw_table(page: BenchPage) -> str:
    """Return the results as Markdown."""
    name = torch.cuda.get_device_name() if page.device == "cuda" else page.cpu
    lines = [
        f"# {page.model} at {page.image_size} pixels on {page.device}",
        "",
        f"- {page.date}, {name}, {page.threads} threads, load {page.load[0]:g} before, {page.load[1]:g} after",
        f"- pictures: {page.pictures}",
        f"- {', '.join(f'{library} {version}' for library, version in page.versions.items())}",
        "",
        "| back end | batch | model p50, ms | p95 | a picture, ms | CPU time, ms | images/s | whole p50, ms | p95 "
        "| images/s | of it decode + geometry, ms | batch assembly, ms | rounds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_draw_row(row) for row in page.rows]
    lines += ["", "Whole is decode, geometry, batch assembly and the model, from encoded bytes on.", ""]
    lines += ["| back end | ready after, s | max \\|dp\\| | top-1 agreement | logits, relative | keeps parity |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, standing in page.back_ends.items():
        parity = standing.parity
        verdict = "yes" if standing.keeps_parity else "**no**"
        lines.append(
            f"| {name} | {standing.start_s:.1f} | {parity.max_dp:.1e} | {parity.top1_agreement:.2%} "
            f"| {parity.max_logit:.1e} | {verdict} |"
        )
    lines += [f"\nNot measured: {reason}" for reason in page.absent.values()]
    lines += _draw_published(page)
    if page.chosen:
        lines += ["", f"Chosen for serving on this kind of CPU: {page.chosen}."]
    return "\n".join(lines) + "\n"


def _draw_row(row: Row) -> str:
    return (
        f"| {row.backend} | {row.batch_size} | {row.model.p50_ms:.1f} | {row.model.p95_ms:.1f} "
        f"| {row.model.p50_ms_per_picture:.2f} | {row.cpu_ms_per_picture:.2f} | {row.model.images_per_s:.1f} "
        f"| {row.whole.p50_ms:.1f} | {row.whole.p95_ms:.1f} | {row.whole.images_per_s:.1f} "
        f"| {row.prepare_ms:.1f} | {row.assemble_ms:.2f} | {row.rounds} |"
    )


def _draw_published(page: BenchPage) -> list[str]:
    lines = [f"| {each.hardware} | {each.batch_size} | {each.images_per_s:g} |" for each in page.published]
    return ["", "The tutorials' numbers for this model, on their machines:", "",
            "| hardware | batch | images/s |", "|---|---|---|", *lines] if lines else []  # fmt: skip


def draw_figure(page: BenchPage) -> Figure:
    """Return a figure of throughput by batch size: the model alone, and from encoded bytes."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{page.model} at {page.image_size} pixels, {page.device}, {page.threads} threads ({page.cpu})")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, title in ((left, "model alone"), (right, "decode + geometry + batch assembly + model")):
        for name in page.back_ends:
            rows = [row for row in page.rows if row.backend == name]
            speeds = [(row.model if axes is left else row.whole).images_per_s for row in rows]
            style = "o-" if page.back_ends[name].keeps_parity else "x:"
            axes.plot([row.batch_size for row in rows], speeds, style, label=name)
        axes.set(title=title, xlabel="batch size", xscale="log")
        sizes = sorted({row.batch_size for row in page.rows})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    # Set after both are drawn: they share the axis, and a limit stops autoscaling.
    left.set(ylabel="images/s", ylim=(0, None))
    right.legend(title="dotted: no parity" if not all(s.keeps_parity for s in page.back_ends.values()) else None)
    return figure
