"""Batches on their way to the accelerator. The CUDA half runs where a GPU is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.feed.augment.mix import Pairs, mix_images
from trainer.feed.device import feed_device
from trainer.feed.feed import Batch
from trainer.feed.meter import Meter

BENCH = Path(__file__).parent / "bench" / "feed_gpu.py"

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")


def make_batches(memory: torch.Tensor, number: int) -> list[Batch]:
    return [Batch(memory, torch.full((4,), index), torch.ones(4), np.arange(4), [""] * 4) for index in range(number)]


def test_on_a_cpu_batches_are_handed_on_as_they_are() -> None:
    batches = make_batches(torch.zeros((4, 3, 8, 8), dtype=torch.uint8), 3)
    assert list(feed_device(iter(batches), torch.device("cpu"), Meter())) == batches


@pytest.mark.slow
def test_the_gpu_bench_skips_itself_with_a_sentence_where_there_is_no_gpu(dataset_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run([sys.executable, str(BENCH), str(dataset_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "skipped: this bench needs a CUDA device, and torch sees none here\n"


@needs_gpu
def test_memory_that_the_feed_uses_again_is_copied_before_that() -> None:
    """As a feed does it: one piece of pinned memory for every batch, written when the next one is asked for."""
    memory = torch.zeros((64, 3, 224, 224), dtype=torch.uint8).pin_memory()

    def batches() -> object:
        for number in range(50):
            memory.fill_(number)
            yield Batch(memory, torch.full((64,), number), torch.ones(64), np.arange(64), [""] * 64)

    device = torch.device("cuda", 0)
    for number, batch in enumerate(feed_device(batches(), device, Meter())):  # type: ignore[arg-type]
        torch.cuda._sleep(1_000_000)
        assert batch.images.device == batch.labels.device == device
        assert int(batch.images.min()) == int(batch.images.max()) == number


@needs_gpu
def test_pairs_are_moved_with_their_batch_and_mixed_as_on_the_cpu() -> None:
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    device = torch.device("cuda", 0)
    for box in (None, (3, 5, 20, 31)):
        pairs = Pairs(torch.tensor([1, 2, 3, 4]), torch.arange(4), torch.ones(4), torch.full((4,), 0.3125), box)
        batch = Batch(images, torch.arange(4), torch.ones(4), np.arange(4), [""] * 4, pairs)
        [moved] = feed_device(iter([batch]), device, Meter())
        assert moved.pairs is not None
        assert {tensor.device for tensor in (moved.images, *moved.pairs.tensors)} == {device}
        assert torch.equal(mix_images(moved.images, moved.pairs).cpu(), mix_images(images, pairs))


@needs_gpu
def test_error_of_the_feed_comes_through() -> None:
    def batches() -> object:
        yield make_batches(torch.zeros((4, 3, 8, 8), dtype=torch.uint8), 1)[0]
        raise OSError("the store is gone")

    with pytest.raises(OSError, match="the store is gone"):
        list(feed_device(batches(), torch.device("cuda", 0), Meter()))  # type: ignore[arg-type]
