"""Compare the speed of a bundle's back ends."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from shards.errors import UsageError
from shards.files.job_folder import refuse_job_folder
from trainer.bench.bench_page import PUBLISHED, BenchPage, Standing, read_load, write_page
from trainer.bench.contenders import Line, line_up
from trainer.bench.options import BenchOptions
from trainer.bench.rounds import Row, measure
from trainer.contract.bundle import Bundle, read_versions
from trainer.contract.compute.choice import Choice, Measured, choose, read_cpu, record_choice
from trainer.export.export import prepare_all
from trainer.export.pictures import read_pictures, read_probe_pictures

_SAMPLES, _COMPARED = 256, 64
"""Maximum number of pictures from --data, and number of pictures for parity."""


@dataclass(frozen=True)
class Bench:
    """The measurements, and the folder with table, JSON and figure."""

    page: BenchPage
    folder: Path


def bench(options: BenchOptions) -> Bench:
    """Measure a bundle's back ends and write table, JSON and figure; with `choose`, record the fastest in the bundle.

    Raises:
        UsageError: There is no bundle, no pictures, no GPU, or none of the back ends is available.
        ShardError: The bundle or dataset is damaged, or no picture can be decoded.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no GPU here; remove it, or install a CUDA build of PyTorch")
    with _threads(options.threads):
        page = _measure(options)
    folder = options.out or refuse_job_folder(Path("benches")) / page.model.replace("/", "-")
    write_page(folder, page)
    return Bench(page, folder)


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Set torch's number of threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure(options: BenchOptions) -> BenchPage:
    folder, bundle = options.bundle, Bundle.load(options.bundle, options.device)
    pictures = read_pictures(options.data, _SAMPLES) if options.data else read_probe_pictures(folder)
    load = read_load()
    usable, images = prepare_all(bundle, pictures)
    with tempfile.TemporaryDirectory() as temporary:
        workplace = folder if options.choose else Path(temporary)
        line = line_up(options.backend, folder, bundle, images[:_COMPARED], workplace)
        rows: list[Row] = []
        for size in options.batch_size:
            rows += measure(line.contenders, bundle, usable.data, size, options.seconds, options.threads)
    name = bundle.page.model.name
    return BenchPage(
        bundle=bundle.page.fingerprint(),
        model=name,
        image_size=bundle.page.preprocess.size,
        device=options.device,
        cpu=read_cpu(),
        threads=options.threads,
        load=(load, read_load()),
        date=_today(),
        versions=read_versions(),
        pictures=f"{len(usable.data):,} of {usable.source}",
        rows=rows,
        back_ends={
            each.backend.name: Standing(start_s=each.start_s, parity=each.parity, keeps_parity=each.keeps is None)
            for each in line.contenders
        },
        absent=line.absent,
        published=[each for each in PUBLISHED if each.model == name],
        chosen=_choose(folder, bundle, line, rows, options.threads) if options.choose else None,
    )


def _choose(folder: Path, bundle: Bundle, line: Line, rows: list[Row], threads: int) -> str:
    """Record the fastest back end that serving may use; return its name."""
    measured = [
        Measured(
            backend=each.backend.name,
            start_s=each.start_s,
            images_per_s={row.batch_size: row.model.images_per_s for row in rows if row.backend == each.backend.name},
            parity=each.parity if each.keeps is None else None,
        )
        for each in line.contenders
    ]
    choice = Choice(
        cpu=read_cpu(),
        threads=threads,
        date=_today(),
        versions=read_versions(),
        chosen=choose(measured).backend,
        measured=measured,
    )
    record_choice(folder, bundle.page, choice)
    return choice.chosen


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
