"""The Python API of `import tune`: spaces, sweeps, comparisons, reports, dashboards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.cli.messages import showing_messages_by_default
from shards.errors import UsageError
from trainer.recipes.recipe import Recipe
from tune.dashboard import make
from tune.dashboard.make import Dashboard
from tune.report import page
from tune.result import sweep as result
from tune.result.sweep import Sweep
from tune.run import sweep
from tune.run.options import SweepOptions
from tune.space import file
from tune.space.options import Space
from tune.stats.compare import Comparison, compare
from tune.stats.runs import read_variants


def load_space(space: str | os.PathLike[str] | Mapping[str, Any]) -> Space:
    """Return a space from a YAML file, from the name of a built-in one, or from its content as a dictionary.

    Raises:
        UsageError: There is no such space, or it is invalid.
    """
    return file.read_space(space) if isinstance(space, Mapping) else file.load_space(os.fspath(space))


def run_sweep(recipe: Recipe, space: Space, **options: Any) -> Sweep:
    """Screen the variants of a space, confirm the best, and return the sweep; a finished one is only opened.

    The same call resumes a stopped sweep.

    Args:
        recipe: What all variants share; its name is the sweep's, and its folder is `storage.root/name`.
        space: The variants.
        **options: Options of `python -m tune.run`: `seeds=5`, `screen_only=True`, `extend=True`, ...

    Raises:
        UsageError: The folder belongs to another sweep, or an option or the cluster does not fit.
        Interrupted: Stopped by Ctrl-C; the state was saved.
        ShardError: No trial finished, or too few to compare.
    """
    with showing_messages_by_default():
        return sweep.run_sweep(recipe, space, SweepOptions(**options))


def open_sweep(folder: str | os.PathLike[str]) -> Sweep:
    """Return the sweep in a folder, finished or not.

    Raises:
        UsageError: The folder is no sweep's.
    """
    return result.open_sweep(Path(folder))


def compare_runs(
    variants: Mapping[str, str | Sequence[str]], baseline: str | None = None, metric: str = "accuracy"
) -> Comparison:
    """Compare variants by runs that differ in their seeds.

    Args:
        variants: Name -> pattern, or patterns, of run folders or predictions.parquet files:
            `{"plain": "runs/plain-s*", "mixup": "runs/mixup-s*"}`.
        baseline: The variant that the others are compared with; None: the first.
        metric: accuracy, log_loss, balanced_accuracy, macro_f1 or auroc.

    Raises:
        UsageError: A pattern finds nothing, or the runs were evaluated on different pictures.
    """
    if not variants:
        raise UsageError("no variants to compare; give a dictionary of names and patterns")
    globs = {name: [each] if isinstance(each, str) else list(each) for name, each in variants.items()}
    return compare(read_variants(globs), baseline or next(iter(globs)), metric)


def write_report(sweep: Sweep | str | os.PathLike[str]) -> Path:
    """Write the page and tables of a sweep again, and return the path of the page.

    Raises:
        UsageError: The folder is no sweep's.
    """
    return page.write_report(sweep if isinstance(sweep, Sweep) else open_sweep(sweep))


def make_dashboard(sweep: Sweep | str | os.PathLike[str]) -> Dashboard:
    """Make the W&B workspace and report of a sweep; offline, their specs as files in its folder.

    Raises:
        UsageError: The folder is no sweep's, its runs were not tracked, or tracking is disabled.
        ConnectionError: W&B did not take them.
    """
    return make.make_dashboard(sweep if isinstance(sweep, Sweep) else open_sweep(sweep))
