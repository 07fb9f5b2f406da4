"""What a run is told about its feed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from trainer.feed.meter import Meter, Readings, judge


def make_readings(side: int = 500, **seconds: float) -> Readings:
    stages: Any = {"fetch": 0.0, "read": 0.0, "decode": 0.0, "augment": 0.0, "device": 0.0, **seconds}
    return Readings(images=100, bytes_read=1, sides=100 * side, seconds=stages)


@pytest.mark.parametrize(
    ("readings", "wait_frac", "workers", "sentence"),
    [
        (make_readings(decode=9), 0.01, 2, "waits 1% for data: well fed"),
        (make_readings(decode=9), 0.38, 2, "waits 38% for data: decode bound; add workers"),
        (make_readings(decode=9), 0.38, 4, "waits 38% for data: decode bound; give the rank more CPUs"),
        (
            make_readings(decode=9, side=1200),
            0.38,
            2,
            "waits 38% for data: decode bound; add workers or pack with --max-side 448",
        ),
        (
            make_readings(augment=9, decode=8),
            0.5,
            2,
            "waits 50% for data: augmentation bound; add workers or use a lighter augment.policy",
        ),
        (
            make_readings(read=9, decode=8),
            0.5,
            2,
            "waits 50% for data: disk bound; copy the dataset to a faster disk",
        ),
        (
            make_readings(fetch=9, decode=8),
            0.5,
            2,
            "waits 50% for data: download bound; raise storage.cache_bytes so that more is prefetched, or move "
            "the dataset closer",
        ),
        (  # of one thread, beside two that took 9 seconds each
            make_readings(device=10, decode=18),
            0.5,
            2,
            "waits 50% for data: device decode bound; use stream.decode=faithful, which decodes on the CPUs",
        ),
        (make_readings(device=8, decode=18), 0.5, 2, "waits 50% for data: decode bound; add workers"),
    ],
)
def test_verdict_names_what_is_waited_for_and_what_would_help(
    readings: Readings, wait_frac: float, workers: int, sentence: str
) -> None:
    assert judge(readings, wait_frac, workers, 4, 224) == sentence


@pytest.mark.parametrize(
    ("readings", "wait_frac", "sentence"),
    [
        (make_readings(decode=9), 0.01, "waits 1% for data: well fed"),
        (
            make_readings(decode=9),
            0.07,
            "spends 7% of its time making batches between the steps on the same CPUs, mostly for decode; to "
            "shorten it give the rank more CPUs",
        ),
        (
            make_readings(augment=9, decode=8),
            0.5,
            "spends 50% of its time making batches between the steps on the same CPUs, mostly for augmentation; "
            "to shorten it give the rank more CPUs or use a lighter augment.policy",
        ),
        (make_readings(read=9, decode=8), 0.5, "waits 50% for data: disk bound; copy the dataset to a faster disk"),
    ],
)
def test_batches_that_are_made_between_the_steps_are_work_and_only_disks_and_downloads_are_waited_for(
    readings: Readings, wait_frac: float, sentence: str
) -> None:
    assert judge(readings, wait_frac, 2, 2, 224, works_ahead=False) == sentence


def test_readings_of_a_time_are_what_was_added_in_it() -> None:
    meter = Meter()
    meter.count(3, 300)
    meter.count_side(7)
    before = meter.read()
    meter.count(5, 500)
    meter.count_side(8)
    with meter.timing("decode"):
        pass
    added = meter.read().since(before)
    assert (added.images, added.bytes_read, added.sides) == (5, 500, 8)
    assert added.seconds["decode"] > 0 == added.seconds["read"]


def test_time_of_a_stage_that_fails_is_counted() -> None:
    meter = Meter()
    with pytest.raises(KeyError), meter.timing("read"):
        raise KeyError
    assert meter.read().seconds["read"] > 0


def test_threads_lose_no_count() -> None:
    meter = Meter()

    def work() -> None:
        for _ in range(2000):
            meter.count(1, 2)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (meter.read().images, meter.read().bytes_read) == (16_000, 32_000)
