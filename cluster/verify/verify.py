"""Verify an endpoint: it answers as a bundle does in process."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from cluster.client import Client
from cluster.verify.differences import Difference, Pair, Tolerance, list_differences
from cluster.verify.sample import Data, Sampled, draw_samples, read_probe_pictures
from shards.errors import DecodeError, UsageError
from trainer.contract import probes
from trainer.contract.bundle import Bundle
from trainer.contract.decision import ood
from trainer.contract.decision.decision import Answer

SAMPLES: Final = 200
_BATCH: Final = 32


@dataclass(frozen=True)
class Verified:
    """What was compared, and what differs."""

    url: str
    bundle: str
    """Fingerprint of the bundle in process."""
    served: str
    """Fingerprint that the endpoint states."""
    backend: str
    """The endpoint's back end, and why."""
    tolerance: float
    """Largest difference of logits that counts as equal, relative to the largest logit."""
    pictures: int
    differences: list[Difference]
    """One for each kind that was compared; `differs` is 0 where all agree."""

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return self.served == self.bundle and not any(each.differs for each in self.differences)

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON; a largest difference that is no number is None."""
        page = asdict(self)
        for each in page["differences"]:
            if each["largest"] is not None and not math.isfinite(each["largest"]):
                each["largest"] = None
        return {**page, "agrees": self.agrees}


def verify_endpoint(
    url: str,
    bundle: str | os.PathLike[str] | Bundle,
    data: Data | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    token: str | None = None,
) -> Verified:
    """Compare an endpoint's answers with those of a bundle in process.

    Logits are compared within the tolerance of the bundle's probes: 1e-4 of the largest if both compute in the same
    way, 2e-2 if the endpoint uses another back end or device.

    Args:
        url: The endpoint, for example http://127.0.0.1:8000.
        bundle: A loaded bundle on the CPU, or its folder.
        data: A dataset or one of its splits, `data/cells:val`; `test` if none is named. None: the bundle's probes.
        samples: Largest number of pictures, drawn from the split.
        seed: Of the draw.
        token: Of the endpoint.

    Raises:
        UsageError: There is no bundle, dataset or endpoint, or the token is refused.
        ShardError: The bundle or the dataset is damaged.
        OSError: The endpoint cannot be reached, or stays busy.
    """
    loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(Path(bundle))
    sampled = _read_probes(loaded) if data is None else draw_samples(data, samples, seed)
    with Client(url, token) as client:
        model = client.model()
        theirs = client.predict_many(each.data for each in sampled)
    own = answer_all(loaded, sampled)
    same = _computes_alike(model, loaded)
    tolerance = Tolerance(
        logits=probes.SAME_BACK_END if same else probes.OTHER_BACK_END,
        ood_score=ood.SAME_BACK_END if same else ood.OTHER_BACK_END,
    )
    pairs = [Pair(*each) for each in zip(sampled, theirs, own, strict=True)]
    return Verified(
        url=client.url,
        bundle=loaded.page.fingerprint(),
        served=str(model.get("fingerprints", {}).get("bundle")),
        backend=str(model.get("backend")),
        tolerance=tolerance.logits,
        pictures=len(sampled),
        differences=list_differences(loaded, pairs, tolerance),
    )


def _read_probes(bundle: Bundle) -> list[Sampled]:
    if bundle.folder is None:
        raise UsageError("this bundle exists only in memory and has no probes; give data")
    return read_probe_pictures(Path(bundle.folder))


def _computes_alike(model: dict[str, Any], bundle: Bundle) -> bool:
    """Return whether the endpoint computes as this bundle does: both with eager PyTorch, on a CPU."""
    found = re.match(r"computes with ([\w-]+)", str(model.get("backend", "")))
    theirs = found[1] if found else ""
    return bundle.backend is None and theirs == "eager" and model.get("device") == "cpu" == bundle.device.type


def answer_all(bundle: Bundle, sampled: Sequence[Sampled]) -> list[Answer | str]:
    """Return the bundle's answer for each picture, or the reason why it is refused."""
    answers: list[Answer | str] = []
    for start in range(0, len(sampled), _BATCH):
        prepared = [_prepare(bundle, each.data) for each in sampled[start : start + _BATCH]]
        images = [image for image in prepared if not isinstance(image, str)]
        outputs = iter(bundle.compute(torch.stack(images)) if images else ())
        answers += [image if isinstance(image, str) else bundle.answer(*next(outputs)) for image in prepared]
    return answers


def _prepare(bundle: Bundle, data: bytes) -> torch.Tensor | str:
    try:
        return bundle.prepare(data)
    except DecodeError as err:
        return str(err)
