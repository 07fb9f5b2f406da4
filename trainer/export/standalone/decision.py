"""Decision: logits float32[K] and features float32[F] -> the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.export.standalone.geometry import Floats


def decide(
    logits: npt.NDArray[Any], classes: list[str], decision: dict[str, Any], score: float | None
) -> dict[str, Any]:
    """Return label, probabilities, ..., by `decision` of the metadata; `score` is the Detector's if it has `ood`."""
    numbers = logits.astype(np.float64) / decision.get("temperature", 1.0)
    if priors := decision.get("priors"):
        numbers = numbers + (np.log(priors["deploy"]) - np.log(priors["train"]))
    reasons: list[bool] = []
    if decision["rule"] == "each":
        answer = _decide_each(numbers, classes, decision)
    else:
        answer, reasons = _decide_one(numbers, classes, decision)
    if ood := decision.get("ood"):
        answer["ood_score"] = score
        reasons.append(score is None or not score <= ood["threshold"])
    if "fitted" in decision:
        answer["abstain"] = any(reasons)
    return answer | {"logits": logits.tolist()}


def _decide_one(numbers: Floats, classes: list[str], decision: dict[str, Any]) -> tuple[dict[str, Any], list[bool]]:
    powers = np.exp(numbers - numbers.max())
    shares, best = powers / powers.sum(), int(numbers.argmax())
    reasons: list[bool] = []
    if point := decision.get("point"):
        positive = classes.index(point["positive"])
        others = np.where(np.arange(len(classes)) == positive, -1.0, shares)
        best = positive if shares[positive] >= point["threshold"] else int(others.argmax())
    answer = _describe(classes[best], [classes[best]], shares[best], shares, classes)
    if "fitted" in decision:
        answer["decision"] = classes[best]
        if sets := decision.get("conformal"):
            answer["set"] = [classes[member] for member in _find_members(shares, sets)]
            reasons.append(len(answer["set"]) != 1)
        reasons.append(bool(shares.max() < decision.get("abstain_below", 0.0)))
    return answer, reasons


def _decide_each(numbers: Floats, classes: list[str], decision: dict[str, Any]) -> dict[str, Any]:
    with np.errstate(over="ignore"):
        shares = 1 / (1 + np.exp(-numbers))
    own = {point["positive"]: point["threshold"] for point in decision.get("points", [])}
    there = shares >= np.array([own.get(name, 0.5) for name in classes])
    best = int(np.where(there, numbers, -np.inf).argmax()) if there.any() else int(numbers.argmax())
    labels = [name for name, is_there in zip(classes, there, strict=True) if is_there]
    return _describe(classes[best] if there[best] else None, labels, shares[best], shares, classes)


def _describe(label: str | None, labels: list[str], share: float, shares: Floats, classes: list[str]) -> dict[str, Any]:
    probabilities = dict(zip(classes, shares.tolist(), strict=True))
    return {"label": label, "labels": labels, "probability": float(share), "probabilities": probabilities}


def _find_members(shares: Floats, sets: dict[str, Any]) -> list[int]:
    """Return the classes of the conformal set, the most probable first."""
    order = np.argsort(-shares, kind="stable")
    scores = 1 - shares
    if sets["score"] == "aps":
        scores[order] = np.cumsum(shares[order])
    return [int(member) for member in order if scores[member] <= sets["thresholds"][member] + 1e-9]


class Detector:
    """Out-of-distribution score of features: the squared Mahalanobis distance to the nearest class mean."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()  # safetensors: header length, header, numbers
        start = 8 + int.from_bytes(data[:8], "little")
        facts = json.loads(data[8:start])
        self._tensors: dict[str, Floats] = {}
        for name in ("centre", "whitening", "means"):
            first, last = (start + offset for offset in facts[name]["data_offsets"])
            numbers = np.frombuffer(data[first:last], "<f4").reshape(facts[name]["shape"])
            self._tensors[name] = numbers.astype(np.float64)

    def score(self, features: npt.NDArray[Any]) -> float:
        """Return the score of features float32[F]."""
        length = max(float(np.linalg.norm(features)), 1e-12)
        whitened = (features / length - self._tensors["centre"]) @ self._tensors["whitening"]
        return float(((self._tensors["means"] - whitened) ** 2).sum(axis=1).min())
