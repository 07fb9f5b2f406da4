"""`python -m trainer.bench BUNDLE`: what each back end costs, from pictures in memory and from encoded bytes on.

Back ends take turns at batches (A B A B), after a warm-up. --choose also records in the bundle which one is the fastest
on this kind of CPU among those that keep parity and start within 20 s; `cluster.serve` and `trainer.predict` use that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.cli.ending import run_command
from shards.cli.messages import add_volume, say
from shards.errors import UsageError
from shards.workers.openmp import count_cpus
from trainer.contract.model.names import BACKENDS, BackendName

if TYPE_CHECKING:
    from trainer.bench.bench_page import BenchPage
    from trainer.bench.contenders import Line
    from trainer.bench.rounds import Row
    from trainer.contract.bundle import Bundle
    from trainer.export.pictures import Pictures

_SAMPLES, _COMPARED = 256, 64
"""Pictures of --data at most, and those on which parity is measured."""


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    _check(arguments)
    import torch

    from trainer.bench.bench_page import draw_table, write_page
    from trainer.contract.bundle import Bundle
    from trainer.export.pictures import read_pictures, read_probe_pictures

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no GPU here; leave it out, or install a build for CUDA")
    torch.set_num_threads(arguments.threads)
    bundle = Bundle.load(arguments.bundle, arguments.device)
    where = arguments.data
    pictures = read_pictures(where, _SAMPLES) if where else read_probe_pictures(arguments.bundle)
    page = run_bench(bundle, arguments.bundle, pictures, arguments)
    out = arguments.out or Path("benches") / page.model.replace("/", "-")
    write_page(out, page)
    print(page.model_dump_json() if arguments.json else draw_table(page), flush=True)
    say(f"files   {out}")
    return 0


def run_bench(bundle: Bundle, folder: Path, pictures: Pictures, arguments: argparse.Namespace) -> BenchPage:
    """Measure all that was asked for; with `choose`, record the fastest in the bundle."""
    from trainer.bench.bench_page import read_load
    from trainer.bench.contenders import line_up
    from trainer.bench.rounds import measure
    from trainer.export.export import prepare_all

    load = read_load()
    usable, images = prepare_all(bundle, pictures)
    with tempfile.TemporaryDirectory() as temporary:
        line = line_up(
            arguments.backend, folder, bundle, images[:_COMPARED], folder if arguments.choose else Path(temporary), say
        )
        rows: list[Row] = []
        for size in arguments.batch_size:
            rows += measure(line.contenders, bundle, usable.data, size, arguments.seconds, arguments.threads, say)
    chosen = _choose(folder, bundle, line, rows, arguments.threads) if arguments.choose else None
    return _make_page(bundle, line, rows, usable, arguments, (load, read_load()), chosen)


def _choose(folder: Path, bundle: Bundle, line: Line, rows: list[Row], threads: int) -> str:
    """Record the fastest back end that serving may use; return its name."""
    from trainer.contract.bundle import read_versions
    from trainer.contract.compute.choice import Choice, Measured, choose, read_cpu, record_choice

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


def _make_page(
    bundle: Bundle,
    line: Line,
    rows: list[Row],
    pictures: Pictures,
    arguments: argparse.Namespace,
    load: tuple[float, float],
    chosen: str | None,
) -> BenchPage:
    from trainer.bench.bench_page import PUBLISHED, BenchPage, Standing
    from trainer.contract.bundle import read_versions
    from trainer.contract.compute.choice import read_cpu

    name = bundle.page.model.name
    return BenchPage(
        bundle=bundle.page.fingerprint(),
        model=name,
        image_size=bundle.page.preprocess.size,
        device=arguments.device,
        cpu=read_cpu(),
        threads=arguments.threads,
        load=load,
        date=_today(),
        versions=read_versions(),
        pictures=f"{len(pictures.data):,} of {pictures.source}",
        rows=rows,
        back_ends={
            each.backend.name: Standing(start_s=each.start_s, parity=each.parity, keeps_parity=each.keeps is None)
            for each in line.contenders
        },
        absent=line.absent,
        published=[each for each in PUBLISHED if each.model == name],
        chosen=chosen,
    )


def _check(arguments: argparse.Namespace) -> None:
    if arguments.choose and arguments.device != "cpu":
        raise UsageError("--choose is for CPUs: on a GPU eager computes; leave out --device")
    if arguments.choose and "eager" not in arguments.backend:
        raise UsageError("--choose compares with eager, which serving falls back on; name it in --backend")
    if not arguments.seconds > 0:
        raise UsageError(f"--seconds must be above 0, got {arguments.seconds:g}")
    if arguments.threads < 1:
        raise UsageError(f"--threads must be at least 1, got {arguments.threads}")


def _read_sizes(text: str) -> list[int]:
    sizes = [int(part) for part in text.split(",")]
    if min(sizes) < 1:
        raise ValueError
    return sizes


def _read_names(text: str) -> Sequence[BackendName]:
    try:
        names = {BACKENDS.check(name) for name in text.split(",")}
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err
    return [name for name in BACKENDS if name in names]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("bundle", type=Path, help="folder of a bundle, for example runs/demo/bundle")
    add("--batch-size", type=_read_sizes, default="1,8,32,128", metavar="N,N", help="default: 1,8,32,128")
    add("--backend", type=_read_names, default=",".join(BACKENDS), metavar="NAME,NAME", help="default: all")
    add("--data", metavar="PATH", help="folder of pictures, or DATASET[:PART]; default: the bundle's probes")
    add("--seconds", type=float, default=5.0, help="for each back end and batch size, at least 5 rounds (default: 5)")
    add(
        "--threads",
        type=int,
        default=count_cpus(),
        help="of the model, and that decode; for --choose as many as a replica has (default: the CPUs of this process)",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    add("--choose", action="store_true", help="record the fastest in the bundle, for this kind of CPU")
    add("--out", type=Path, help="folder for table.md, bench.json and bench.png (default: benches/MODEL)")
    add("--json", action="store_true", help="print bench.json instead of the table")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
