"""The foreign pictures of `trainer.decide --ood`, how many are flagged, and the scores that flag them."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shards.dataset.dataset import open_dataset
from shards.dataset.read import SampleReader
from shards.errors import ShardError
from shards.pictures.decode import decode
from trainer.contract.bundle import Bundle
from trainer.decide.__main__ import main
from trainer.decide.decide import decide
from trainer.decide.foreign import EACH, make_foreign
from trainer.decide.gaussians import fit_residual
from trainer.decide.options import DecideOptions
from trainer.export.standalone.decision import Detector as Standalone


@pytest.mark.parametrize("score", ["residual", "mahalanobis"])
def test_what_is_printed_as_flagged_is_what_predictions_flag(
    score: str, bundle_path: Path, dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(bundle_path, tmp_path / "bundle"))
    assert main([str(folder), str(dataset_path), "--ood", "0.9", "--ood-score", score, "--no-temperature"]) == 0
    printed = capsys.readouterr().out
    bundle = Bundle.load(folder)
    assert bundle.page.decision.ood is not None
    assert bundle.page.decision.ood.score == score
    with SampleReader(open_dataset(dataset_path).split("val")) as reader:
        own = [decode(sample.data) for sample in reader.read(0, np.arange(reader._split.counts[0]))]
    flagged = []
    for kind, pictures in make_foreign(own).items():
        hits = 0
        for pixels in pictures:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            hits += bool(bundle.answer(*bundle.compute(bundle.prepare(file.getvalue())[None])[0]).abstain)
        flagged.append((kind, hits, len(pictures)))
    for kind, hits, number in flagged[:3]:  # the others are of more shards than the first
        assert f"{hits} of {number} {kind}" in printed
    assert [kind for kind, *_ in flagged] == ["noise", "flat", "photographs", "inverted", "turned", "dark"]
    assert all(f"of {min(EACH, 24)} {kind}" in printed for kind in ("inverted", "turned", "dark"))


def test_foreign_pictures_are_the_same_each_time() -> None:
    own = [np.arange(60, dtype=np.uint8).reshape(4, 5, 3)]
    first, again = make_foreign(own), make_foreign(own)
    for kind, pictures in first.items():
        assert len(pictures) == (EACH if kind in ("noise", "flat", "photographs") else 1)
        assert all(np.array_equal(*pair) for pair in zip(pictures, again[kind], strict=True))
    assert np.array_equal(first["inverted"][0].astype(int) + own[0], np.full((4, 5, 3), 255))
    assert np.array_equal(np.rot90(first["turned"][0], -1), own[0])
    assert all(len(np.unique(pixels.reshape(-1, 3), axis=0)) == 1 for pixels in first["flat"])


def test_residual_is_the_squared_distance_from_the_main_plane(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(0, 1, (400, 2)) @ np.array([[3.0, 0, 0, 0], [0, 2.0, 0, 0]])
    points = (plane + rng.normal(0, 1e-3, (400, 4)) + 5).astype(np.float32)
    detector = fit_residual(points)
    moved = torch.tensor([[5.0, 5, 5, 5], [9.0, -3, 5, 5], [5.0, 5, 7, 5], [5.0, 5, 8, 9]])
    assert detector.measure(moved).tolist() == pytest.approx([0, 0, 4, 25], abs=0.02)


def test_program_of_an_export_gives_the_same_score(bundle_path: Path, dataset_path: Path, tmp_path: Path) -> None:
    decide(
        DecideOptions(bundle=bundle_path, data=str(dataset_path), ood=0.9, temperature=False, out=tmp_path / "bundle")
    )
    bundle = Bundle.load(tmp_path / "bundle")
    rule, detector = bundle.page.decision.ood, bundle.detector
    assert rule is not None
    assert detector is not None
    features = torch.randn((5, rule.features), generator=torch.Generator().manual_seed(0))
    program, scores = Standalone(tmp_path / "bundle" / rule.file), detector.score(features).tolist()
    assert [program.score(row) for row in features.numpy()] == pytest.approx(scores, rel=1e-4)


@pytest.mark.parametrize(
    ("points", "sentence"), [(np.ones((1, 4)), "no main directions"), (np.ones((9, 4)), "not vary")]
)
def test_residual_needs_pictures_that_differ(points: np.ndarray, sentence: str) -> None:
    with pytest.raises(ShardError, match=sentence):
        fit_residual(points.astype(np.float32))
