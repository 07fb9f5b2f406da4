"""docs/python.md is run top to bottom, and its notebook in a real kernel."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "docs/first_steps.ipynb"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `pictures/cat` and `pictures/dog`, which is the current one; a class is its colour."""
    rng = np.random.default_rng(0)
    for name, colour in {"cat": (200, 80, 60), "dog": (60, 80, 200)}.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(60):
            pixels = rng.normal(colour, 40, (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def list_blocks() -> list[tuple[bool, str]]:
    """Return whether each block of Python needs an endpoint, and its text."""
    found = re.findall(r"(<!-- needs an endpoint -->\n)?```python\n(.*?)```", PAGE, re.DOTALL)
    return [(bool(mark), code) for mark, code in found]


@pytest.mark.filterwarnings("default")  # as for whoever types it: Lightning and torch's exporter warn
def test_the_page_runs_from_top_to_bottom(workplace: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for needs_endpoint, code in list_blocks():
            if not needs_endpoint:
                exec(compile(code, "docs/python.md", "exec"), names)
    lines = printed.getvalue().splitlines()
    assert lines[0] == f"{workplace}/data/cells: 2 classes, train 72, val 24, test 24"
    assert lines[1].endswith("runs/smoke/report.html")
    assert names["answer"].label in ("cat", "dog")
    assert names["evaluated"].metrics["accuracy"] == names["run"].metrics["test"]["accuracy"]
    assert names["exported"].file.is_file()
    assert names["images"].shape == (64, 3, 32, 32)
    assert (names["pixels"].shape, names["label"] in (0, 1)) == ((40, 40, 3), True)


def test_one_block_alone_needs_an_endpoint() -> None:
    """What it calls is proven on a real endpoint in tests/test_cluster_verify.py."""
    marked = [code for needs_endpoint, code in list_blocks() if needs_endpoint]
    assert len(marked) == 1
    assert "cluster.Client(" in marked[0]
    compile(marked[0], "docs/python.md", "exec")


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel_and_shows_bars_and_answers(workplace: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    notebook.cells.append(nbformat.v4.new_code_cell("answer"))  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(workplace)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert "epoch 3/3" in printed
    assert "%|" in printed, "no bar of tqdm was drawn"
    shown = notebook.cells[-1].outputs[0].data["text/html"]
    assert shown.startswith("<table>")
    assert "cat" in shown
