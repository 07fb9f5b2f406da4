"""The training feed against its peers: decode, random crop to 224, flip, batches of 64. See README.md beside it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from feed_clock import read_tree_bytes
from feed_contenders import FEEDS as OUR_FEEDS
from feed_peers import FEEDS as PEER_FEEDS
from pack import describe_pictures, describe_run, judge
from pictures import make_photographs, make_xrays

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
REFERENCE = "torchvision"
_TIMEOUT_S = 300


@dataclass
class Contender:
    """One row of a table; every run adds first_s, wall_s, cpu_s, pictures and peak_bytes.

    sends: What a batch holds. failure: The line that a run ended with; such a contender is not run again.
    """

    name: str
    title: str
    sends: str
    script: str = "feed_contenders.py"
    runs: list[dict[str, float]] = field(default_factory=list)
    failure: str = ""

    @property
    def preparation(self) -> str | None:
        feeds = PEER_FEEDS if self.script == "feed_peers.py" else OUR_FEEDS
        return feeds[self.name].prepare

    def median(self, what: str) -> float:
        return median(run[what] for run in self.runs)


UINT8, FLOAT = "uint8", "float32, normalised on the CPU"
PEERS = "feed_peers.py"


def list_contenders(quick: bool, peers: bool) -> list[Contender]:
    """Return the rows in the order of the table."""
    rows = [
        Contender("ours", "ours", UINT8),
        Contender("ours-fast", "ours, stream.decode=fast", UINT8),
        Contender("decode", "full decode alone, simplejpeg", "nothing", PEERS)
        if peers
        else Contender("decode", "full decode alone, torchvision.io", "nothing"),
        Contender("torchvision", "torchvision ImageFolder + DataLoader, PIL", FLOAT),
        Contender("torchvision-tensors", "the same, io.decode_jpeg + v2", FLOAT),
        Contender("torchvision-uint8", "the same, io.decode_jpeg + v2, not normalised", UINT8),
        Contender("albumentations", "DataLoader + OpenCV + Albumentations", FLOAT, PEERS),
        Contender("webdataset", "WebDataset, PIL", FLOAT),
        Contender("litdata", "LitData", FLOAT, PEERS),
        Contender("mds", "MosaicML Streaming, PIL", FLOAT, PEERS),
        Contender("spdl", "SPDL, 2 threads", UINT8, PEERS),
        Contender("ray", "Ray Data, 2 CPUs", FLOAT),
        Contender("ffcv", "FFCV, its own JPEGs of quality 90", UINT8, PEERS),
        Contender("dali", "DALI on the CPU, file reader", UINT8, PEERS),
    ]
    wanted = {"ours", "torchvision", "decode"} if quick else {row.name for row in rows}
    return [row for row in rows if row.name in wanted and (peers or row.script != PEERS)]


@dataclass(frozen=True)
class Bench:
    """Where things are. peers: the Python that has the peers, None to leave them out."""

    data: Path
    peers: Path | None

    def run_rounds(self, contenders: Sequence[Contender], src: Path, rounds: int) -> None:
        """Run all in turn, each round beginning with another one."""
        for contender in contenders:
            self._prepare(contender, src)
        for path in src.glob("c*/*"):  # into the page cache
            path.read_bytes()
        for number in range(rounds):
            for place in range(len(contenders)):
                contender = contenders[(place + number) % len(contenders)]
                if not contender.failure:
                    self._run(contender, src)
                    told = f"{contender.runs[-1]['cpu_s']:.2f} CPU-s" if not contender.failure else contender.failure
                    print(f"round {number + 1}: {contender.title}: {told}", flush=True)

    def _folder(self, contender: Contender, src: Path) -> Path:
        return src.with_name(f"{src.name}-{contender.preparation}") if contender.preparation else src

    def _prepare(self, contender: Contender, src: Path) -> None:
        """Write what a contender reads, unless an earlier run has."""
        folder = self._folder(contender, src)
        if folder.exists():
            return
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        done = self._call(contender, ["prepare", str(contender.preparation), str(src), str(partial)])
        if done.returncode:
            contender.failure = _last_line(done)
        else:
            partial.rename(folder)

    def _run(self, contender: Contender, src: Path) -> None:
        done = self._call(contender, ["feed", contender.name, str(self._folder(contender, src))])
        if done.returncode:
            contender.failure = _last_line(done)
            return
        result = json.loads(done.stdout.splitlines()[-1]) | {"peak_bytes": done.peak_bytes}
        wanted = sum(1 for _ in src.glob("c*/*.jpg"))
        if result["pictures"] != wanted:
            contender.failure = f"an epoch had {result['pictures']:,} of {wanted:,} pictures"
        contender.runs.append(result)

    def _call(self, contender: Contender, words: list[str]) -> Done:
        python = self.peers if contender.script == PEERS else Path(sys.executable)
        paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [str(python), "-W", "ignore", str(HERE / contender.script), *words]
        process = subprocess.Popen(
            command, env=os.environ | paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        with PeakMemory(process.pid) as memory:
            try:
                out, err = process.communicate(timeout=_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                out, err = "", f"nothing after {_TIMEOUT_S} s"
            finally:
                _end(process)
        return Done(process.returncode, out, err, memory.peak_bytes)


@dataclass(frozen=True)
class Done:
    """A process that has ended."""

    returncode: int
    stdout: str
    stderr: str
    peak_bytes: int


class PeakMemory:
    """Samples the memory of a process and all below it five times a second."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.peak_bytes = max(self.peak_bytes, read_tree_bytes(self._pid))


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what a contender left running: its whole session, and daemons that stand below it no more."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(done: Done) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {done.returncode}"


def build_table(contenders: Sequence[Contender]) -> list[str]:
    """Return the rows of a Markdown table: medians over the rounds, and what failed below it."""
    by_name = {contender.name: contender for contender in contenders}
    lines = [
        "| contender | a batch holds | CPU-s per 1,000 | x torchvision | x ours | CPU spread | pictures/s | "
        "first batch, s | peak memory, MB | rounds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in contenders:
        if row.failure:
            continue
        costs = [run["cpu_s"] / run["pictures"] * 1e3 for run in row.runs]
        speed = median(run["pictures"] / run["wall_s"] for run in row.runs)
        lines.append(
            f"| {row.title} | {row.sends} | {median(costs):.2f} | {ratio(row, by_name[REFERENCE]):.2f} | "
            f"{ratio(row, by_name['ours']):.2f} | {(max(costs) - min(costs)) / median(costs):.0%} | {speed:,.0f} | "
            f"{row.median('first_s'):.2f} | {row.median('peak_bytes') / 1e6:,.0f} | {len(row.runs)} |"
        )
    return lines + [f"- {row.title}: not measured: {row.failure}" for row in contenders if row.failure]


def ratio(row: Contender, reference: Contender) -> float:
    """Return the median over the rounds of the ratio of CPU per picture, each taken within one round."""
    if reference.failure:
        return float("nan")
    pairs = zip(row.runs, reference.runs, strict=True)
    return median(a["cpu_s"] / a["pictures"] * b["pictures"] / b["cpu_s"] for a, b in pairs)


GOALS = {"torchvision": 0.45, "decode": 2.1, "dali": 1.0}
"""What our CPU per picture is to be at most of that of others, for colour JPEGs of 500x375."""


def judge_goals(contenders: Sequence[Contender]) -> list[str]:
    """Return a line for each goal whose contender was measured."""
    by_name = {contender.name: contender for contender in contenders if not contender.failure}
    if "ours" not in by_name:
        return []
    measured = [(by_name[name], goal) for name, goal in GOALS.items() if name in by_name]
    return [judge(f"ours against {row.title}", ratio(by_name["ours"], row), goal) for row, goal in measured]


def bench_pictures(bench: Bench, src: Path, title: str, contenders: list[Contender], rounds: int) -> list[str]:
    """Return a section on one set of pictures."""
    bench.run_rounds(contenders, src, rounds)
    heading, _, _ = describe_pictures(title, src)
    return [heading, "", *build_table(contenders), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "data/bench", help="pictures and what is packed of them")
    parser.add_argument("--pictures", type=int, default=2000, help="JPEGs of about 60 KB")
    parser.add_argument("--xrays", type=int, default=600, help="gray JPEGs of about 1000x850")
    parser.add_argument("--rounds", type=int, help="default: 5, with --quick 3")
    parser.add_argument("--quick", action="store_true", help="ours, torchvision and decoding alone")
    parser.add_argument("--peers-python", type=Path, help="python of an environment with the peers")
    parser.add_argument("--out", type=Path, help="default: results/DATE-feed.md or DATE-feed-quick.md beside this file")
    arguments = parser.parse_args()
    head = describe_run()
    bench = Bench(arguments.data.absolute(), arguments.peers_python and arguments.peers_python.absolute())
    rounds = arguments.rounds or (3 if arguments.quick else 5)
    sections = []
    for title, make, count in (
        ("JPEGs of 500x375", make_photographs, arguments.pictures),
        ("Gray JPEGs like X-rays", make_xrays, arguments.xrays),
    ):
        src = make(bench.data / f"{make.__name__.removeprefix('make_')}-{count}", count)
        contenders = list_contenders(arguments.quick, bench.peers is not None)
        sections += bench_pictures(bench, src, title, contenders, rounds)
        if make is make_photographs:
            sections += [*judge_goals(contenders), ""]
    page = "\n".join(["# Feed bench", "", *head, f"- load {os.getloadavg()[0]:.1f} at last", "", *sections, *NOTES, ""])
    name = "feed-quick" if arguments.quick else "feed"
    out = arguments.out or HERE / f"results/{datetime.now(UTC):%Y-%m-%d}-{name}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page)
    print(page)


NOTES = [
    "Decode, random crop to 224x224 (scale 0.08 to 1, ratio 3/4 to 4/3, antialiased where the peer can), flip, batches "
    "of 64, 2 workers or threads. Medians over the rounds; ratios are of CPU-seconds per picture (user + system, "
    "children included), each taken within one round. Each run is a process of its own: the first epoch warms it up, "
    "the second is measured. First batch: from asking the opened feed, after its imports. Memory: proportional, of the "
    "process and all below it. A peer is as its documentation has it; where that normalises on the CPU, this does."
]

if __name__ == "__main__":
    main()
