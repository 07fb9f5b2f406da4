"""Scores of how far a picture is from training's, compared on one bundle: which tells other pictures from its own?

`PYTHONPATH=. python tests/bench/ood.py BUNDLE DATA --out RESULT.md`. Gaussians and neighbours are those of train, its
own pictures are test, the others are look-alikes of other recipes' data and damaged pictures of test.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pack import describe_run
from PIL import Image, ImageFilter, ImageOps
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

from shards.dataset.dataset import open_dataset
from trainer.contract.bundle import Bundle
from trainer.contract.model.features import FeatureTap
from trainer.decide.decision import Seen
from trainer.decide.gaussians import fit_gaussians
from trainer.decide.seeing import Viewer, see_part
from trainer.ranks.ranks import single_rank
from trainer.recipes.data.lookalike import LOOK_ALIKES, make_pictures

Floats = npt.NDArray[np.float64]
PICTURES = 150
LEGEND = (
    f"AUROC against the test part / share of the other pictures that a threshold lets in which keeps 95 % of the test "
    f"part. {PICTURES} other pictures of a kind; Gaussians, components and neighbours are those of train."
)


def make_others(folder: Path, own: list[Path]) -> dict[str, list[bytes]]:
    """Encoded pictures by what they are; nothing is downloaded."""
    others = {
        f"{name} (look-alike)": [data for _, data in make_pictures(LOOK_ALIKES[name], PICTURES, 7, 256, False)]
        for name in ("chest_xray", "covid_ct", "posters", "digits", "elpv")
    }
    rng = np.random.default_rng(0)
    chosen = [Image.open(own[k]).convert("L") for k in rng.choice(len(own), PICTURES, replace=False)]
    damages: dict[str, Callable[[Image.Image], Image.Image]] = {
        "own, blurred": lambda image: image.filter(ImageFilter.GaussianBlur(6)),
        "own, noisy": lambda image: Image.fromarray(
            (np.asarray(image, np.float64) + rng.normal(0, 50, (image.height, image.width)))
            .clip(0, 255)
            .astype("uint8")
        ),
        "own, negative": ImageOps.invert,
        "own, a quarter of it": lambda image: image.crop((0, 0, image.width // 2, image.height // 2)),
        "own, darkened": lambda image: image.point(lambda value: value * 0.3),
    }
    return others | {name: [_encode(damage(image)) for image in chosen] for name, damage in damages.items()}


def _encode(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@torch.inference_mode()
def see(bundle: Bundle, pictures: list[bytes]) -> tuple[Floats, Floats]:
    """Logits and features of encoded pictures."""
    tap, logits, features = FeatureTap(bundle.model), [], []
    for start in range(0, len(pictures), 32):
        images = torch.stack([bundle.prepare(data) for data in pictures[start : start + 32]])
        logits.append(bundle.compute_logits(images))
        features.append(tap.take())
    tap.close()
    return torch.cat(logits).double().numpy(), torch.cat(features).double().numpy()


def _unit(points: Floats) -> Floats:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _mahalanobis(train: Floats, labels: npt.NDArray[np.int64]) -> Callable[[Floats], Floats]:
    detector = fit_gaussians(train.astype(np.float32), labels)
    return lambda points: detector.measure(torch.from_numpy(points).float()).double().numpy()


def make_scores(train: Seen, head: Any) -> dict[str, Callable[[Floats, Floats], Floats]]:
    """Functions of logits and features; higher is farther."""
    points, labels, one = train.features.astype(np.float64), train.labels, np.zeros(len(train.labels), dtype=np.int64)
    plain, unit = _mahalanobis(points, labels), _mahalanobis(_unit(points), labels)
    plain_one, unit_one = _mahalanobis(points, one), _mahalanobis(_unit(points), one)
    neighbours = _unit(points)
    virtual = _make_vim(points, train.logits.astype(np.float64), head)
    return {
        "Mahalanobis, length 1 (ours)": lambda _, f: unit(_unit(f)),
        "Mahalanobis (Lee 2018)": lambda _, f: plain(f),
        "relative Mahalanobis, length 1": lambda _, f: unit(_unit(f)) - unit_one(_unit(f)),
        "relative Mahalanobis (Ren 2021)": lambda _, f: plain(f) - plain_one(f),
        "ViM (Wang 2022)": virtual,
        "10th neighbour, length 1 (Sun 2022)": lambda _, f: -np.sort(_unit(f) @ neighbours.T, axis=1)[:, -10],
        "energy (Liu 2020)": lambda z, _: -logsumexp(z, axis=1),
        "1 - largest probability": lambda z, _: 1 - softmax(z, axis=1).max(axis=1),
    }


def _make_vim(points: Floats, logits: Floats, head: Any) -> Callable[[Floats, Floats], Floats]:
    """Length of what lies outside the largest components, as one more logit."""
    weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    origin = -np.linalg.pinv(weight) @ bias
    values, vectors = np.linalg.eigh(np.cov((points - origin).T, bias=True))
    rest = vectors[:, np.argsort(values)[: points.shape[1] - points.shape[1] // 4]]
    scale = logits.max(axis=1).mean() / np.linalg.norm((points - origin) @ rest, axis=1).mean()
    return lambda z, f: np.linalg.norm((f - origin) @ rest, axis=1) * scale - logsumexp(z, axis=1)


def compare(bundle: Bundle, data: Path, pictures: Path) -> list[list[str]]:
    """Rows (others, then AUROC / rate of others that 95 % of own leave in, for each score)."""
    from trainer.contract.model.head import find_head

    viewer = Viewer(bundle, open_dataset(data), single_rank(), 2)
    train, own = (see_part(viewer, part, with_features=True) for part in ("train", "test"))
    scores = make_scores(train, bundle.model.backbone.get_submodule(find_head(bundle.model.backbone)))
    inside = {
        name: score(own.logits.astype(np.float64), own.features.astype(np.float64)) for name, score in scores.items()
    }
    rows = [["other pictures", *scores]]
    for name, encoded in make_others(data, sorted((pictures / "test").glob("*/*"))).items():
        logits, features = see(bundle, encoded)
        cells = []
        for kind, score in scores.items():
            outside = score(logits, features)
            truth = np.repeat([0, 1], [len(inside[kind]), len(outside)])
            auroc = roc_auc_score(truth, np.concatenate([inside[kind], outside]))
            cells.append(f"{auroc:.3f} / {(outside <= np.quantile(inside[kind], 0.95)).mean():.0%}")
        rows.append([name, *cells])
        print(" | ".join(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="dataset with train and test")
    parser.add_argument("pictures", type=Path, help="the folder that it was packed from")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    described = describe_run()
    rows = compare(Bundle.load(arguments.bundle), arguments.data, arguments.pictures)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    arguments.out.write_text("\n".join(["# Out-of-distribution scores", "", *described, "", LEGEND, "", *lines, ""]))


if __name__ == "__main__":
    main()
