"""The bench: what it measures is in its JSON, its table and its figure alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shards.cli.ending import run_command
from shards.errors import UsageError
from trainer.bench.__main__ import main
from trainer.bench.bench import bench
from trainer.bench.bench_page import PUBLISHED, BenchPage, draw_figure, draw_table
from trainer.bench.options import BenchOptions
from trainer.contract.compute.choice import load_with_backend


@pytest.fixture(scope="module")
def folder(exported_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(exported_path, tmp_path_factory.mktemp("bench") / "bundle"))


@pytest.fixture(scope="module")
def out(folder: Path, pictures: Path) -> Path:
    """What a bench of two back ends wrote."""
    out = folder.parent / "out"
    arguments = ["--backend", "eager,onnx", "--batch-size", "1,3", "--seconds", "0.01", "--choose", "--threads", "1"]
    assert run_command(main, [str(folder), *arguments, "--data", str(pictures / "test"), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def page(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "bench.json").read_bytes())
    return content


def test_the_table_shows_the_numbers_of_the_json(out: Path, page: dict[str, Any]) -> None:
    lines = (out / "table.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ") and line.count("|") == 14]
    shown = {(name, size): cells for name, size, *cells in rows}
    assert [(row["backend"], row["batch_size"]) for row in page["rows"]] == [
        ("eager", 1), ("onnx", 1), ("eager", 3), ("onnx", 3),
    ]  # fmt: skip
    for row in page["rows"]:
        model, whole = row["model"], row["whole"]
        cells = [float(cell) for cell in shown[row["backend"], str(row["batch_size"])]]
        expected = [
            model["p50_ms"], model["p95_ms"], model["p50_ms_per_picture"], row["cpu_ms_per_picture"],
            model["images_per_s"],
            whole["p50_ms"], whole["p95_ms"], whole["images_per_s"],
            row["prepare_ms"], row["assemble_ms"], row["rounds"],
        ]  # fmt: skip
        assert cells == pytest.approx(expected, abs=0.051)


def test_python_measures_back_ends_with_so_many_threads_and_leaves_torch_its_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    kind = {"backend": ("eager",), "batch_size": (2,), "seconds": 0.01, "threads": before + 1}
    done = bench(BenchOptions(bundle=folder, out=tmp_path / "out", **kind))
    assert ([(row.backend, row.batch_size) for row in done.page.rows], done.page.threads) == (
        [("eager", 2)],
        before + 1,
    )
    assert done.page.pictures.endswith(" of probes")
    assert done.folder == tmp_path / "out"
    assert BenchPage.model_validate_json((done.folder / "bench.json").read_bytes()) == done.page
    assert (torch.get_num_threads(), capsys.readouterr().out) == (before, "")


def test_the_numbers_agree_with_each_other(page: dict[str, Any]) -> None:
    for row in page["rows"]:
        assert row["rounds"] >= 5
        for clock in (row["model"], row["whole"]):
            assert 0 < clock["p50_ms"] <= clock["p95_ms"]
            assert clock["p50_ms_per_picture"] == pytest.approx(clock["p50_ms"] / row["batch_size"])
            # The mean of at least 5 times is not below a tenth of their median.
            assert clock["images_per_s"] < 10_000 * row["batch_size"] / clock["p50_ms"]
        assert row["prepare_ms"] + row["assemble_ms"] < row["whole"]["p95_ms"]


def test_the_page_says_where_and_on_what_it_was_measured(page: dict[str, Any], pictures: Path) -> None:
    assert page["pictures"] == f"24 of {pictures / 'test'}"
    assert (page["model"], page["image_size"], page["device"], page["threads"]) == ("timm/test_resnet", 40, "cpu", 1)
    assert set(page["back_ends"]) == {"eager", "onnx"}
    assert page["back_ends"]["onnx"]["parity"]["pictures"] == 24
    assert page["back_ends"]["onnx"]["keeps_parity"] is True
    assert page["published"] == []


def test_the_figure_has_a_line_for_each_back_end(out: Path) -> None:
    pixels = np.asarray(Image.open(out / "bench.png").convert("RGB"))
    for colour in ((31, 119, 180), (255, 127, 14)):  # the first two of matplotlib's cycle
        assert (np.abs(pixels.astype(int) - colour).max(axis=2) < 8).sum() > 100


def test_no_line_of_the_figure_is_cut_off(page: dict[str, Any]) -> None:
    content = BenchPage.model_validate(page)
    slow, quick = (row.model_copy(update={"batch_size": size}) for row, size in zip(content.rows, (1, 8), strict=False))
    quick = quick.model_copy(update={"whole": slow.model.model_copy(update={"images_per_s": 1e6})})
    for axes in draw_figure(content.model_copy(update={"rows": [slow, quick]})).axes:
        highest = max(float(max(line.get_ydata(), default=0)) for line in axes.get_lines())
        assert 0 < highest < axes.get_ylim()[1]
        assert axes.get_ylim()[0] == 0


def test_what_was_chosen_is_what_serving_takes(folder: Path, page: dict[str, Any]) -> None:
    bundle, why = load_with_backend(folder)
    chosen = "eager" if bundle.backend is None else bundle.backend.name
    assert chosen == page["chosen"]
    assert why.startswith(f"computes with {chosen}, the fastest on ")
    speed = {
        name: np.prod([row["model"]["images_per_s"] for row in page["rows"] if row["backend"] == name])
        for name in ("eager", "onnx")
    }
    assert chosen == max(speed, key=lambda name: float(speed[name]))


def test_the_tutorials_numbers_stand_beside_those_of_their_model(page: dict[str, Any]) -> None:
    table = draw_table(BenchPage.model_validate({**page, "published": [each.model_dump() for each in PUBLISHED]}))
    assert "| GTX 1080 Ti | 128 | 191 |" in table
    assert "| i7-11800H | 128 | 24.3 |" in table
    assert "1080" not in draw_table(BenchPage.model_validate(page))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--backend", "onnx", "--choose"],
            "--choose needs eager, the fallback of serving, for comparison; add it to --backend",
        ),
        (["--device", "cuda", "--choose"], "--choose is for CPUs, serving uses eager on a GPU; remove --device"),
        (["--seconds", "0"], "--seconds must be above 0, got 0"),
        (["--threads", "0"], "--threads is a number of threads and must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_mistake_of_the_caller_is_one_sentence(
    folder: Path, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [str(folder), *more]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


@pytest.mark.parametrize("more", [["--backend", "eagre"], ["--batch-size", "0"], ["--batch-size", "x"]])
def test_unknown_back_ends_and_sizes_are_refused(folder: Path, more: list[str]) -> None:
    with pytest.raises(UsageError, match=more[0]):
        main([str(folder), *more])
