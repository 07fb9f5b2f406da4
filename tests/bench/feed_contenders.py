"""The feeds of `feed.py` that run in the project's own environment: ours, torchvision's, WebDataset, Ray Data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from feed_clock import BATCH, MEAN, RATIO, SCALE, SIZE, STD, WORKERS, Epoch, Feed, Prepare, run
from measure import list_pictures

SHARD_BYTES = 16 << 20


def open_ours(folder: Path) -> Epoch:
    """Our training stream as the loop opens it, one rank: random crop and flip, uint8 for the device to normalise."""
    return open_stream(str(folder), "faithful")


def open_ours_fast(folder: Path) -> Epoch:
    """The same with `stream.decode=fast`."""
    return open_stream(str(folder), "fast")


def open_stream(location: str, decode: str, **storage: Any) -> Epoch:
    """Return epochs of `trainer.feed.stream.TrainStream` over the training part of a dataset."""
    from shards.dataset.dataset import open_dataset
    from trainer.contract.preprocess import PreprocessSpec
    from trainer.feed.stream import TrainStream
    from trainer.ranks.ranks import single_rank
    from trainer.recipes.recipe import Recipe

    recipe = Recipe.model_validate(
        {
            "data": location, "name": "bench", "model": "resnet18", "batch_size_global": BATCH, "workers": WORKERS,
            "augment": {"crop": "random", "crop_scale": SCALE, "crop_ratio": RATIO, "policy": "flip"},
            "stream": {"decode": decode}, "storage": storage,
        }
    )  # fmt: skip
    dataset = open_dataset(location, recipe.cache_options())
    spec = PreprocessSpec(size=SIZE, decode=dataset.manifest.packing.decode)
    stream = TrainStream(dataset.split("train"), recipe, spec, single_rank())
    epochs = iter(range(1 << 30))

    def epoch() -> Iterator[Any]:
        return (batch.images for batch in stream.iterate(next(epochs), 0))

    return epoch


def pack_shards(src: Path, out: Path) -> None:
    """`python -m shards pack` with the full audit, all in one part."""
    # Noise and crops of the same ten photographs: near duplicates may be found, and are not the question here.
    options = ["--split", "none", "--shard-bytes", str(SHARD_BYTES), "--allow-leaks"]
    subprocess.run([sys.executable, "-m", "shards", "pack", src, out, *options], check=True)


def open_decode_only(folder: Path) -> Epoch:
    """Full decode of every picture with torchvision's libjpeg-turbo in 2 threads; no crop, no resize, no batch."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    paths = [path for path, _ in list_pictures(folder)]
    pool = ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,))

    def decode(part: Sequence[str]) -> int:
        for path in part:
            decode_jpeg(torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8), ImageReadMode.RGB)
        return len(part)

    def epoch() -> Iterator[range]:
        parts = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]
        return (range(count) for count in pool.map(decode, parts))

    return epoch


def open_torchvision(folder: Path) -> Epoch:
    """ImageFolder and DataLoader, PIL, float and normalised in the workers: torchvision's reference and PyTorch's
    ImageNet example."""
    from torchvision import datasets, transforms

    steps = [
        transforms.RandomResizedCrop(SIZE, SCALE, RATIO),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    return _load(datasets.ImageFolder(str(folder), transforms.Compose(steps)))


def open_torchvision_tensors(folder: Path, normalised: bool = True) -> Epoch:
    """ImageFolder and DataLoader, `torchvision.io.decode_jpeg` and transforms v2 on uint8 tensors, normalised last."""
    import torch
    from torchvision import datasets
    from torchvision.transforms import v2

    steps: list[Any] = [v2.RandomResizedCrop(SIZE, SCALE, RATIO, antialias=True), v2.RandomHorizontalFlip()]
    if normalised:
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return _load(datasets.ImageFolder(str(folder), v2.Compose(steps), loader=_load_tensor))


def open_torchvision_uint8(folder: Path) -> Epoch:
    """The same without normalisation, as for a device that does it: what a careful user gets out of torchvision."""
    return open_torchvision_tensors(folder, normalised=False)


def _load_tensor(path: str) -> Any:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    return decode_jpeg(read_file(path), ImageReadMode.RGB)


def _load(dataset: Any) -> Epoch:
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    return lambda: (images for images, _ in loader)


def open_webdataset(folder: Path) -> Epoch:
    """WebDataset over our shards, which are its own format: PIL, float and normalised, as in its ImageNet example."""
    import webdataset
    from torchvision import transforms

    steps = [
        transforms.RandomResizedCrop(SIZE, SCALE, RATIO),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    tars = sorted(str(path) for path in (folder / "train").glob("*.tar"))
    dataset = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000).decode("pil")
    batches = dataset.to_tuple("jpg", "cls").map_tuple(transforms.Compose(steps), _keep).batched(BATCH)
    loader = webdataset.WebLoader(batches, batch_size=None, num_workers=WORKERS, persistent_workers=True)
    return lambda: (images for images, _ in loader)


def _keep(value: Any) -> Any:
    return value


def open_ray_data(folder: Path) -> Epoch:
    """Ray Data on this machine with 2 CPUs: `read_images`, transforms v2 in `map`, `iter_torch_batches`."""
    import ray
    import ray.data
    import torch
    from torchvision.transforms import v2

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, object_store_memory=2 << 30)
    ray.data.DataContext.get_current().enable_progress_bars = False
    steps = [
        v2.ToImage(),
        v2.RandomResizedCrop(SIZE, SCALE, RATIO, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    transform = v2.Compose(steps)

    def change(row: dict[str, Any]) -> dict[str, Any]:
        return {"image": transform(row["image"]).numpy(), "path": row["path"]}

    pictures = ray.data.read_images(str(folder), mode="RGB", include_paths=True, shuffle="files").map(change)
    options: dict[str, Any] = {"batch_size": BATCH, "prefetch_batches": 3, "collate_fn": _collate}
    return lambda: iter(pictures.iter_torch_batches(**options))


def _collate(columns: dict[str, Any]) -> Any:
    import torch

    return torch.from_numpy(columns["image"])  # paths, which give the labels, are text


FEEDS = {
    "ours": Feed(open_ours, "shards"),
    "ours-fast": Feed(open_ours_fast, "shards"),
    "decode": Feed(open_decode_only),
    "torchvision": Feed(open_torchvision),
    "torchvision-tensors": Feed(open_torchvision_tensors),
    "torchvision-uint8": Feed(open_torchvision_uint8),
    "webdataset": Feed(open_webdataset, "shards"),
    "ray": Feed(open_ray_data),
}
PREPARATIONS: dict[str, Prepare] = {"shards": pack_shards}

if __name__ == "__main__":
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    run(FEEDS, PREPARATIONS)
