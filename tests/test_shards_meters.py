"""Numbers in a file, as the node exporter reads it: exact, whole at any time, and no reason for a run to end."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest
from endpoints import find_free_port
from prometheus import find_tool, needs_prometheus

from shards.meters import textfile
from shards.meters.metric import Metric
from shards.meters.text import TextMeters
from shards.meters.textfile import open_textfile

TABLE = (
    Metric("made_pictures", "counter", "Pictures", ("run",)),
    Metric("made_by_stage", "counter", "Pictures by stage", ("run", "stage")),
    Metric("made_phase", "gauge", r"A \ phase", ("run", "phase")),
    Metric("made_seconds", "histogram", "Seconds", ("run",), (0.1, 1.0)),
)


def read_samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_counters_and_histograms_begin_at_0_and_gauges_where_they_are_set() -> None:
    meters = TextMeters(TABLE, run="a")
    samples = read_samples(meters.to_text())
    assert set(samples.values()) == {0.0}
    assert {name.partition("{")[0] for name in samples} == {
        "made_pictures_total",
        "made_seconds_bucket",
        "made_seconds_sum",
        "made_seconds_count",
    }
    meters.count("made_by_stage", 0, stage="decode")
    assert read_samples(meters.to_text())['made_by_stage_total{run="a",stage="decode"}'] == 0


def test_buckets_hold_what_is_at_most_their_bound() -> None:
    meters = TextMeters(TABLE, run="a")
    for value in (0.05, 0.1, 0.5, 7.0):
        meters.observe("made_seconds", value)
    samples = read_samples(meters.to_text())
    assert [samples[f'made_seconds_bucket{{run="a",le="{bound}"}}'] for bound in ("0.1", "1", "+Inf")] == [2, 3, 4]
    assert (samples['made_seconds_count{run="a"}'], samples['made_seconds_sum{run="a"}']) == (4, 7.65)


def test_a_dropped_gauge_is_gone() -> None:
    meters = TextMeters(TABLE, run="a")
    meters.set("made_phase", 1, phase="x")
    assert "made_phase" in meters.to_text()
    meters.drop("made_phase", phase="x")
    assert "made_phase" not in meters.to_text()


@pytest.mark.parametrize("tags", [{}, {"stage": "x", "other": "y"}])
def test_tags_that_are_not_those_of_the_table_are_refused(tags: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="made_by_stage has the tags run, stage"):
        TextMeters(TABLE, run="a").count("made_by_stage", **tags)


def test_counts_of_several_threads_are_all_there() -> None:
    meters = TextMeters(TABLE, run="a")
    threads = [threading.Thread(target=lambda: [meters.count("made_pictures") for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_samples(meters.to_text())['made_pictures_total{run="a"}'] == 8000


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "EVERY_S", 0.001)
    seen = set()
    with open_textfile(tmp_path, "train", "demo", TABLE, run="a") as meters:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            meters.count("made_pictures")
            for path in tmp_path.glob("*.prom"):
                text = path.read_text()
                assert text.endswith('made_seconds_count{run="a"} 0\n')
                seen.add(text)
    assert len(seen) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["shardline-train-demo.prom"]


def test_a_folder_that_refuses_the_file_is_named_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(textfile, "EVERY_S", 0.01)
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING), open_textfile(tmp_path / "file", "train", "demo", TABLE, run="a") as meters:
        meters.count("made_pictures")
        time.sleep(0.2)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"metrics are not written to {tmp_path}/file/shardline-train-demo.prom: ")


@needs_prometheus
def test_names_that_people_choose_come_through_the_node_exporter(tmp_path: Path) -> None:
    name, port = 'rate=1 "x" \\ 新冠\n', find_free_port()
    with open_textfile(tmp_path, "train", name, TABLE, run=name) as meters:
        meters.set("made_phase", 1, phase="training")
    words = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={tmp_path}"]
    command = [find_tool("prometheus-node-exporter"), *words, f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while True:
            try:
                text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
                break
            except httpx.HTTPError:
                assert time.monotonic() < until
                time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(20)
    assert 'made_phase{phase="training",run="rate=1 \\"x\\" \\\\ 新冠\\n"} 1' in text
    assert "node_textfile_scrape_error 0" in text
