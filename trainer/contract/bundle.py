"""The bundle: one folder that holds a trained classifier and all that is needed to use it as trained."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shards.errors import ShardError, UsageError
from shards.files import write_text
from shards.fingerprint import fingerprint_file, fingerprint_json
from shards.pages import read_page
from trainer.contract.backends import Backend
from trainer.contract.decision import Answer, Decision, answer
from trainer.contract.model import Classifier, ModelSpec, split_outputs
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.contract.probes import OTHER_BACK_END, SAME_BACK_END, check_images, check_logits, read_probes, write_probes

VERSION: Final = 1
_PAGE, WEIGHTS, _PROBES = "bundle.json", "weights.safetensors", "probes"


class BundlePage(BaseModel):
    """The content of `bundle.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["shardline-bundle"] = "shardline-bundle"
    version: Literal[1] = VERSION
    model: ModelSpec
    preprocess: PreprocessSpec
    classes: list[str]
    display_names: list[str]
    decision: Decision
    probes: Literal["real", "synthetic"]
    """Whether the probes are pictures of the dataset or made ones."""
    dataset: str | None
    """Fingerprint of the dataset that it was trained on; None where nobody knows."""
    recipe: str | None
    """Fingerprint of the recipe; None for weights that were not trained here."""
    metrics: dict[str, float] | None
    """Metrics of the weights on the validation part; None for weights that were not trained here."""
    origin: str | None = None
    """Where weights that were not trained here came from, and the sha256 of their tensors' file."""
    versions: dict[str, str]
    """Library versions that made it."""
    weights_sha256: str

    def fingerprint(self) -> str:
        """Return the identity of the bundle."""
        # What its file says: a field that a later version adds must not change the bundles that are there.
        return fingerprint_json(self.model_dump(mode="json", exclude_unset=True))


@dataclass
class Bundle:
    """A loaded bundle, its model in evaluation mode on `device`."""

    page: BundlePage
    model: Classifier
    device: torch.device
    backend: Backend | None = None
    """What computes the logits in place of the model itself; `trainer.contract.choice` sets it."""

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Bundle:
        """Load a bundle and recompute its probes.

        Raises:
            UsageError: No bundle there.
            ShardError: A bundle of another version, a damaged one, or probes that no longer come out as recorded.
        """
        root = Path(folder)
        page = read_bundle_page(root)
        model = Classifier(page.model)
        try:
            if fingerprint_file(root / WEIGHTS) != page.weights_sha256:
                raise ShardError(f"{root / WEIGHTS}: sha256 differs from bundle.json; restore the bundle from a backup")
            model.load_state_dict(load_file(root / WEIGHTS))
            pictures, images, logits = read_probes(root / _PROBES)
        except (OSError, SafetensorError, RuntimeError, KeyError) as err:
            raise ShardError(f"{root} is damaged ({str(err).splitlines()[0]}); restore it from a backup") from err
        bundle = cls(page, model.eval().to(device), torch.device(device))
        check_images(pictures, images, page.preprocess)
        # The probes were computed on a CPU; convolutions on another device sum in another order.
        check_logits(bundle.compute_logits(images), logits, SAME_BACK_END if device == "cpu" else OTHER_BACK_END)
        return bundle

    def prepare(self, data: bytes) -> Tensor:
        """Return uint8[C, S, S] of an encoded picture; raises DecodeError."""
        return prepare(data, self.page.preprocess)

    @torch.inference_mode()
    def compute_logits(self, images: Tensor) -> Tensor:
        """Return float32[B, K] on the CPU of images uint8[B, C, S, S]."""
        if self.backend is not None:
            return self.backend.compute(images)[0]
        logits, _ = split_outputs(self.model(images.to(self.device)))
        return logits.cpu()

    def answer(self, logits: Tensor) -> Answer:
        """Return the answer for one picture's logits float32[K]."""
        return answer(logits, self.page.classes, self.page.decision)


def save_bundle(folder: Path, model: Classifier, pictures: list[bytes], **facts: Any) -> BundlePage:
    """Write a bundle, published by one rename, and return its page.

    Args:
        folder: Where; a bundle that is there is replaced.
        model: The trained classifier; it is left in evaluation mode on the CPU.
        pictures: Encoded pictures for the probes.
        facts: The remaining fields of BundlePage.
    """
    temporary = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        model.eval().cpu()
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary / WEIGHTS)
        page = BundlePage(
            model=model.spec, versions=read_versions(), weights_sha256=fingerprint_file(temporary / WEIGHTS), **facts
        )
        images = torch.stack([prepare(data, page.preprocess) for data in pictures])
        with torch.inference_mode():
            write_probes(temporary / _PROBES, pictures, images, model(images))
        write_text(temporary / _PAGE, page.model_dump_json(indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_bundle_page(folder)


def read_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide a bundle's numbers."""
    return {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "timm", "pillow", "numpy")}


def is_bundle(root: Path) -> bool:
    """Say whether a folder is a bundle."""
    return (root / _PAGE).is_file()


def read_bundle_page(root: Path) -> BundlePage:
    """Return the page of a bundle without loading it.

    Raises:
        UsageError: No bundle there.
        ShardError: A page of another version, or a damaged one.
    """
    path = root / _PAGE
    if not path.is_file():
        what = "is not a bundle (it has no bundle.json)" if root.is_dir() else "does not exist"
        raise UsageError(f"{root} {what}; a finished run keeps its bundle in runs/NAME/bundle")
    return read_page(path, BundlePage, "restore the bundle from a backup or train again")


def read_bundle_probes(root: Path) -> tuple[list[bytes], Tensor, Tensor]:
    """Return a bundle's probes: pictures as bytes, images uint8[N, C, S, S] and logits float32[N, K]."""
    return read_probes(root / _PROBES)
