"""The Python API of `import trainer`: recipes, runs, bundles, and functions for bundles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from shards.cli.messages import showing_messages_by_default
from shards.dataset.dataset import Dataset
from shards.dataset.split import Split
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
from trainer.report.page import REPORT
from trainer.run.launch import launch

Data = str | os.PathLike[str] | Dataset | Split
"""A dataset or one of its splits: an open one, or its location, `data/cells` or `data/cells:val`."""
BundleLike = str | os.PathLike[str] | Bundle


def load_recipe(recipe: str | os.PathLike[str], **changes: Any) -> Recipe:
    """Return a recipe with changes.

    Args:
        recipe: A YAML file, or the name of a built-in recipe.
        **changes: Options of the recipe, with groups as dictionaries: `load_recipe("smoke", data=data, epochs=3,
            optim={"peak_lr": 1e-3})`. Unnamed options of a group keep their values. `data` may be an open dataset.

    Raises:
        UsageError: The recipe or an option is unknown (with a suggestion), or a value is invalid.
    """
    return file.load_recipe(os.fspath(recipe), changes=_to_plain(changes))


def train(recipe: Recipe) -> Run:
    """Train, evaluate and bundle by a recipe, and return the run; a finished run is only opened.

    The same call resumes a stopped run without repeating work. Progress is logged; a notebook shows it.

    Raises:
        UsageError: The run's folder belongs to another recipe, or data or model do not fit.
        Interrupted: Stopped by Ctrl-C or a notebook's stop button; the state was saved.
    """
    return Run(launch(recipe).path)


class _Evaluations(dict[str, dict[str, Any]]):
    """Metrics by split; a split that is not there is refused with a sentence."""

    def __missing__(self, part: str) -> NoReturn:
        raise UsageError(
            f"the run was not evaluated on '{part}' but on {', '.join(self) or 'nothing'}; "
            f"evaluate_bundle(run.bundle, data['{part}']).metrics has its figures"
        )


class Run:
    """A finished run: its folder, metrics, report and bundle."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a finished run, `runs/NAME`.

        Raises:
            UsageError: There is no finished run.
        """
        self.folder = Path(folder)
        if not (self.folder / RECIPE).is_file():
            raise UsageError(f"{self.folder} is not a run (it has no {RECIPE}); name a folder such as runs/smoke")
        if not (self.folder / RESULT).is_file():
            raise UsageError(f"{self.folder} is not finished; `trainer.train` with its recipe resumes it")

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe it was trained with, with every option."""
        return file.load_recipe(str(self.folder / RECIPE))

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Content of `evaluation/SPLIT/metrics.json` by split, with intervals: `run.metrics["test"]["accuracy"]`."""
        return _Evaluations(RunFolder(self.folder).read_evaluations())

    @cached_property
    def bundle(self) -> Bundle:
        """The trained classifier, loaded and verified."""
        return Bundle.load(RunFolder(self.folder).bundle)

    @property
    def report(self) -> Path:
        """Path of report.html."""
        return self.folder / REPORT

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


def evaluate_bundle(bundle: BundleLike, data: Data, **options: Any) -> Evaluated:
    """Evaluate a bundle on labelled pictures; write the files, and return metrics and the output folder.

    Args:
        bundle: A loaded bundle, or its folder.
        data: A split of a packed dataset, or a folder, an archive or a list of labelled pictures.
        **options: Options of `python -m trainer.evaluate`: `out="evaluations/a"`, `positive="CAT"`, `by=("group",)`,
            ...

    Raises:
        UsageError: The bundle, data or an option is invalid.
        ShardError: The bundle or dataset is damaged.
    """
    given = {"bundle": _find_folder(bundle), "data": _locate(data), **_to_plain(options)}
    with showing_messages_by_default():
        return evaluate(EvaluateOptions(**given))


def decide_bundle(bundle: BundleLike, data: Data, **options: Any) -> Bundle:
    """Fit a bundle's decision, store it in the bundle, and return the bundle, reloaded.

    Args:
        bundle: A loaded bundle, or its folder.
        data: A validation split that the model was not trained on.
        **options: Options of `python -m trainer.decide`: `point="recall>=0.98"`, `positive="CAT"`, `conformal=0.9`,
            `ood=0.95`, `out="careful"` to leave the bundle unchanged, ...

    Raises:
        UsageError: The bundle, data or an option is invalid.
        ShardError: A goal cannot be reached; the bundle is then unchanged.
    """
    given = {"bundle": _find_folder(bundle), "data": _locate(data), **_to_plain(options)}
    with showing_messages_by_default():
        return Bundle.load(decide(DecideOptions(**given)).folder)


def export_bundle(bundle: BundleLike, to: ExportKind, **options: Any) -> Exported:
    """Export a bundle to another format, after comparing it with the bundle; return the file and its metadata.

    Args:
        bundle: A loaded bundle, or its folder.
        to: onnx, torch-export or torchscript.
        **options: Options of `python -m trainer.export`: `data="data/cells:val"`, `out="cells.onnx"`, ...

    Raises:
        UsageError: The bundle or an option is invalid, or libraries are missing.
        ShardError: The format does not support the model, or gives other results; then nothing is written.
    """
    given = {"bundle": _find_folder(bundle), "to": to, **_to_plain(options)}
    with showing_messages_by_default():
        return export(ExportOptions(**given))


def _find_folder(bundle: BundleLike) -> Path:
    if not isinstance(bundle, Bundle):
        return Path(bundle)
    if bundle.folder is None:
        raise UsageError("this bundle exists only in memory; save it, and load it from the folder")
    return bundle.folder


def _locate(data: Data) -> str:
    """Return the name of a dataset or split on the command line."""
    if isinstance(data, Split):
        return f"{data.location}:{data.name}"
    return data.location if isinstance(data, Dataset) else os.fspath(data)


def _to_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert datasets and paths in options to text, including groups."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            plain[name] = _to_plain(value)
        elif isinstance(value, (Dataset, Split)):
            plain[name] = _locate(value)
        else:
            plain[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return plain
