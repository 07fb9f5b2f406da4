"""ablation.html and its siblings: one self-contained page about a sweep, and its table as Markdown, CSV and LaTeX."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path

from shards.cli.sentences import count_things
from shards.files.atomic import write_text
from shards.storage.shown import show_location
from trainer.evaluate.extras import try_extra
from trainer.report.markup import escape, show_code, show_facts, show_figures, show_note, show_table, write_page
from tune.report.figures import (
    CURVES,
    DIFFERENCES,
    EFFECTS,
    PARALLEL,
    SPEED,
    draw_curves,
    draw_differences,
    draw_effects,
    draw_parallel,
    draw_speed,
)
from tune.report.findings import Effects, answer, ask, measure_effects, measure_importance
from tune.report.tables import tabulate_comparison, write_latex, write_markdown
from tune.result.sweep import Sweep
from tune.trials.table import NOTE, format_csv, tabulate

PAGE = "ablation.html"
FIGURES = "figures"
_ADJUSTED = (
    "Intervals hold for new seeds and new pictures and are not adjusted for the number of variants; p is (Holm). sd is "
    "that of single runs."
)


def write_report(sweep: Sweep) -> Path:
    """Write ablation.html, .md, .csv, .tex and figures to a sweep's folder, and return the path of the page.

    A figure that cannot be drawn is left out, with a note in the log.
    """
    effects, importance = measure_effects(sweep), measure_importance(sweep)
    _draw_figures(sweep, effects, importance)
    tables = [("Screen", tabulate(sweep.table))]
    if sweep.comparison is not None:
        tables.insert(0, ("Comparison", tabulate_comparison(sweep)))
    told = [ask(sweep), answer(sweep)]
    write_text(sweep.folder / "ablation.md", write_markdown(sweep.folder.name, told, tables))
    write_text(sweep.folder / "ablation.csv", format_csv(tables[0][1]))
    write_text(sweep.folder / "ablation.tex", write_latex(tables[0][1]) + "\n")
    sections = [
        *([("Comparison on the test split", _tell_comparison(sweep))] if sweep.comparison else []),
        ("Screen", _tell_screen(sweep)),
        *([("Effects of the factors", _tell_effects(sweep, effects))] if effects else []),
        *([("Importance of the options", _tell_importance(sweep, importance))] if importance else []),
        ("Accuracy and speed", show_figures(sweep.folder / FIGURES / SPEED) or "<p>No variant finished.</p>"),
        *([("Failures", _tell_failures(sweep))] if sweep.failures else []),
        ("What was chosen on which data", show_facts(_tell_choice(sweep))),
        ("Commands", show_code("\n".join(_list_commands(sweep)))),
    ]
    head = (
        f"<header><h1>{escape(sweep.folder.name)}</h1><p>{escape(told[0])}</p>"
        f"<p class=found>{escape(told[1])}</p></header>"
    )
    write_text(sweep.folder / PAGE, write_page(sweep.folder.name, sections, head))
    return sweep.folder / PAGE


def _draw_figures(sweep: Sweep, effects: Effects | None, importance: dict[str, float]) -> None:
    out = sweep.folder / FIGURES
    out.mkdir(exist_ok=True)
    wanted = {CURVES: partial(draw_curves, sweep, out / CURVES)} if sweep.table.rows else {}
    if sweep.table.best is not None:
        wanted[SPEED] = partial(draw_speed, sweep, out / SPEED)
    if effects is not None:
        wanted[EFFECTS] = partial(draw_effects, effects, sweep.table.metric, out / EFFECTS)
    if importance:
        wanted[PARALLEL] = partial(draw_parallel, sweep, out / PARALLEL)
    if sweep.comparison is not None:
        wanted[DIFFERENCES] = partial(draw_differences, sweep, out / DIFFERENCES)
    for name, draw in wanted.items():
        (out / name).unlink(missing_ok=True)
        try_extra(name, draw)


def _tell_comparison(sweep: Sweep) -> str:
    assert sweep.comparison is not None
    head, *body = tabulate_comparison(sweep)
    groups = f" in {sweep.comparison.groups:,} groups" if sweep.comparison.groups else ""
    drawn = f"{sweep.comparison.pictures:,} test pictures{groups}, read once, for all of these runs."
    notes = ""
    if sweep.plan is not None and sweep.plan.extended:
        notes = show_note("Seeds or variants were added after the test split had been read: treat p with care.")
    said = "".join(f"<p>{escape(row.sentence)}</p>" for row in sweep.comparison.rows[1:])
    figure = show_figures(sweep.folder / FIGURES / DIFFERENCES)
    return f"{notes}{said}{show_table(head, body)}<p class=soft>{escape(f'{drawn} {_ADJUSTED}')}</p>{figure}"


def _tell_screen(sweep: Sweep) -> str:
    head, *body = tabulate(sweep.table)
    figure = show_figures(sweep.folder / FIGURES / CURVES)
    return f"{show_table(head, body)}<p class=soft>{escape(NOTE)}</p>{figure}"


def _tell_effects(sweep: Sweep, effects: Effects) -> str:
    metric = sweep.table.metric.replace("_", " ")
    rows = [(each.factor, each.level, f"{each.mean:.4f}", each.trials) for each in effects.levels]
    told = (
        f"Means over the trials of the screen with each level, all after {count_things(effects.epoch, 'epoch')}, which "
        "every trial trained that did not fail. One seed each: small differences are luck."
    )
    parts = [show_table(["factor", "level", f"val {metric}", "trials"], rows), f"<p class=soft>{escape(told)}</p>"]
    if effects.interactions:
        pairs = [(name, f"{size:.4f}") for name, size in effects.interactions.items()]
        parts.append(show_table(["interaction", "largest part that the factors alone do not explain"], pairs))
    if sweep.space.design == "fractional":
        groups = [" = ".join(group) for group in sweep.space.make_fraction().aliases]
        parts.append(show_note(f"This is a fraction: {'; '.join(groups)} cannot be told apart.") if groups else "")
    return "".join(parts) + show_figures(sweep.folder / FIGURES / EFFECTS)


def _tell_importance(sweep: Sweep, importance: dict[str, float]) -> str:
    rows = sorted(((name, f"{share:.2f}") for name, share in importance.items()), key=lambda row: row[1], reverse=True)
    told = "Share of the variance of the trials' ranks that an option explains alone. Few trials make it uncertain."
    figure = show_figures(sweep.folder / FIGURES / PARALLEL)
    return show_table(["option", "share"], rows) + f"<p class=soft>{escape(told)}</p>{figure}"


def _tell_failures(sweep: Sweep) -> str:
    return show_facts(dict(sweep.failures))


def _tell_choice(sweep: Sweep) -> dict[str, str]:
    """Return what was chosen, by what, on which data."""
    metric = sweep.table.metric.replace("_", " ")
    facts = {"epochs of a trial": f"the best validation {metric}", "data": show_location(sweep.recipe.data)}
    facts["fingerprint of the data"] = sweep.dataset
    if sweep.plan is not None:
        seeds = ", ".join(map(str, sweep.plan.seeds))
        facts["variants to confirm"] = (
            f"{sweep.plan.chosen_by}; written to confirm.json before the test split was opened"
        )
        facts["seeds"] = f"{seeds} (the screen had {sweep.recipe.seed})"
    if sweep.best is not None:
        by = f"the best mean of validation {metric}, and the best run there" if sweep.plan else f"validation {metric}"
        facts["run that is kept"] = f"{sweep.best}: {by}; the test split had no say"
    return facts


def _list_commands(sweep: Sweep) -> list[str]:
    folder = shlex.quote(str(sweep.folder))
    lines = [f"python -m tune.report {folder}"]
    if sweep.best is not None:
        lines += [
            f"python -m trainer.run {folder}/best/recipe.yaml name=again launch=auto  # trains it anew",
            f"python -m cluster.serve {folder}",
        ]
    return lines
