"""What `import shards` offers to Python: packing, opening, and the same pictures and labels at every door."""

from __future__ import annotations

import base64
import io
import itertools
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

import shards
from shards.commands.options import PackRequest
from shards.dataset.read import SampleReader
from shards.order.plan import EpochPlan, OrderOptions, ShardSizes
from tests.data.tars import write_tar
from tests.in_process import command
from tests.test_shards_packing_foreign import picture

ROOT = Path(__file__).parent.parent


def test_importing_a_package_imports_nothing_heavy_and_every_public_name_is_there() -> None:
    script = (
        "import sys, shards, trainer, tune, cluster\n"
        "print(*sorted({'torch', 'numpy', 'pyarrow', 'PIL', 'ray', 'pydantic'} & sys.modules.keys()))\n"
        "for package in (shards, trainer, tune, cluster):\n"
        "    for name in package.__all__:\n"
        "        assert getattr(package, name).__name__ == name, name\n"
        "    assert set(package.__all__) <= set(dir(package))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


# packing


def test_pack_returns_the_dataset_and_opens_it_where_it_is_there_already(pictures: Path, tmp_path: Path) -> None:
    first = shards.pack(pictures, tmp_path / "d", workers=1)
    stamp = os.stat(tmp_path / "d/dataset.json").st_mtime_ns
    again = shards.pack(str(pictures), tmp_path / "d", workers=1)
    assert first.fingerprint() == again.fingerprint() == shards.open_dataset(tmp_path / "d").fingerprint()
    assert os.stat(tmp_path / "d/dataset.json").st_mtime_ns == stamp
    assert (first.splits, list(first)) == (["train", "val", "test"], ["train", "val", "test"])
    assert len(first["train"]) == first["train"].num_samples
    assert str(first) == f"{tmp_path}/d: {len(first.classes)} classes, train 72, val 24, test 24"
    with pytest.raises(shards.UsageError, match="already holds a dataset of other pictures or options"):
        shards.pack(pictures, tmp_path / "d", workers=1, seed=1)
    with pytest.raises(shards.UsageError, match="has no split 'tset'; it has train, val, test"):
        first["tset"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"split": {"val": 0.2, "test": 0.1}}, ["--split", "val=0.2,test=0.1"]),
        ({"range": (-1000, 400)}, ["--range=-1000,400"]),
        ({"background": [0, 0, 0], "seed": 3}, ["--seed", "3", "--background", "0,0,0"]),
        ({"columns": {"path": "file", "label": "class"}}, ["--columns", "path=file,label=class"]),
        ({"one_hot": ["cat", "dog"], "shard_bytes": 1 << 20}, ["--one-hot", "cat,dog", "--shard-bytes", "1048576"]),
        ({"unlabelled": True, "workers": 3, "update": True}, ["--unlabelled"]),
    ],
)
def test_options_from_python_are_those_of_the_command_line(options: dict[str, object], words: list[str]) -> None:
    request = PackRequest(**{"src": "x", **options})
    assert sorted(request.spell()) == sorted(words)


def test_python_and_the_command_line_pack_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    dataset = shards.pack(pictures, tmp_path / "a", merge_and_resplit=["train", "val"], split={"val": 0.25}, workers=1)
    words = ("--merge-and-resplit", "train,val", "--split", "val=0.25", "--workers", "1")
    assert command("pack", str(pictures), str(tmp_path / "b"), *words).returncode == 0
    assert dataset.fingerprint() == shards.open_dataset(tmp_path / "b").fingerprint()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"spilt": "val=0.1"}, r"no option 'spilt': did you mean 'split'\?"),
        ({"seed": "one"}, "option 'seed': .*valid integer.*got 'one'"),
        ({"split": "val"}, "val"),
        ({"workers": 0}, "--workers is a number of processes or tasks and must be at least 1, got 0"),
    ],
)
def test_option_that_does_not_fit_is_refused_in_a_sentence(
    options: dict[str, object], sentence: str, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(shards.UsageError, match=sentence):
        shards.pack(pictures, tmp_path / "d", **options)
    assert not (tmp_path / "d").exists()


def test_script_without_a_main_guard_packs_with_processes(pictures: Path, tmp_path: Path) -> None:
    """Python has worker processes run the script again, which would pack in each of them, and has none of standard
    input to run."""
    paths = f"{str(pictures)!r}, {str(tmp_path / 'd')!r}"
    script = f"import shards\nprint('once', len(shards.pack({paths}, workers=2)['val']))\n"
    done = subprocess.run(
        [sys.executable, "-"], input=script, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "once 24\n"), done.stderr


# batches


def read_all(split: shards.Split) -> list[tuple[bytes, int]]:
    """Return pixels and label of each sample in stored order, by the reader."""
    with SampleReader(split) as reader:
        samples = [reader.read_one(shard, row) for shard, count in enumerate(split.counts) for row in range(count)]
    return [(split.decode_picture(sample.data).tobytes(), sample.label) for sample in samples]


def as_pairs(batches: object) -> list[tuple[bytes, int]]:
    return [
        (image.tobytes(), int(label))
        for images, labels in batches  # type: ignore[attr-defined]
        for image, label in zip(images, labels, strict=True)
    ]


@pytest.fixture(scope="module")
def train(dataset_path: Path) -> shards.Split:
    return shards.open_dataset(dataset_path)["train"]


def test_batches_are_those_of_the_plan_that_a_run_follows(train: shards.Split) -> None:
    plan = EpochPlan(ShardSizes(train.counts, train.shard_bytes), OrderOptions(5, 10), epoch=3)
    stored, starts = read_all(train), np.cumsum(train.counts) - train.counts
    expected = [
        [stored[starts[shard] + row] for shard, row in zip(refs.shards, refs.rows, strict=True)]
        for refs in map(plan.step, range(plan.num_steps))
    ]
    found = [as_pairs([batch]) for batch in train.batches(10, epoch=3, seed=5)]
    assert found == expected
    assert [len(step) for step in found] == [10] * 7 + [2]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 12])
def test_ranks_share_each_step_and_an_epoch_holds_each_sample_once(train: shards.Split, num_ranks: int) -> None:
    ranks = [list(train.batches(10, rank=rank, num_ranks=num_ranks)) for rank in range(num_ranks)]
    steps = [as_pairs(parts) for parts in zip(*ranks, strict=True)]
    assert steps == [as_pairs([batch]) for batch in train.batches(10)]
    assert sorted(itertools.chain(*steps)) == sorted(read_all(train))


def test_epoch_is_resumed_in_the_middle(train: shards.Split) -> None:
    whole, rest = list(train.batches(10, epoch=1)), list(train.batches(10, epoch=1, first_step=5))
    assert as_pairs(rest) == as_pairs(whole[5:])
    assert as_pairs(whole) != as_pairs(train.batches(10, epoch=2))


def test_without_shuffle_batches_come_in_stored_order(train: shards.Split) -> None:
    assert as_pairs(train.batches(7, shuffle=False)) == read_all(train)
    parts = [list(train.batches(7, shuffle=False, rank=rank, num_ranks=2)) for rank in (0, 1)]
    assert [pair for step in zip(*parts, strict=True) for pair in as_pairs(step)] == read_all(train)


def test_transformed_pictures_of_one_shape_are_stacked(train: shards.Split) -> None:
    images, labels = next(train.batches(10, transform=lambda pixels: torch.from_numpy(pixels[:8, :8]).permute(2, 0, 1)))
    assert (images.shape, images.dtype) == ((10, 3, 8, 8), torch.uint8)
    assert (labels.shape, labels.dtype) == ((10,), np.int64)
    images, _ = next(train.batches(10, transform=lambda pixels: pixels[:4, :4]))
    assert (images.shape, images.dtype) == ((10, 4, 4, 3), np.uint8)
    images, _ = next(train.batches(10, transform=lambda pixels: {"mean": pixels.mean()}))
    assert {type(image) for image in images} == {dict}
    lengths = iter(range(1, 1000))
    uneven = train.batches(10, transform=lambda pixels: pixels[: next(lengths)], workers=1)
    with pytest.raises(
        shards.UsageError, match=r"returns pictures of \d+ shapes, such as .* have it resize them to one"
    ):
        next(uneven)


def test_several_labels_are_rows_of_0_and_1(multi_path: Path) -> None:
    split = shards.open_dataset(multi_path)["train"]
    _, labels = next(split.batches(6, shuffle=False))
    with SampleReader(split) as reader:
        known = [reader.read_one(0, row).labels for row in range(6)]
    assert (labels.shape, labels.dtype) == ((6, split.num_classes), np.float32)
    assert [tuple(np.flatnonzero(row)) for row in labels] == known
    _, empty = next(split.batches(1, rank=0, num_ranks=2))
    assert empty.shape == (0, split.num_classes)
    assert split.torch_dataset()[0][1].tolist() == labels[0].tolist()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 4, "epoch": -1}, "epoch must be at least 0, got -1"),
        ({"batch_size": 4, "rank": 2, "num_ranks": 2}, "rank 2 is not one of the 2 ranks, which count from 0"),
    ],
)
def test_number_that_makes_no_sense_is_refused_before_the_first_batch(
    train: shards.Split, options: dict[str, int], sentence: str
) -> None:
    with pytest.raises(shards.UsageError, match=sentence):
        train.batches(**options)


# by number


def test_split_by_number_has_every_sample_in_stored_order_and_can_be_pickled(train: shards.Split) -> None:
    dataset = train.torch_dataset()
    stored = read_all(train)
    assert [(image.tobytes(), label) for image, label in map(dataset.__getitem__, range(len(dataset)))] == stored
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[-1][0].tobytes() == stored[-1][0]
    with pytest.raises(IndexError, match=r"train has 72 samples, no sample 72"):
        dataset[72]


def test_data_loader_with_workers_makes_batches_of_it(train: shards.Split) -> None:
    images, labels = next(iter(DataLoader(train.torch_dataset(lambda pixels: pixels[:8, :8]), 12, num_workers=2)))
    assert images.shape == (12, 8, 8, 3)
    assert labels.tolist() == [label for _, label in read_all(train)[:12]]


# webdataset


def test_webdataset_has_the_samples_and_pixels_of_the_reader_in_stored_order(train: shards.Split) -> None:
    assert as_pairs([zip(*train.webdataset().to_tuple("image", "label"), strict=True)]) == read_all(train)


def test_shuffled_webdataset_has_each_sample_once_and_another_order_each_time(train: shards.Split) -> None:
    dataset = train.webdataset(shuffle=50, seed=1)
    keys = [[sample["__key__"] for sample in dataset] for _ in range(2)]
    stored = [sample["__key__"] for sample in train.webdataset()]
    assert sorted(keys[0]) == sorted(keys[1]) == stored
    assert keys[0] != keys[1]
    assert stored not in keys


def test_nodes_and_workers_share_the_tars_without_loss(train: shards.Split, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(train.counts) >= 4
    keys = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        loader = DataLoader(train.webdataset().to_tuple("__key__"), batch_size=None, num_workers=2)
        part = [key for (key,) in loader]
        assert part
        keys += part
    assert sorted(keys) == [f"{number:09d}" for number in range(72)]


def test_dotted_keys_stay_apart_and_are_those_of_the_dataset(tmp_path: Path) -> None:
    files = {}
    for number in range(1, 7):
        key = f"in/patient.{number}%2E"
        files |= {f"{key}.png": picture(number), f"{key}.cls": b"%d" % (number % 2), f"{key}.json": b"{}"}
    (tmp_path / "t").mkdir()
    write_tar(tmp_path / "t/train-000.tar", files)
    assert command("index", str(tmp_path / "t")).returncode == 0
    split = shards.open_dataset(tmp_path / "t")["train"]
    samples = list(split.webdataset())
    assert [sample["__key__"] for sample in samples] == [f"in/patient.{number}%2E" for number in range(1, 7)]
    assert [(sample["image"].tobytes(), sample["label"]) for sample in samples] == read_all(split)
    plain = webdataset.WebDataset(str(tmp_path / "t/train-000.tar"), shardshuffle=False, empty_check=False)
    assert [sample["__key__"] for sample in plain] == ["in/patient"]  # all in one, which is why keys are escaped


def test_damaged_picture_ends_every_door_with_the_sample_that_it_is(pictures: Path, tmp_path: Path) -> None:
    split = shards.pack(pictures, tmp_path / "d", workers=1)["val"]
    path = tmp_path / "d" / split.shard_names[0]
    with SampleReader(split) as reader:
        offset = reader.read_one(0, 0).offset
    data = bytearray(path.read_bytes())
    data[offset + 40] ^= 1
    path.write_bytes(data)
    for read in (lambda: list(split.batches(8)), lambda: split.torch_dataset()[0], lambda: list(split.webdataset())):
        with pytest.raises(shards.ShardError, match=r"key 0+\d+.* bytes are not those that were packed; restore"):
            read()


def test_remote_split_is_read_by_webdataset_through_the_cache(s3: str, pictures: Path, tmp_path: Path) -> None:
    there = shards.pack(pictures, s3.format(path=f"api/{tmp_path.name}"), workers=1)["val"]
    here = shards.pack(pictures, tmp_path / "d", workers=1)["val"]
    assert as_pairs([zip(*there.webdataset().to_tuple("image", "label"), strict=True)]) == read_all(here)


# notebooks


def test_dataset_is_shown_as_a_table_and_a_split_by_pictures_with_their_classes(tmp_path: Path) -> None:
    for name in ("<cat>", "dog"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "p" / name / f"{number}.png").write_bytes(picture(number + 100 * (name == "dog")))
    data = shards.pack(tmp_path / "p", tmp_path / "d", split={"val": 0.2}, workers=1)
    table = data._repr_html_()
    assert "<tr><td>&lt;cat&gt;</td><td>8</td><td>2</td></tr>" in table
    assert "<tr><td>samples</td><td>16</td><td>4</td></tr>" in table
    shown = data["train"]._repr_html_()
    assert shown.count("<img ") == 12
    assert "<cat>" not in shown
    names = [
        "&lt;cat&gt;" if label == 0 else "dog" for _, label in map(data["val"].torch_dataset().__getitem__, range(4))
    ]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", data["val"]._repr_html_()) == names
    encoded = re.findall(r"base64,([^\"]+)", data["val"]._repr_html_())[0]
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert (first == data["val"].torch_dataset()[0][0]).all()
