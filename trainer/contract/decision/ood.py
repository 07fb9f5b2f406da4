"""Out-of-distribution score: distance from the training pictures in penultimate features, scaled to length 1.

residual: the squared length of the component outside the directions that hold most of the fit's variance. mahalanobis:
the squared distance to the nearest class mean, under one covariance for all classes. Both are squared Euclidean
distances to the nearest of some means after multiplication by a matrix, so one detector class computes either, in one
forward pass. Comparison: tests/bench/results/2026-11-30-ood.md.

Source: Lee et al. 2018 (A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks,
eq. 2), without its input perturbation and its other layers; Mueller and Hein 2025 (Mahalanobis++, section 4), for the
length, which they find to matter for most of 44 models. The residual is that of Wang et al. 2022 (ViM:
Out-Of-Distribution with Virtual-logit Matching, section 4), without the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from shards.errors import ShardError
from shards.files.atomic import write_atomically
from shards.files.fingerprint import fingerprint_bytes, fingerprint_file

DETECTOR: Final = "ood-"
"""Prefix of detector file names."""
SAME_BACK_END, OTHER_BACK_END = 1e-3, 5e-2  # largest difference of a probe's score, relative to the largest


OodScore = Literal["residual", "mahalanobis"]


class OodRule(BaseModel):
    """The threshold above which a picture counts as out of distribution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: OodScore = "mahalanobis"
    """Default of bundles without this field."""
    threshold: float = Field(ge=0)
    """A picture with a higher score is out of distribution."""
    kept: float = Field(gt=0, lt=1)
    """Probability that a picture like those of the fit scores below the threshold, 0..1."""
    fitted_on: Literal["train", "val", "test"]
    """The split that gave class means and covariance."""
    samples: int
    """Number of pictures that gave them."""
    features: int
    """Number of inputs of the model's head."""
    file: str
    """File in the bundle with means, matrix and the scores of the probes."""
    sha256: str


@dataclass
class Detector:
    """Computes out-of-distribution scores.

    centre float32[D]; whitening float32[D, E], which makes distances Euclidean; means float32[C, E], whitened: those of
    the classes in the fit, or for residual the origin alone; probe_scores float32[N] of the bundle's probes.
    """

    centre: Tensor
    whitening: Tensor
    means: Tensor
    probe_scores: Tensor

    def to(self, device: torch.device) -> Detector:
        """Return a copy on `device`."""
        return Detector(*(tensor.to(device) for tensor in (self.centre, self.whitening, self.means, self.probe_scores)))

    def score(self, features: Tensor) -> Tensor:
        """Return scores float32[B], on the CPU, for features float32[B, D] as they enter the head."""
        return self.measure(scale_to_length_one(features)).cpu()

    def measure(self, points: Tensor) -> Tensor:
        """Return float32[B], the squared distance of points float32[B, D], whitened, to the nearest mean."""
        whitened = (points - self.centre) @ self.whitening
        # By default cdist uses a matrix product for many rows, which loses the precision of small distances.
        distances = torch.cdist(whitened, self.means, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.min(dim=1).values.square()


def scale_to_length_one(features: Tensor) -> Tensor:
    """Return features [B, D] divided by their Euclidean length."""
    return functional.normalize(features, dim=1)


def check_scores(actual: Tensor, expected: Tensor, same_back_end: bool) -> None:
    """Raise if the probes' scores differ from the recorded ones.

    Raises:
        ShardError: A score differs by more than 0.001 of the largest, or 0.05 on another back end.
    """
    tolerance = SAME_BACK_END if same_back_end else OTHER_BACK_END
    worst = float((actual - expected).abs().max()) / max(float(expected.abs().max()), 1e-6)
    if not worst <= tolerance:
        raise ShardError(
            f"the probes' out-of-distribution scores differ from those recorded by {worst:.1e} of the largest (limit "
            f"{tolerance:g}); weights or libraries are not those of the decision. Run trainer.decide again"
        )


def write_detector(folder: Path, detector: Detector) -> tuple[str, str]:
    """Write a detector into a bundle's folder and return the file's name, which is unique to it, and its sha256."""
    data = save({name: tensor.contiguous() for name, tensor in vars(detector).items()})
    digest = fingerprint_bytes(data)
    # Named by content: the file that bundle.json names stays in place until bundle.json is replaced.
    name = f"{DETECTOR}{digest[:16]}.safetensors"
    with write_atomically(folder / name) as file:
        file.write(data)
    return name, digest


def read_detector(folder: Path, rule: OodRule) -> Detector:
    """Return the detector of a bundle; a damaged file raises the error of the file or tensor library.

    Raises:
        ShardError: The file is not the one that bundle.json names.
    """
    path = folder / rule.file
    if fingerprint_file(path) != rule.sha256:
        raise ShardError(f"{path}: sha256 differs from bundle.json; run trainer.decide again")
    return Detector(**load_file(path))
