"""Train a head on cached features: with a frozen backbone, the head's input is computed once for each picture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from safetensors.torch import load_file, save
from torch import Tensor, nn

from shards.cli.progress import Progress
from shards.dataset.dataset import Dataset
from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from shards.errors import UsageError
from shards.files.atomic import lock_folder, write_atomically
from shards.files.fingerprint import fingerprint_json
from shards.order.plan import Refs
from trainer.contract.model.features import FeatureTap, WithFeatures
from trainer.contract.model.head import find_head, find_heads
from trainer.contract.model.model import Classifier
from trainer.contract.preprocess import PreprocessSpec
from trainer.contract.task import make_task
from trainer.evaluate.rows import Rows, evaluate_batches, evaluate_split, list_chunks
from trainer.feed.feed import Batch
from trainer.ranks.ranks import Ranks
from trainer.step.engine import Engine

FILE = "features.safetensors"
_PROBED = 4
"""Pictures on which a model's features are tried."""


@dataclass(frozen=True)
class CachedSplit:
    """The features of a split's samples in stored order, float32[N, D], with what else a batch has."""

    split: Split
    features: Tensor

    @cached_property
    def _labels(self) -> Tensor:
        task = make_task(self.split.task)
        rows = [np.atleast_1d(np.asarray(each)).tolist() for each in task.read_index(self._read)]
        return task.gather([tuple(number for number in row if number >= 0) for row in rows], self.split.num_classes)

    @cached_property
    def _weights(self) -> Tensor:
        return torch.from_numpy(self._read("weight").astype(np.float32))

    @cached_property
    def _ids(self) -> npt.NDArray[np.int64]:
        return self._read("sample_id").astype(np.int64)

    @cached_property
    def _sources(self) -> list[str]:
        return [str(source) for source in self._read("source")]

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.split.counts) - self.split.counts

    def _read(self, column: str) -> npt.NDArray[np.generic]:
        with SampleReader(self.split) as reader:
            return reader.read_column(column)

    def take(self, refs: Refs) -> Batch:
        """Return a batch that has the samples' features instead of their pictures."""
        places = self._starts[refs.shards] + refs.rows
        rows = torch.from_numpy(places)
        sources = [self._sources[place] for place in places.tolist()]
        return Batch(self.features[rows], self._labels[rows], self._weights[rows], self._ids[places], sources)

    def evaluate(self, model: Classifier, ranks: Ranks) -> Rows:
        """Return the rows of the split, gathered on every rank, like `evaluate_split`."""
        batches = map(self.take, list_chunks(self.split, ranks))
        rows = evaluate_batches(model, batches, make_task(self.split.task), ranks)
        assert rows is not None
        return rows


@dataclass(frozen=True)
class Caching:
    """What features are computed from, and where they are kept; every rank has one.

    folder: Shared by runs with the same backbone, preprocessing and data.
    """

    engine: Engine
    dataset: Dataset
    preprocess: PreprocessSpec
    ranks: Ranks
    workers: int
    folder: Path

    def open(self, part: str) -> CachedSplit:
        """Return the features of a split, computed if they are not in the folder; every rank calls it.

        Raises:
            UsageError: The model's features are not all that its head needs, or are random in training.
        """
        split, folder = self.dataset.split(part), self.folder / self._name(part)
        path = folder / FILE
        with self._holding(folder):
            if self.ranks.agree(float(path.is_file()))[0] == self.ranks.num_ranks:
                return CachedSplit(split, load_file(path)["features"])
            refuse_unfit(self.engine, self.preprocess)
            features = self._compute(split)
            if self.ranks.is_first:
                with write_atomically(path) as file:
                    file.write(save({"features": features}))
        return CachedSplit(split, features)

    @contextlib.contextmanager
    def _holding(self, folder: Path) -> Iterator[None]:
        """Let one run at a time compute the same features: those that wait then find them."""
        if self.ranks.is_first:
            folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder) if self.ranks.is_first else contextlib.nullcontext():
            yield

    def _compute(self, split: Split) -> Tensor:
        model, tap = self.engine.model, FeatureTap(self.engine.model)
        several = cast(Classifier, WithFeatures(model, tap))  # evaluation only calls the model
        progress = Progress(f"computing features of {split.name}", split.num_samples)
        try:
            rows = evaluate_split(several, self.preprocess, split, self.ranks, self.workers, progress.show)
        finally:
            progress.close()
            tap.close()
        with SampleReader(split) as reader:
            ids = reader.read_column("sample_id")
        return torch.from_numpy(rows.logits[np.searchsorted(rows.ids, ids), model.spec.num_classes :])

    def _name(self, part: str) -> str:
        """Return a name that says what the features depend on."""
        model = self.engine.model
        facts = {
            "model": model.spec.model_dump(mode="json", exclude={"num_classes", "dropout"}),
            "weights": self._weights,
            "preprocess": self.preprocess.model_dump(mode="json"),
            "dataset": self.dataset.fingerprint(),
            "split": part,
        }
        return f"{part}-{fingerprint_json(facts)[:24]}"

    @cached_property
    def _weights(self) -> str:
        """Hash of all tensors of the backbone but those of its head."""
        head, digest = find_head(self.engine.model.backbone), xxhash.xxh3_128()
        for name, tensor in self.engine.model.backbone.state_dict().items():
            if not name.startswith(f"{head}."):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def refuse_unfit(engine: Engine, spec: PreprocessSpec) -> None:
    """Raise UsageError unless the head alone makes the model's logits of its features, in training as in evaluation."""
    model, name = engine.model, engine.model.spec.name
    heads = find_heads(model.backbone)
    head = model.backbone.get_submodule(heads[0])
    remedy = "leave cache_features out"
    if len(heads) > 1 or not isinstance(head, nn.Linear):
        raise UsageError(
            f"cache_features needs a model with one linear head, and {name} has {', '.join(heads)}; {remedy}"
        )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_PROBED, *spec.shape), dtype=torch.uint8, generator=generator)
    images, tap = images.to(model.mean.device), FeatureTap(model)
    try:
        with torch.inference_mode():
            model.eval()
            logits = model(images)
            kept = tap.take()
            engine.norms.enter_training(model, _PROBED, engine.cut(1))
            model(images)
            trained = tap.take()
            model.eval()
            made = model(kept)
    finally:
        tap.close()
    if not _are_close(cast(Tensor, made), cast(Tensor, logits)):
        raise UsageError(f"cache_features: more than the head of {name} follows its features; {remedy}")
    if not _are_close(trained, kept):
        raise UsageError(
            f"cache_features: the features of {name} are random in training (dropout or stochastic depth), so that no "
            f"epoch could reuse them; set head_dropout if the dropout is the head's, or {remedy}"
        )


def _are_close(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal but for rounding, on the scale of their largest value."""
    return float((one - other).abs().max()) <= 1e-3 * float(other.abs().max())
