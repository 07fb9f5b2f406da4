"""What a report says of one evaluated part: metrics with intervals, figures, classes, and pictures."""

from __future__ import annotations

from typing import Any

from trainer.contract.metrics import METRICS, find_right, spell_metric
from trainer.contract.positive import is_of_positive
from trainer.evaluate.answers import describe_headline
from trainer.evaluate.positive import list_lines, read_positive
from trainer.report.gallery import MOST, draw_gallery, select_issues, select_worst
from trainer.report.markup import escape, show_extra, show_figures, show_note, show_table
from trainer.report.sources import Evaluation, Finished

_COLUMNS = ("precision", "recall", "f1", "specificity", "average_precision", "auprc", "auroc")


def spell_figure(name: str, metrics: dict[str, Any], shown: dict[str, str]) -> str:
    """Return the name of a metric of a part as people write it, with its class where it is about the positive one.

    shown: what each class is called, by its name.
    """
    positive, spelt = read_positive(metrics), spell_metric(name)
    if positive is None or not is_of_positive(name, len(metrics["per_class"])):
        return spelt
    return f"{spelt} ({shown.get(positive.name, positive.name)})"


def list_metrics(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and 95 % interval of each metric that is one number; - is none."""
    bounds = metrics["intervals"]
    numbers = [(name, value) for name, value in metrics.items() if type(value) is float]
    return [(name, f"{value:.4f}", _bound(bounds.get(name))) for name, value in numbers]


def tell_intervals(metrics: dict[str, Any]) -> str:
    """Return how the intervals of a part were made."""
    made = metrics["interval"]
    groups = "of groups, which stay whole" if made["by"] == "group" else "of single pictures"
    return (
        f"Intervals: {made['level']:.0%}, {made['method']} {groups}, {made['units']:,} {made['by']}s drawn anew "
        f"{made['resamples']:,} times."
    )


def _bound(bounds: list[float] | None) -> str:
    return f"[{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else "-"


def tell_evaluation(run: Finished, evaluation: Evaluation) -> str:
    """Return the section of one part."""
    metrics, folder = evaluation.metrics, evaluation.folder
    head = f"<p class=big>{escape(describe_headline(metrics))} on {metrics['samples']:,} pictures</p>"
    head += tell_positive(run, metrics)
    listed, shown = list_metrics(metrics), run.display_names
    about = {metric.key for metric in METRICS if metric.about_probabilities}
    main = [(spell_figure(name, metrics, shown), *rest) for name, *rest in listed if name not in about]
    calibration = [(spell_metric(name), *rest) for name, *rest in listed if name in about]
    header = ["metric", "value", "95 % interval"]
    blocks = [
        (
            "Metrics",
            f"{show_table(header, main)}<p class=soft>{escape(tell_intervals(metrics))}</p>{_notes(metrics, shown)}",
        ),
        ("Confusion", show_figures(folder / "confusion.png", folder / "confusion_normalised.png")),
        ("ROC, precision and recall", show_figures(folder / "curves.png")),
        ("Calibration", show_table(header, calibration) + show_figures(folder / "reliability.png")),
        ("Thresholds", show_figures(folder / "thresholds.png")),
        ("By class", _tell_classes(run, metrics)),
        *_tell_slices(metrics),
        ("Worst errors", show_extra("the gallery", lambda: _tell_worst(run, evaluation))),
        ("Likely label mistakes", show_extra("the gallery", lambda: _tell_issues(run, evaluation))),
    ]
    return head + _warn(metrics) + "".join(f"<h3>{name}</h3>{content}" for name, content in blocks if content)


def _warn(metrics: dict[str, Any]) -> str:
    return show_note(metrics["warning"]) if "warning" in metrics else ""


def list_positive(run: Finished, metrics: dict[str, Any]) -> list[str]:
    """Return how many pictures of the positive class were found, and which class that is; nothing where none is."""
    lines = list_lines(metrics, "`python -m trainer.report RUN --positive CLASS` names another", run.display_names)
    return [f"{line[0].upper()}{line[1:]}." for line in lines]


def tell_positive(run: Finished, metrics: dict[str, Any]) -> str:
    """Return the same as paragraphs."""
    lines = zip(("found", "soft"), list_positive(run, metrics), strict=False)
    return "".join(f"<p class={kind}>{escape(line)}</p>" for kind, line in lines)


def _notes(metrics: dict[str, Any], shown: dict[str, str]) -> str:
    """Return what is to be known of the numbers: what is not defined, what has no interval, and why."""
    notes = [f"{spell_figure(name, metrics, shown)}: {note}" for name, note in metrics.get("notes", {}).items()]
    made = metrics["interval"]["notes"]
    notes += [f"interval of {spell_figure(name, metrics, shown)}: {note}" for name, note in made.items()]
    for name, classes in metrics.get("undefined", {}).items():
        notes.append(f"{spell_metric(name)} is not defined for {', '.join(classes)}: its mean is without them")
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
    """Return a table for each column that the part was cut by."""
    tables = []
    for name, rows in metrics.get("slices", {}).items():
        first = find_right(rows[0])
        body = [[row["value"], row["samples"], f"{row[first.key]:.4f}", _bound(row.get("interval"))] for row in rows]
        header = [name, "pictures", first.name, "95 % interval"]
        tables.append((f"By {escape(name)}", show_table(header, body)))
    return tables


def _tell_worst(run: Finished, evaluation: Evaluation) -> str:
    shown = select_worst(evaluation.predictions)
    if not shown:
        return "<p>No picture of this part was answered wrongly.</p>"
    if not run.recipe.report.images:
        return _WITHHELD
    text = (
        f"At most {MOST} wrong answers, that with the lowest probability of the truth first. Beside each picture, as "
        "the model sees it: where it sees what speaks for the class in bold, or named after “map” (LayerCAM; red the "
        "most). Numbers are probabilities."
    )
    return f"<p class=soft>{text}</p>{draw_gallery(run, evaluation, shown)}"


def _tell_issues(run: Finished, evaluation: Evaluation) -> str:
    if "warning" in evaluation.metrics:
        return "<p>Not looked for: the model was fitted to these labels, and agrees with them.</p>"
    shown, number = select_issues(evaluation.predictions)
    if not shown:
        return "<p>None: where the model is confident, it agrees with the labels.</p>"
    text = (
        f"{number:,} labels that the model, which never saw them, is confident against (confident learning, Northcutt "
        f"et al. 2021), the surest first{f', the first {MOST} shown' if number > MOST else ''}. A wrong model is "
        "confident, too: look before you change a label."
    )
    pictures = draw_gallery(run, evaluation, shown) if run.recipe.report.images else _WITHHELD
    return f"<p class=soft>{text}</p>{pictures}"


_WITHHELD = "<p>Pictures are left out (report.images=false); predictions.csv has the paths.</p>"
