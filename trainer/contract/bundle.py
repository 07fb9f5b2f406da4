"""The bundle: one folder that holds a trained classifier and everything needed to use it."""

from __future__ import annotations

import importlib.metadata
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self, overload

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shards.dataset.positive import check_positive
from shards.errors import ShardError, UsageError
from shards.files.atomic import replace_folder, write_text
from shards.files.fingerprint import fingerprint_file, fingerprint_json
from shards.files.sizes import format_size
from shards.files.versioned import read_page
from shards.pictures.decoding import VERSION as DECODING
from shards.pictures.decoding import describe_versions
from trainer.contract.compute.backends import Backend
from trainer.contract.decision.decision import Answer, Decision, answer
from trainer.contract.decision.ood import Detector, check_scores, read_detector
from trainer.contract.intact import PAGE, REMEDY, VERSION, WEIGHTS, check_weights, require_bundle
from trainer.contract.model.features import FeatureTap
from trainer.contract.model.model import Classifier, ModelSpec, split_outputs
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.contract.probes import OTHER_BACK_END, SAME_BACK_END, check_images, check_logits, read_probes, write_probes
from trainer.contract.task import make_task

if TYPE_CHECKING:
    from trainer.contract.picture import Picture

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 32
"""Number of pictures in one forward pass."""
_PROBES = "probes"
MOST_SHARES: Final = 200
"""Bundles with more classes have no `label_shares`: each would be a time series of monitoring."""


class BundlePage(BaseModel):
    """The content of `bundle.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["shardline-bundle"] = "shardline-bundle"
    version: Literal[1] = VERSION
    model: ModelSpec
    preprocess: PreprocessSpec
    classes: list[str]
    display_names: list[str]
    task: Literal["single-label", "multi-label"] = "single-label"
    """Whether each picture has exactly one class or any number of labels."""
    positive: str | None = None
    """The class of interest, whose sensitivity is reported; None if unset. The fingerprint leaves None out."""
    decision: Decision
    probes: Literal["real", "synthetic"]
    """Whether the probes are pictures from the dataset or synthetic ones."""
    dataset: str | None
    """Fingerprint of the dataset that it was trained on; None if unknown."""
    recipe: str | None
    """Fingerprint of the recipe; None for weights that were not trained here."""
    metrics: dict[str, float] | None
    """Metrics of the weights on the validation split; None for weights that were not trained here. None of them depends
    on which class is positive, except in bundles of earlier versions, where the second of two classes was positive."""
    origin: str | None = None
    """For weights that were not trained here: where they came from, and the sha256 of their tensor file."""
    versions: dict[str, str]
    """Versions of the libraries that made it."""
    decoding: int = 1
    """Version of the decoding rules used in training, see `shards.pictures.decoding`."""
    label_shares: dict[str, float] | None = None
    """By class, the share of validation pictures for which it is predicted without a fitted decision; None: unknown, or
    more than `MOST_SHARES` classes. The fingerprint leaves it out."""
    weights_sha256: str

    @model_validator(mode="after")
    def _decides_by_task(self) -> Self:
        if self.decision.rule not in make_task(self.task).rules:
            raise ValueError(f"a {self.task} bundle cannot use the decision rule {self.decision.rule}")
        return self

    @model_validator(mode="after")
    def _names_each_class_once(self) -> Self:
        outputs, names, shown = self.model.num_classes, len(self.classes), len(self.display_names)
        if not outputs == names == shown:
            raise ValueError(f"the model has {outputs} outputs, there are {names} classes and {shown} display names")
        if len(set(self.classes)) != names:
            raise ValueError("two classes have the same name")
        return self

    @model_validator(mode="after")
    def _positive_is_a_class(self) -> Self:
        check_positive(self.positive, self.classes, self.display_names, self.task)
        return self

    @model_validator(mode="after")
    def _decision_is_of_these_classes(self) -> Self:
        decision, wanted = self.decision, len(self.classes)
        lists = [decision.priors.train, decision.priors.deploy] if decision.priors else []
        if (sets := decision.conformal) is not None:
            lists += [sets.thresholds, *([list(map(float, sets.class_samples))] if sets.class_samples else [])]
        if any(len(numbers) != wanted for numbers in lists):
            raise ValueError(f"the decision does not have one number for each of {wanted} classes")
        for point in [*([decision.point] if decision.point else []), *(decision.points or [])]:
            if point.positive not in self.classes:
                raise ValueError(f"the decision is about {point.positive}, which is not one of the classes")
        return self

    @property
    def expected_shares(self) -> dict[str, float]:
        """By class, the share of answers that have the label if pictures are like those of validation; {}: unknown."""
        fitted = self.decision.fitted
        return (self.label_shares if fitted is None else fitted.label_shares) or {}

    def name_metrics(self) -> dict[str, float] | None:
        """Return the metrics by their display names; a metric of one class includes the class name."""
        if self.metrics is None:
            return None
        from trainer.contract.metrics import name_figures  # late: an answer needs no metrics

        # Even without `positive`: such metrics are from an earlier version, where the second of two classes was
        # positive.
        return name_figures(self.metrics, make_task(self.task).find_positive(self.classes), len(self.classes))

    def fingerprint(self) -> str:
        """Return the identity of the bundle."""
        # From the fields that are set: a field added by a later version must not change the fingerprint of old bundles.
        return fingerprint_json(self.model_dump(mode="json", exclude_unset=True, exclude={"positive", "label_shares"}))


class Output(NamedTuple):
    """The model's output for one picture: logits float32[K], and the OOD score if the decision has `ood`."""

    logits: Tensor
    ood_score: float | None


@dataclass
class Bundle:
    """A loaded bundle, its model in evaluation mode on `device`."""

    page: BundlePage
    model: Classifier
    device: torch.device
    backend: Backend | None = None
    """Computes the logits in place of the model; set by `trainer.contract.compute.choice`."""
    detector: Detector | None = None
    """Set if the decision has `ood`."""
    folder: Path | None = None
    """The folder it was loaded from."""

    def __post_init__(self) -> None:
        self._tap = None if self.detector is None else FeatureTap(self.model)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Bundle:
        """Load a bundle and recompute its probes; warn if decoding has changed since its training.

        Raises:
            UsageError: The folder is not a bundle.
            ShardError: The bundle has another version, is damaged, or its probes no longer give the recorded results.
        """
        root = Path(folder)
        page = read_bundle_page(root)
        if page.decoding != DECODING:
            logger.warning("%s", _describe_age(page))
        model = Classifier(page.model)
        try:
            check_weights(root, page.weights_sha256)
            model.load_state_dict(load_file(root / WEIGHTS))
            _check_normalisation(model, root)
            detector = read_detector(root, page.decision.ood).to(torch.device(device)) if page.decision.ood else None
            pictures, images, logits = read_probes(root / _PROBES)
        except (OSError, SafetensorError, RuntimeError, KeyError) as err:
            raise ShardError(f"{root} is damaged ({str(err).splitlines()[0]}); restore it from a backup") from err
        bundle = cls(page, model.eval().to(device), torch.device(device), detector=detector, folder=root)
        check_images(pictures, images, page.preprocess, page.decoding)
        actual, scores = bundle.compute_batch(images)
        # The probes were recorded on a CPU; other devices sum convolutions in another order.
        check_logits(actual, logits, SAME_BACK_END if device == "cpu" else OTHER_BACK_END)
        if detector is not None and scores is not None:
            check_scores(scores, detector.probe_scores.cpu(), same_back_end=device == "cpu")
        return bundle

    def __repr__(self) -> str:
        return f"Bundle({str(self.folder)!r}, {self.page.model.name}, {len(self.page.classes)} classes)"

    @overload
    def predict(self, pictures: list[Picture]) -> list[Answer]: ...

    @overload
    def predict(self, pictures: Picture) -> Answer: ...

    def predict(self, pictures: Any) -> Any:
        """Return the answer for one picture, or a list of answers for a list of pictures, in the same order.

        Args:
            pictures: A path, the bytes of a file, a PIL picture, an array uint8[H, W, 3] or uint8[H, W], or a list of
                these.

        Raises:
            UsageError: An argument of another type.
            DecodeError: The data is not one complete picture.
            OSError: The file cannot be read.
        """
        from trainer.contract.picture import prepare_picture  # late import: the endpoint gets encoded pictures only

        if not isinstance(pictures, (list, tuple)):
            return self.predict([pictures])[0]
        answers: list[Answer] = []
        for start in range(0, len(pictures), _AT_ONCE):
            images = [prepare_picture(picture, self.page.preprocess) for picture in pictures[start : start + _AT_ONCE]]
            answers += [self.answer(*output) for output in self.compute(torch.stack(images))]
        return answers

    def prepare(self, data: bytes) -> Tensor:
        """Return uint8[C, S, S] of an encoded picture; raises DecodeError."""
        return prepare(data, self.page.preprocess)

    @torch.inference_mode()
    def compute_batch(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits float32[B, K], and OOD scores float32[B] if the decision has `ood`, from one forward pass.

        Args:
            images: uint8[B, C, S, S], or float32 in 0..255, which no back end takes, so that the model itself
                computes; the results are on the CPU.
        """
        if self.backend is not None and images.dtype == torch.uint8:
            logits, features = self.backend.compute(images)
            return logits, self.detector.score(features.to(self.device)) if self.detector else None
        logits, _ = split_outputs(self.model(images.to(self.device)))
        scores = self.detector.score(self._tap.take()) if self.detector and self._tap else None
        return logits.cpu(), scores

    def compute(self, images: Tensor) -> list[Output]:
        """Return the arguments of `answer` for each of images uint8 or float32[B, C, S, S]."""
        logits, scores = self.compute_batch(images)
        return list(map(Output, logits, [None] * len(logits) if scores is None else scores.tolist()))

    def compute_logits(self, images: Tensor) -> Tensor:
        """Return logits float32[B, K], on the CPU, for images uint8[B, C, S, S]."""
        return self.compute_batch(images)[0]

    def answer(self, logits: Tensor, ood_score: float | None = None, threshold: float | None = None) -> Answer:
        """Return the answer for one picture: `bundle.answer(*output)` for each of `compute`.

        Args:
            logits: float32[K].
            ood_score: From the same forward pass, if the decision has `ood`.
            threshold: In place of the bundle's own: the probability from which the positive class is decided, or with
                several labels each class.

        Raises:
            ValueError: The decision has `ood`, but no score was given.
            UsageError: A threshold is given, but no class is positive.
        """
        thresholds = None if threshold is None else self._spread(threshold)
        return answer(logits, self.page.classes, self.page.decision, ood_score, thresholds)

    def _spread(self, threshold: float) -> dict[int, float]:
        """Return the threshold by the number of each class that it is for."""
        page = self.page
        if not page.decision.task.is_exclusive:
            return dict.fromkeys(range(len(page.classes)), threshold)
        point = page.decision.point
        positive = point.positive if point else page.positive or make_task(page.task).find_positive(page.classes)
        if positive is None:
            raise UsageError(
                "a threshold needs a class of interest, and this bundle has none; choose one with "
                "`python -m trainer.decide ... --point RULE --positive CLASS`, or leave the threshold out"
            )
        return {page.classes.index(positive): threshold}


def _describe_age(page: BundlePage) -> str:
    """Return the warning for a bundle whose training used another version of the decoding rules."""
    said = describe_versions("the bundle", page.decoding)
    if page.decoding > DECODING:
        return said
    return (
        f"{said}. Other kinds of pictures give the same answers as before, and nothing is damaged; if such pictures "
        "were used in training or are to be predicted, pack their files into a new folder and train again"
    )


def _check_normalisation(model: Classifier, root: Path) -> None:
    """Raise if mean or std in bundle.json differ from the weights: programs that read only bundle.json would be wrong.

    Raises:
        ShardError: They differ.
    """
    said = Classifier.make_normalisation(model.spec)
    for name, own, numbers in zip(("mean", "std"), (model.mean, model.std), said, strict=True):
        if not torch.allclose(own, numbers.to(own), rtol=1e-5, atol=1e-4):
            theirs, found = (
                ", ".join(f"{value / 255:.4g}" for value in values.flatten().tolist()) for values in (numbers, own)
            )
            raise ShardError(
                f"{root}: bundle.json says {name} {theirs}, but {WEIGHTS} has {found}; restore the bundle from a backup"
            )


def save_bundle(folder: Path, model: Classifier, pictures: list[bytes], **facts: Any) -> BundlePage:
    """Write a bundle, published by one rename, and return its metadata.

    Args:
        folder: Destination; an existing bundle is replaced.
        model: The trained classifier; it is left in evaluation mode on the CPU.
        pictures: Encoded pictures for the probes.
        facts: The other fields of BundlePage; `decoding` defaults to this program's version.

    Raises:
        ShardError: The model's answers to the probes are not finite numbers.
    """
    model.eval().cpu()
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    probes = sum(map(len, pictures)) + len(pictures) * math.prod(facts["preprocess"].shape)
    needed = sum(tensor.nbytes for tensor in tensors.values()) + probes
    with replace_folder(folder, f"more than {format_size(needed)}") as temporary:
        save_file(tensors, temporary / WEIGHTS)
        page = BundlePage(
            model=model.spec,
            versions=read_versions(),
            weights_sha256=fingerprint_file(temporary / WEIGHTS),
            **{"decoding": DECODING, **facts},
        )
        images = torch.stack([prepare(data, page.preprocess) for data in pictures])
        with torch.inference_mode():
            logits = model(images)
        if not logits.isfinite().all():
            raise ShardError(
                "the model gives logits that are not finite for a probe, so no bundle was written; its training "
                "diverged, use an earlier checkpoint"
            )
        write_probes(temporary / _PROBES, pictures, images, logits)
        # Earlier versions reject unknown fields.
        unsaid = {name for name in ("positive", "label_shares") if getattr(page, name) is None}
        write_text(temporary / PAGE, page.model_dump_json(indent=2, exclude=unsaid) + "\n")
    return read_bundle_page(folder)


def read_versions() -> dict[str, str]:
    """Return the versions of the libraries that affect a bundle's results."""
    return {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "timm", "pillow", "numpy")}


def read_bundle_page(root: Path) -> BundlePage:
    """Return the metadata (bundle.json) of a bundle without loading it.

    Raises:
        UsageError: The folder is not a bundle.
        ShardError: bundle.json has another version or is damaged.
    """
    return read_page(require_bundle(root), BundlePage, REMEDY)


def read_bundle_probes(root: Path) -> tuple[list[bytes], Tensor, Tensor]:
    """Return a bundle's probes: pictures as bytes, images uint8[N, C, S, S] and logits float32[N, K]."""
    return read_probes(root / _PROBES)
