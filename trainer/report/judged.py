"""The report's section about one split: confusion, pictures, metrics with intervals, figures, classes."""

from __future__ import annotations

from typing import Any

from trainer.contract.metrics import METRICS, find_right, spell_metric
from trainer.evaluate.baseline import list_confused
from trainer.report.gallery import (
    MOST,
    Shown,
    draw_gallery,
    mark_issues,
    read_rows,
    select_issues,
    select_worst,
)
from trainer.report.markup import escape, show_extra, show_figures, show_note, show_table
from trainer.report.result import spell_figure, tell_result, tell_splits
from trainer.report.sources import Evaluation, Finished

_COLUMNS = ("precision", "recall", "f1", "specificity", "average_precision", "auprc", "auroc")


def list_metrics(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and 95 % interval of each metric that is one number; "-" if there is none."""
    bounds = metrics["intervals"]
    numbers = [(name, value) for name, value in metrics.items() if type(value) is float]
    return [(name, f"{value:.4f}", _bound(bounds.get(name))) for name, value in numbers]


def tell_intervals(metrics: dict[str, Any]) -> str:
    """Return how the intervals of a split were computed."""
    made = metrics["interval"]
    groups = "of whole groups" if made["by"] == "group" else "of single pictures"
    return (
        f"Intervals: {made['level']:.0%}, {made['method']} {groups}, {made['units']:,} {made['by']}s resampled "
        f"{made['resamples']:,} times."
    )


def _bound(bounds: list[float] | None) -> str:
    return f"[{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else "-"


def tell_evaluation(run: Finished, evaluation: Evaluation, is_first: bool) -> str:
    """Return the section of one split: the result, examples, then tables.

    is_first: The page begins with its result, and its metrics are compared with those of other splits.
    """
    metrics, folder, shown = evaluation.metrics, evaluation.folder, run.display_names
    listed = list_metrics(metrics)
    about = {metric.key for metric in METRICS if metric.about_probabilities}
    main = [(spell_figure(name, metrics, shown), *rest) for name, *rest in listed if name not in about]
    calibration = [(spell_metric(name), *rest) for name, *rest in listed if name in about]
    header = ["metric", "value", "95 % interval"]
    confusion = show_figures(folder / "confusion.png", folder / "confusion_normalised.png")
    worst, issues = _tell_pictures(run, evaluation)
    blocks = [
        ("Confusion", confusion + show_extra("the list of confused classes", lambda: _tell_confused(run, evaluation))),
        ("Worst errors", worst),
        ("Likely label mistakes", issues),
        *([("Beside validation", tell_splits(run))] if is_first else []),
        (
            "Metrics",
            f"{show_table(header, main)}<p class=soft>{escape(tell_intervals(metrics))}</p>{_notes(metrics, shown)}",
        ),
        ("By class", _tell_classes(run, metrics)),
        *_tell_slices(metrics),
        ("ROC, precision and recall", show_figures(folder / "curves.png")),
        ("Calibration", show_table(header, calibration) + show_figures(folder / "reliability.png")),
        ("Thresholds", show_figures(folder / "thresholds.png")),
    ]
    head = ("" if is_first else tell_result(run, evaluation)) + _warn(metrics)
    return head + "".join(f"<h3>{name}</h3>{content}" for name, content in blocks if content)


def _tell_confused(run: Finished, evaluation: Evaluation) -> str:
    """Return a table of the classes that are most often confused; "" if there are none."""
    classes = run.page.display_names
    pairs = list_confused(evaluation.metrics, read_rows(evaluation.predictions), classes)
    if not pairs:
        return ""
    body = [[each.missed, each.given, f"{each.count:,}", f"{each.share:.1%}"] for each in pairs]
    header = ["label", "answer", "pictures", "share of the label"]
    several = "" if run.page.decision.task.is_exclusive else f"<p class=soft>{_IN_PLACE}</p>"
    return f"<p>Most confused:</p>{show_table(header, body)}{several}"


_IN_PLACE = "The label was missed, and the answer, which is not among the labels, was predicted."


def _warn(metrics: dict[str, Any]) -> str:
    return show_note(metrics["warning"]) if "warning" in metrics else ""


def _notes(metrics: dict[str, Any], shown: dict[str, str]) -> str:
    """Return notes on the numbers: undefined metrics, missing intervals, and reasons."""
    notes = [f"{spell_figure(name, metrics, shown)}: {note}" for name, note in metrics.get("notes", {}).items()]
    made = metrics["interval"]["notes"]
    notes += [f"interval of {spell_figure(name, metrics, shown)}: {note}" for name, note in made.items()]
    for name, classes in metrics.get("undefined", {}).items():
        notes.append(f"{spell_metric(name)} is not defined for {', '.join(classes)}: the mean leaves them out")
    decided = metrics["decision"]
    if "thresholds" in decided:
        notes.append(
            "predictions: " + ", ".join(f"{name} from {at:g} on" for name, at in decided["thresholds"].items())
        )
    if "threshold" in decided:
        positive = decided.get("positive")
        at = f"{shown.get(positive, positive)} from" if positive else "each class from"
        notes.append(f"predictions: {at} probability {decided['threshold']:g} on")
    return f"<p class=soft>{'<br>'.join(escape(f'{note}.') for note in notes)}</p>" if notes else ""


def _tell_classes(run: Finished, metrics: dict[str, Any]) -> str:
    per_class = metrics["per_class"]
    bounds = metrics["intervals"]["per_class"]
    columns = [name for name in _COLUMNS if any(name in row for row in per_class.values())]

    def show(name: str, column: str) -> str:
        value = per_class[name].get(column)
        bound = bounds.get(name, {}).get(column)
        return "-" if value is None else f"{value:.3f}" + (f"\n[{bound[0]:.3f}, {bound[1]:.3f}]" if bound else "")

    body = [
        [run.display_names.get(name, name), row["support"], *(show(name, column) for column in columns)]
        for name, row in per_class.items()
    ]
    return show_table(["class", "pictures", *map(spell_metric, columns)], body)


def _tell_slices(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a table for each column that the split was sliced by."""
    tables = []
    for name, rows in metrics.get("slices", {}).items():
        first = find_right(rows[0])
        body = [[row["value"], row["samples"], f"{row[first.key]:.4f}", _bound(row.get("interval"))] for row in rows]
        header = [name, "pictures", first.name, "95 % interval"]
        tables.append((f"By {escape(name)}", show_table(header, body)))
    return tables


def _tell_pictures(run: Finished, evaluation: Evaluation) -> tuple[str, str]:
    """Return the worst errors and other likely label mistakes; those among the errors are marked there."""
    fitted = "warning" in evaluation.metrics
    predictions = evaluation.predictions
    issues = [] if fitted else select_issues(predictions)
    worst = mark_issues(select_worst(predictions), issues)
    above = {each.position for each in worst}
    rest = [each for each in issues if each.position not in above]
    return (
        show_extra("the gallery", lambda: _tell_worst(run, evaluation, worst)),
        show_extra("the gallery", lambda: _FITTED if fitted else _tell_issues(run, evaluation, issues, rest)),
    )


_FITTED = "<p>Not searched: the model was fitted to these labels and agrees with them.</p>"


def _tell_worst(run: Finished, evaluation: Evaluation, worst: list[Shown]) -> str:
    if not worst:
        return "<p>No picture of this split was predicted wrongly.</p>"
    if not run.recipe.report.images:
        return _WITHHELD
    text = (
        f"At most {MOST} wrong predictions, the lowest probability of the true label first. Next to each picture, as "
        "the model sees it: the places that speak for the predicted class and for the missed one "
        "(LayerCAM; red is strongest). Numbers are probabilities."
    )
    return f"<p class=soft>{text}</p>{draw_gallery(run, evaluation, worst)}"


def _tell_issues(run: Finished, evaluation: Evaluation, issues: list[Shown], rest: list[Shown]) -> str:
    if not issues:
        return "<p>None: the model never confidently disagrees with a label.</p>"
    text = (
        f"{len(issues):,} labels with which the model, not trained on them, confidently disagrees (confident learning, "
        "Northcutt et al. 2021). A wrong model can be confident too: check the picture before you change a label."
    )
    if above := len(issues) - len(rest):
        text += f" {above:,} of them {'is' if above == 1 else 'are'} marked among the worst errors."
    if rest:
        first = f"the first {MOST} of the {'others' if above else 'labels'}" if len(rest) > MOST else "the others"
        text += f" Shown here, the most certain first: {first if above or len(rest) > MOST else 'all of them'}."
    shown = rest[:MOST]
    pictures = (draw_gallery(run, evaluation, shown) if shown else "") if run.recipe.report.images else _WITHHELD
    return f"<p class=soft>{text}</p>{pictures}"


_WITHHELD = "<p>Pictures are left out (report.images=false); predictions.csv has the paths.</p>"
