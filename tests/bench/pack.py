"""Pack against its peers: pictures to shards, in CPU-seconds and wall clock. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from pictures import make_photographs, make_xrays

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SHARDWRITER_TARGET, TAR_TARGET, AUDIT_TARGET = 0.65, 1.8, 1.6


@dataclass
class Contender:
    """One row of a table; every run adds wall_s, cpu_s and bytes."""

    name: str
    title: str
    script: str = "writers_pack.py"
    runs: list[dict[str, float]] = field(default_factory=list)

    def median(self, what: str) -> float:
        return median(run[what] for run in self.runs)

    def spread(self) -> float:
        """Return the range of the CPU time over its median."""
        times = [run["cpu_s"] for run in self.runs]
        return (max(times) - min(times)) / median(times)


WRITERS = [
    Contender("ours", "ours, audit off: index, sizes, sha256, fsync"),
    Contender("ours-2", "ours, 2 workers"),
    Contender("webdataset", "webdataset ShardWriter"),
    Contender("litdata", "litdata.optimize, 1 worker", "peers_pack.py"),
    Contender("mds", "MosaicML MDSWriter", "peers_pack.py"),
    Contender("tar", "tar cf"),
    Contender("cp", "cp -r"),
]
AUDITED = [
    Contender("ours-audit", "ours, full audit"),
    Contender("decode", "shards.pictures.decode.decode on each picture"),
]


@dataclass(frozen=True)
class Bench:
    """Where things are. peers: the Python that has litdata and streaming, None to leave them out."""

    data: Path
    peers: Path | None

    def run(self, contender: Contender, src: Path) -> None:
        """Run a contender once in a process of its own; what it wrote is deleted."""
        python = self.peers if contender.script == "peers_pack.py" else Path(sys.executable)
        out = self.data / "out"
        command = [python, "-W", "ignore", HERE / contender.script, contender.name, src, self.data / "warmup", out]
        paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True)
        finally:
            shutil.rmtree(out, ignore_errors=True)
        if done.returncode:
            sys.exit(f"{contender.title} failed on {src}:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
        contender.runs.append(json.loads(done.stdout.splitlines()[-1]))

    def run_rounds(self, contenders: Sequence[Contender], src: Path, rounds: int) -> None:
        """Run all in turn, each round beginning with another one."""
        for path in src.glob("c*/*"):  # into the page cache
            path.read_bytes()
        for number in range(rounds):
            for place in range(len(contenders)):
                contender = contenders[(place + number) % len(contenders)]
                self.run(contender, src)
                last = contender.runs[-1]
                print(f"round {number + 1}: {contender.title}: {last['cpu_s']:.2f} CPU-s, {last['wall_s']:.2f} s")


def build_table(contenders: Sequence[Contender], pictures: int, size: int, references: Sequence[str]) -> list[str]:
    """Return the rows of a Markdown table: medians over the rounds."""
    by_name = {contender.name: contender for contender in contenders}
    titles = "".join(f" x {by_name[name].title} |" for name in references)
    lines = [
        f"| contender | pictures/s | MB/s | CPU-s per 1,000 |{titles} CPU spread | rounds |",
        "|---|---|---|---|" + "---|" * (len(references) + 2),
    ]
    for contender in contenders:
        wall, cpu = contender.median("wall_s"), contender.median("cpu_s")
        ratios = "".join(f" {_ratio(contender, by_name[name]):.2f} |" for name in references)
        lines.append(
            f"| {contender.title} | {pictures / wall:,.0f} | {size / wall / 1e6:,.0f} | {cpu / pictures * 1e3:.3f} |"
            f"{ratios} {contender.spread():.0%} | {len(contender.runs)} |"
        )
    return lines


def _ratio(contender: Contender, reference: Contender) -> float:
    """Return the median over the rounds of the ratio of CPU times, each taken within one round."""
    return median(a["cpu_s"] / b["cpu_s"] for a, b in zip(contender.runs, reference.runs, strict=True))


def judge(what: str, ratio: float, target: float) -> str:
    """Return one line that says whether a target is met."""
    return f"- {what}: {ratio:.2f}, target at most {target}: **{'met' if ratio <= target else 'missed'}**"


def describe_run() -> list[str]:
    """Return date, commit, machine and command, as they are before the first run."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    commit = _git("rev-parse", "--short", "HEAD")
    changed = " with uncommitted changes in shards/" if _git("status", "--porcelain", "shards") else ""
    return [
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit}{changed}",
        f"- {model.partition(':')[2].strip()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at first, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"- `python {' '.join([str(Path(sys.argv[0]).name), *sys.argv[1:]])}`",
    ]


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def describe_pictures(title: str, src: Path) -> tuple[str, int, int]:
    """Return a heading, the number of pictures and their bytes."""
    sizes = [path.stat().st_size for path in src.glob("c*/*.jpg")]
    return f"## {title}: {len(sizes):,}, mean {sum(sizes) / len(sizes) / 1e3:.1f} KB", len(sizes), sum(sizes)


def bench_writers(bench: Bench, count: int, rounds: int) -> list[str]:
    """Return the section on packing without an audit."""
    src = make_photographs(bench.data / f"photographs-{count}", count)
    contenders = [c for c in WRITERS if bench.peers or c.script != "peers_pack.py"]
    bench.run_rounds(contenders, src, rounds)
    heading, pictures, size = describe_pictures("Pack, JPEGs of 500x375", src)
    by_name = {contender.name: contender for contender in contenders}
    return [
        heading, "",
        *build_table(contenders, pictures, size, ["webdataset", "tar"]), "",
        judge("ours to ShardWriter, CPU", _ratio(by_name["ours"], by_name["webdataset"]), SHARDWRITER_TARGET),
        judge("ours to tar cf, CPU", _ratio(by_name["ours"], by_name["tar"]), TAR_TARGET), "",
    ]  # fmt: skip


def bench_audit(bench: Bench, src: Path, title: str, rounds: int) -> list[str]:
    """Return a section on packing with the full audit."""
    contenders = [Contender(c.name, c.title) for c in AUDITED]
    bench.run_rounds(contenders, src, rounds)
    heading, pictures, size = describe_pictures(title, src)
    return [
        heading, "",
        *build_table(contenders, pictures, size, ["decode"]), "",
        judge("full audit to decode alone, CPU", _ratio(*contenders), AUDIT_TARGET), "",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "data/bench", help="pictures and outputs, on one disk")
    parser.add_argument("--pictures", type=int, default=4000, help="JPEGs of about 60 KB")
    parser.add_argument("--audited", type=int, default=1000, help="of such, and half as many X-rays, for the audit")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--audit-rounds", type=int, default=3)
    parser.add_argument(
        "--peers-python", type=Path, help="python of an environment with litdata and mosaicml-streaming"
    )
    parser.add_argument("--out", type=Path, help="default: results/DATE-pack.md beside this file")
    arguments = parser.parse_args()
    head = describe_run()
    bench = Bench(arguments.data.absolute(), arguments.peers_python and arguments.peers_python.absolute())
    make_photographs(bench.data / "warmup", 40)
    photographs = make_photographs(bench.data / f"photographs-{arguments.audited}", arguments.audited)
    xrays = make_xrays(bench.data / f"xrays-{arguments.audited // 2}", arguments.audited // 2)
    sections = [
        *bench_writers(bench, arguments.pictures, arguments.rounds),
        *bench_audit(bench, photographs, "Full audit, JPEGs of 500x375", arguments.audit_rounds),
        *bench_audit(bench, xrays, "Full audit, gray JPEGs like X-rays", arguments.audit_rounds),
    ]
    page = "\n".join(["# Pack bench", "", *head, f"- load {os.getloadavg()[0]:.1f} at last", "", *sections, *NOTES, ""])
    out = arguments.out or HERE / f"results/{datetime.now(UTC):%Y-%m-%d}-pack.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page)
    print(page)


NOTES = [
    "Medians over the rounds; ratios are of CPU-seconds (user + system, children included), each taken within one "
    "round. Each run is a process of its own, measured after its imports and after a warm-up on 40 pictures. All "
    "contenders begin with listing the folder. The pictures are in the page cache, outputs go to the same disk and are "
    "deleted after each run; only ours syncs them to the disk, which costs it wall clock. The pool of 2 workers was "
    "started before. ShardWriter, LitData and MDSWriter write no hashes."
]

if __name__ == "__main__":
    main()
