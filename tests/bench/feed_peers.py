"""The feeds of `feed.py` that need an environment of their own; see README.md beside this file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from feed_clock import BATCH, MEAN, RATIO, SCALE, SIZE, STD, WORKERS, Epoch, Feed, Prepare, run
from measure import list_pictures

CHUNK_BYTES = 16 << 20


def open_decode_only(folder: Path) -> Epoch:
    """Full decode of every picture with simplejpeg (libjpeg-turbo) in 2 threads; no crop, no resize, no batch."""
    import simplejpeg

    paths = [path for path, _ in list_pictures(folder)]
    pool = ThreadPoolExecutor(WORKERS)

    def decode(part: Sequence[str]) -> int:
        for path in part:
            simplejpeg.decode_jpeg(Path(path).read_bytes())
        return len(part)

    def epoch() -> Iterator[range]:
        parts = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]
        return (range(count) for count in pool.map(decode, parts))

    return epoch


class AlbumentationsFolder:
    """A dataset of a folder, read with OpenCV and changed by Albumentations, normalised there."""

    def __init__(self, folder: Path) -> None:
        import albumentations.pytorch

        self._pictures = list_pictures(folder)
        self._change = albumentations.Compose(
            [
                albumentations.RandomResizedCrop((SIZE, SIZE), SCALE, RATIO, area_for_downscale="image"),
                albumentations.HorizontalFlip(),
                albumentations.Normalize(MEAN, STD),
                albumentations.pytorch.ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        import cv2

        path, label = self._pictures[place]
        return self._change(image=cv2.imread(path, cv2.IMREAD_COLOR_RGB))["image"], label


def open_albumentations(folder: Path) -> Epoch:
    """DataLoader with OpenCV and Albumentations, antialiased by `area_for_downscale`."""
    import cv2
    from torch.utils.data import DataLoader

    cv2.setNumThreads(0)  # as its documentation asks for beside worker processes
    dataset: Any = AlbumentationsFolder(folder)
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    return lambda: (images for images, _ in loader)


def read_picture(picture: tuple[str, int]) -> dict[str, Any]:
    """Return one sample as LitData wants it: an open JPEG, whose bytes it keeps."""
    from PIL import Image

    return {"image": Image.open(picture[0]), "label": picture[1]}


def write_litdata(src: Path, out: Path) -> None:
    from litdata import optimize

    options: dict[str, Any] = {"num_workers": 1, "start_method": "fork", "reorder_files": False, "verbose": False}
    optimize(fn=read_picture, inputs=list_pictures(src), output_dir=str(out), chunk_bytes=CHUNK_BYTES, **options)


def open_litdata(folder: Path) -> Epoch:
    """LitData: its own JPEG decoding (torchvision's), transforms v2 in the dataset, normalised last."""
    import torch
    from litdata import StreamingDataLoader, StreamingDataset
    from torchvision.transforms import v2

    steps = [
        v2.RGB(),
        v2.RandomResizedCrop(SIZE, SCALE, RATIO, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    change = v2.Compose(steps)

    class Pictures(StreamingDataset):
        def __getitem__(self, place: Any) -> tuple[Any, int]:
            sample = super().__getitem__(place)
            return change(sample["image"]), sample["label"]

    dataset = Pictures(str(folder), shuffle=True, drop_last=False)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, persistent_workers=True)
    return lambda: (images for images, _ in loader)


def write_mds(src: Path, out: Path) -> None:
    from streaming import MDSWriter

    columns = {"image": "bytes", "label": "int"}
    with MDSWriter(out=str(out), columns=columns, size_limit=CHUNK_BYTES) as writer:
        for path, label in list_pictures(src):
            writer.write({"image": Path(path).read_bytes(), "label": label})


def open_mds(folder: Path) -> Epoch:
    """MosaicML Streaming: PIL, float and normalised, as its vision datasets have it."""
    from PIL import Image
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader
    from torchvision import transforms

    steps = [
        transforms.RandomResizedCrop(SIZE, SCALE, RATIO),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    change = transforms.Compose(steps)

    class Pictures(StreamingDataset):
        def __getitem__(self, place: Any) -> tuple[Any, int]:
            sample = super().__getitem__(place)
            return change(Image.open(io.BytesIO(sample["image"])).convert("RGB")), sample["label"]

    dataset = Pictures(local=str(folder), shuffle=True, batch_size=BATCH, num_canonical_nodes=1)
    loader = DataLoader(dataset, BATCH, num_workers=WORKERS, persistent_workers=True)
    return lambda: (images for images, _ in loader)


def open_spdl(folder: Path) -> Epoch:
    """SPDL: its ffmpeg decoding with crop, scale and flip in one filter graph, 2 threads, uint8 batches."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    pictures = list_pictures(folder)
    spdl.io.demux_image(pictures[0][0])  # loads its ffmpeg, which is an import
    rng = np.random.default_rng(0)

    def load(picture: tuple[str, int]) -> tuple[Any, int]:
        packets = spdl.io.demux_image(picture[0])
        x, y, width, height = draw_box(packets.width, packets.height, rng)
        flip = "hflip," if rng.random() < 0.5 else ""
        graph = f"crop={width}:{height}:{x}:{y}:exact=1,scale={SIZE}:{SIZE}:flags=bilinear,{flip}format=rgb24"
        return spdl.io.decode_packets(packets, filter_desc=graph), picture[1]

    def join(samples: list[tuple[Any, int]]) -> Any:
        return spdl.io.to_torch(spdl.io.convert_frames([frames for frames, _ in samples]))

    def epoch() -> Iterator[Any]:
        order = [pictures[place] for place in rng.permutation(len(pictures))]
        builder = PipelineBuilder().add_source(order).pipe(load, concurrency=WORKERS).aggregate(BATCH).pipe(join)
        pipeline = builder.add_sink(3).build(num_threads=WORKERS)
        with pipeline.auto_stop():
            yield from pipeline

    return epoch


def draw_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return x, y, width, height as torchvision's RandomResizedCrop draws them."""
    for _ in range(10):
        area, shape = width * height * rng.uniform(*SCALE), np.exp(rng.uniform(*np.log(RATIO)))
        wide, high = round((area * shape) ** 0.5), round((area / shape) ** 0.5)
        if 0 < wide <= width and 0 < high <= height:
            return int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1)), wide, high
    return 0, 0, width, height


def open_dali(folder: Path) -> Epoch:
    """DALI on the CPU: file reader, crop-aware decoding, antialiased resize, flip; uint8, as it normalises on the
    device."""
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy
    from nvidia.dali.plugin.pytorch import DALIClassificationIterator

    @pipeline_def(batch_size=BATCH, num_threads=WORKERS, device_id=None, seed=0)
    def build() -> Any:
        jpegs, labels = fn.readers.file(file_root=str(folder), random_shuffle=True, name="reader")
        part = fn.decoders.image_random_crop(jpegs, device="cpu", random_area=SCALE, random_aspect_ratio=RATIO)
        small = fn.resize(part, size=[SIZE, SIZE], antialias=True)
        return fn.flip(small, horizontal=fn.random.coin_flip()), labels

    options: dict[str, Any] = {"reader_name": "reader", "auto_reset": True, "prepare_first_batch": False}
    batches = DALIClassificationIterator(build(), last_batch_policy=LastBatchPolicy.PARTIAL, **options)
    return lambda: (batch[0]["data"] for batch in batches)


class Pictures:
    """The samples of a folder as FFCV's writer wants them."""

    def __init__(self, folder: Path) -> None:
        self._pictures = list_pictures(folder)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        from PIL import Image

        path, label = self._pictures[place]
        return np.asarray(Image.open(path).convert("RGB")), label


def write_ffcv(src: Path, out: Path) -> None:
    """FFCV's file; its writer takes pixels, and encodes them as JPEG of quality 90."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    out.mkdir(parents=True, exist_ok=True)
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    DatasetWriter(str(out / "pictures.beton"), fields, num_workers=1).from_indexed_dataset(Pictures(src))


def open_ffcv(folder: Path) -> Epoch:
    """FFCV, JPEGs in its own file: its crop decoder and flip, uint8, as ffcv-imagenet normalises on the device."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor

    pipelines = {
        "image": [RandomResizedCropRGBImageDecoder((SIZE, SIZE), SCALE, RATIO), RandomHorizontalFlip(), ToTensor()],
        "label": [IntDecoder(), ToTensor()],
    }
    options: dict[str, Any] = {"order": OrderOption.RANDOM, "os_cache": True, "drop_last": False}
    beton = str(folder / "pictures.beton")
    loader = Loader(beton, batch_size=BATCH, num_workers=WORKERS, pipelines=pipelines, **options)
    return lambda: (batch[0] for batch in loader)


FEEDS = {
    "decode": Feed(open_decode_only),
    "albumentations": Feed(open_albumentations),
    "litdata": Feed(open_litdata, "litdata"),
    "mds": Feed(open_mds, "mds"),
    "spdl": Feed(open_spdl),
    "dali": Feed(open_dali),
    "ffcv": Feed(open_ffcv, "ffcv"),
}
PREPARATIONS: dict[str, Prepare] = {"litdata": write_litdata, "mds": write_mds, "ffcv": write_ffcv}

if __name__ == "__main__":
    run(FEEDS, PREPARATIONS)
