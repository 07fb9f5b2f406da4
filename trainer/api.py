"""What `import trainer` offers: recipes, runs, bundles, and what is done with a bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from shards.cli.messages import showing_messages_by_default
from shards.dataset.dataset import Dataset, Split
from shards.errors import UsageError
from trainer.contract.bundle import Bundle
from trainer.contract.model.names import ExportKind
from trainer.decide.decide import decide
from trainer.decide.options import DecideOptions
from trainer.evaluate.evaluate import Evaluated, evaluate
from trainer.evaluate.options import EvaluateOptions
from trainer.export.export import Exported, export
from trainer.export.options import ExportOptions
from trainer.recipes import file
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import RECIPE, RESULT, RunFolder
from trainer.run.launch import launch

Data = str | os.PathLike[str] | Dataset | Split
"""A dataset or one of its splits: opened, or its location, `data/cells` or `data/cells:val`."""
BundleLike = str | os.PathLike[str] | Bundle


def load_recipe(recipe: str | os.PathLike[str], **changes: Any) -> Recipe:
    """Return a recipe, changed.

    Args:
        recipe: A YAML file, or the name of a recipe that ships with the project.
        **changes: Options of the recipe; groups as dictionaries, of which the options that are not named stay as they
            are: `load_recipe("smoke", data=data, epochs=3, optim={"peak_lr": 1e-3})`. `data` may be an opened dataset.

    Raises:
        UsageError: No such recipe, an unknown option (with a suggestion), or a bad value.
    """
    return file.load_recipe(os.fspath(recipe), changes=_to_plain(changes))


def train(recipe: Recipe) -> Run:
    """Train, evaluate and bundle as a recipe says, and return the run; a finished one is only opened.

    A run that was stopped is resumed by the same call, and nothing is computed twice. Where it stands is logged; in a
    notebook it is shown.

    Raises:
        UsageError: The run's folder belongs to another recipe, or data or model do not fit.
        Interrupted: Stopped by Ctrl-C, or by the stop button of a notebook; the state was saved.
    """
    return Run(launch(recipe).path)


class Run:
    """A finished run: its folder, what came out of it, and its bundle."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a finished run, `runs/NAME`.

        Raises:
            UsageError: There is none.
        """
        self.folder = Path(folder)
        if not (self.folder / RECIPE).is_file():
            raise UsageError(f"{self.folder} is no run (it has no {RECIPE}); name a folder such as runs/smoke")
        if not (self.folder / RESULT).is_file():
            raise UsageError(f"{self.folder} is not finished; `trainer.train` with its recipe resumes it")

    @cached_property
    def recipe(self) -> Recipe:
        """What it was trained by, every option included."""
        return file.load_recipe(str(self.folder / RECIPE))

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """By split what `evaluation/SPLIT/metrics.json` holds, with intervals: `run.metrics["test"]["accuracy"]`."""
        return RunFolder(self.folder).read_evaluations()

    @cached_property
    def bundle(self) -> Bundle:
        """The trained classifier, loaded and checked."""
        return Bundle.load(RunFolder(self.folder).bundle)

    @property
    def report(self) -> Path:
        """The page about the run, for a browser."""
        return self.folder / "report.html"

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


def evaluate_bundle(bundle: BundleLike, data: Data, **options: Any) -> Evaluated:
    """Evaluate a bundle on pictures with labels and write the files; return metrics and the folder of the files.

    Args:
        bundle: Loaded, or its folder.
        data: A split of a packed dataset, or a folder, an archive or a list of labelled pictures.
        **options: Those of `python -m trainer.evaluate`: `out="evaluations/a"`, `positive="CAT"`, `by=("group",)`, ...

    Raises:
        UsageError: No such bundle, data or option.
        ShardError: A damaged bundle or dataset.
    """
    given = {"bundle": _find_folder(bundle), "data": _locate(data), **_to_plain(options)}
    with showing_messages_by_default():
        return evaluate(EvaluateOptions(**given))


def decide_bundle(bundle: BundleLike, data: Data, **options: Any) -> Bundle:
    """Fit how a bundle's logits become decisions, store it in the bundle, and return that, loaded anew.

    Args:
        bundle: Loaded, or its folder.
        data: A validation split that the model was not trained on.
        **options: Those of `python -m trainer.decide`: `point="recall>=0.98"`, `positive="CAT"`, `conformal=0.9`,
            `ood=0.95`, `out="careful"` to leave the bundle as it is, ...

    Raises:
        UsageError: No such bundle, data or option.
        ShardError: A goal that cannot be reached; the bundle is unchanged then.
    """
    given = {"bundle": _find_folder(bundle), "data": _locate(data), **_to_plain(options)}
    with showing_messages_by_default():
        return Bundle.load(decide(DecideOptions(**given)).folder)


def export_bundle(bundle: BundleLike, to: ExportKind, **options: Any) -> Exported:
    """Write a bundle as a file of another format, compared with it before it is there; return the file and its page.

    Args:
        bundle: Loaded, or its folder.
        to: onnx, torch-export or torchscript.
        **options: Those of `python -m trainer.export`: `data="data/cells:val"`, `out="cells.onnx"`, ...

    Raises:
        UsageError: No such bundle or option, or libraries that are missing.
        ShardError: The format cannot hold the model, or answers otherwise; nothing is left behind then.
    """
    given = {"bundle": _find_folder(bundle), "to": to, **_to_plain(options)}
    with showing_messages_by_default():
        return export(ExportOptions(**given))


def _find_folder(bundle: BundleLike) -> Path:
    if not isinstance(bundle, Bundle):
        return Path(bundle)
    if bundle.folder is None:
        raise UsageError("this bundle was made in memory and has no folder; save it, and load it from there")
    return bundle.folder


def _locate(data: Data) -> str:
    """Return a dataset or a split as the command line names it."""
    if isinstance(data, Split):
        return f"{data.location}:{data.name}"
    return data.location if isinstance(data, Dataset) else os.fspath(data)


def _to_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with datasets and paths as text, in groups too."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            plain[name] = _to_plain(value)
        elif isinstance(value, (Dataset, Split)):
            plain[name] = _locate(value)
        else:
            plain[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return plain
