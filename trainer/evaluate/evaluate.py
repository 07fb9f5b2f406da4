"""Evaluate a bundle on a split of a dataset or on unpacked pictures, or evaluate saved rows again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from shards.files.fingerprint import fingerprint_json
from shards.files.job_folder import refuse_job_folder
from shards.sources.list_form import parse_form
from shards.sources.location import name_split
from shards.storage.shown import show_location
from trainer.contract.bundle import read_bundle_page
from trainer.contract.task import make_task
from trainer.evaluate.bundle import evaluate_on_rank
from trainer.evaluate.columns import check_paths, check_samples, read_columns
from trainer.evaluate.files import METRICS, Judging, write_evaluation
from trainer.evaluate.labelled import Reading, choose_split, is_packed, list_labelled
from trainer.evaluate.matching import match_dataset
from trainer.evaluate.options import EvaluateOptions
from trainer.evaluate.positive import take_first
from trainer.evaluate.predictions import read_predictions
from trainer.evaluate.unpacked import evaluate_labelled
from trainer.ranks.processes import run_processes

EVALUATIONS = Path("evaluations")


@dataclass(frozen=True)
class Evaluated:
    """The content of metrics.json, and the folder with metrics, rows and figures."""

    metrics: dict[str, Any]
    folder: Path


def evaluate(options: EvaluateOptions) -> Evaluated:
    """Evaluate a bundle on pictures with labels, or saved rows without a model, and write the files.

    Raises:
        UsageError: The bundle, dataset, split or rows do not exist, or options do not fit them.
        ShardError: The bundle or dataset is damaged.
    """
    columns = read_columns(options.columns) if options.columns else None
    judging = Judging(options.positive, options.threshold, options.by, columns)
    if options.rows is not None:
        return _evaluate_rows(options.rows, options, judging)
    assert options.bundle is not None
    assert options.data is not None
    return _evaluate_bundle(options.bundle, options.data, options, judging)


def _evaluate_bundle(bundle: Path, data: str, options: EvaluateOptions, judging: Judging) -> Evaluated:
    location, named = name_split(data, default="")
    page = read_bundle_page(bundle)  # check for the most common mistakes before processes start
    reading = _read_reading(options)
    if not is_packed(location):
        judging.with_stored(take_first(bundle=page.positive)).check(make_task(page.task), page.classes)
        labelled = list_labelled(location, named, page, reading)
        if judging.columns is not None:
            check_paths(judging.columns, [source.name for source in labelled.sources])
        out = options.out or _default_out(labelled.part, bundle=page.fingerprint(), source=labelled.where)
        task = (bundle, labelled, out, options.workers, judging)
        return Evaluated(run_processes(evaluate_labelled, task, options.num_ranks), out)
    dataset = open_dataset(location).require_labels()
    if option := reading.name_given():
        raise UsageError(f"{option} is only for unpacked pictures, but {location} is a packed dataset; remove it")
    part = choose_split(show_location(location), list(dataset.manifest.splits), named)
    match, split = match_dataset(page, dataset, part), dataset.split(part)
    judging = judging.with_stored(take_first(bundle=page.positive, dataset=match.find(dataset.manifest.positive)))
    judging.check(make_task(page.task), page.classes)
    if judging.columns is not None:
        check_samples(judging.columns, split)
    out = options.out or _default_out(part, bundle=page.fingerprint(), dataset=dataset.fingerprint())
    packed = (bundle, location, part, out, options.workers, judging)
    return Evaluated(run_processes(evaluate_on_rank, packed, options.num_ranks), out)


def _default_out(part: str, **evaluated: str) -> Path:
    """Return evaluations/SPLIT, or a folder beside it where that has the evaluation of something else.

    Args:
        part: The split.
        evaluated: Fingerprint of the bundle, and of the dataset or the name of the source.
    """
    out = refuse_job_folder(EVALUATIONS / part)
    try:
        before = json.loads((out / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return out
    if all(before.get(name) == value for name, value in evaluated.items()):
        return out
    return out.with_name(f"{part}-{fingerprint_json(evaluated)[:8]}")


def _read_reading(options: EvaluateOptions) -> Reading:
    form = parse_form(
        option="--list-columns",
        columns=options.list_columns,
        base=options.base,
        ending=options.ending,
        one_hot=options.one_hot,
        labels_as=options.labels_as,
        empty_labels=options.empty_labels,
    )
    return Reading(options.layout, options.group_regex, options.names, form)


def _evaluate_rows(rows: Path, options: EvaluateOptions, judging: Judging) -> Evaluated:
    predictions = read_predictions(rows)
    name = "again" if options.threshold is None else f"threshold-{options.threshold:g}"
    out = options.out or rows.parent / name
    if out.absolute() == rows.absolute().parent:
        raise UsageError(f"--out {out} is the folder of --rows, whose files would be overwritten; choose another one")
    return Evaluated(write_evaluation(out, predictions, judging), out)
