"""The result of a run: a sentence at the top of the report, and a table comparing the splits."""

from __future__ import annotations

from typing import Any

from trainer.contract.metrics import describe_headline, is_of_positive, list_metrics, spell_metric
from trainer.evaluate.baseline import Baseline, describe_baseline, find_baseline
from trainer.evaluate.positive import list_lines, read_positive
from trainer.report.data import count_classes
from trainer.report.markup import escape, show_table
from trainer.report.sources import Evaluation, Finished

SPELT = {"val": "validation"}
"""Splits whose display name differs from the folder's."""
_FLATTERS = "The best epoch was chosen on validation, so its metrics are slightly too good; test was not used for that."


def spell_figure(name: str, metrics: dict[str, Any], shown: dict[str, str]) -> str:
    """Return the display name of a metric, with the positive class if the metric is about it.

    shown: Display names by class name.
    """
    positive, spelt = read_positive(metrics), spell_metric(name)
    if positive is None or not is_of_positive(name, len(metrics["per_class"])):
        return spelt
    return f"{spelt} ({shown.get(positive.name, positive.name)})"


def describe_result(run: Finished, evaluation: Evaluation) -> str:
    """Return the result on a split in a sentence, with the baseline."""
    metrics, part = evaluation.metrics, SPELT.get(evaluation.part, evaluation.part)
    told = f"The model reaches {describe_headline(metrics)} on the {metrics['samples']:,} {part} pictures"
    baseline = describe_baseline(metrics, run.display_names)
    return f"{told}; {baseline}." if baseline else f"{told}."


def tell_result(run: Finished, evaluation: Evaluation) -> str:
    """Return the result as a paragraph, with the number of positive pictures found."""
    return f"<p class=big>{escape(describe_result(run, evaluation))}</p>{tell_positive(run, evaluation.metrics)}"


def list_positive(run: Finished, metrics: dict[str, Any]) -> list[str]:
    """Return sentences on the positive class and how many of its pictures were found; [] without one."""
    lines = list_lines(metrics, "`python -m trainer.report RUN --positive CLASS` chooses another", run.display_names)
    return [f"{line[0].upper()}{line[1:]}." for line in lines]


def tell_positive(run: Finished, metrics: dict[str, Any]) -> str:
    """Return the sentences of `list_positive` as paragraphs."""
    lines = zip(("found", "soft"), list_positive(run, metrics), strict=False)
    return "".join(f"<p class={kind}>{escape(line)}</p>" for kind, line in lines)


def tell_splits(run: Finished) -> str:
    """Return a table of the metrics that all splits have, side by side, with the baseline."""
    columns: dict[str, dict[str, Any]] = {each.part: each.metrics for each in run.evaluations}
    columns.setdefault("val", {"intervals": {}, **(run.page.metrics or {})})
    baselines = {part: _find_baseline(run, part) for part in columns}
    task, there = run.page.task, list(columns.values())
    keys = [row.key for place in ("headline", "slice") for row in list_metrics(task, place)]
    body = [
        [spell_figure(key, there[0], run.display_names), *(_show(metrics, key) for metrics in there)]
        for key in dict.fromkeys(keys)
        if all(key in metrics for metrics in there)
    ]
    first = next(filter(None, baselines.values()), None)
    if first is not None:
        body.insert(1, [f"{spell_metric(first.key)} without a model", *map(_show_baseline, baselines.values())])
    body.append(["pictures", *(f"{run.dataset.split(part).num_samples:,}" for part in columns)])
    text = f"<p class=soft>{_FLATTERS}</p>" if "test" in columns else ""
    return show_table(["", *(SPELT.get(part, part) for part in columns)], body) + text


def _show(metrics: dict[str, Any], key: str) -> str:
    bounds = metrics["intervals"].get(key)
    return f"{metrics[key]:.4f}" + (f"\n[{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else "")


def _show_baseline(baseline: Baseline | None) -> str:
    return "-" if baseline is None else f"{baseline.value:.4f}\n{baseline.answer.replace(' answering', '')}"


def _find_baseline(run: Finished, part: str) -> Baseline | None:
    place = list(run.dataset.manifest.splits).index(part)
    counts = {name: row[place] for name, row in count_classes(run)}
    return find_baseline(counts, run.dataset.split(part).num_samples, run.page.task)


def describe_training(run: Finished) -> str:
    """Return a sentence on the training and its validation result."""
    recipe, last = run.recipe, run.rows[-1]
    name, split = spell_metric(recipe.stop.metric), run.dataset.split("val")
    return (
        f"{recipe.model}, weights {recipe.describe()['weights']}, {recipe.image_size} pixels: {len(run.rows)} of "
        f"{recipe.epochs} epochs, epoch {last['val/best_epoch']:.0f} kept, which has the best validation {name}, "
        f"{last['val/best']:.4f} on {split.num_samples:,} pictures."
    )
