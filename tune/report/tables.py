"""The comparison and the screen as rows of text, for the page, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from tune.report.findings import list_costs
from tune.result.sweep import Sweep
from tune.trials.table import format_markdown

Lines = list[list[str]]


def tabulate_comparison(sweep: Sweep) -> Lines:
    """Return header and cells of the comparison on the test split, the baseline first."""
    assert sweep.comparison is not None
    costs = list_costs(sweep)
    name = sweep.comparison.metric.replace("_", " ")
    head = ["variant", "seeds", f"test {name}", "sd", "difference", "95 % from", "to", "p (Holm)"]
    lines: Lines = [[*head, "M parameters", "train s", "pictures/s"]]
    for row in sweep.comparison.rows:
        low, high = row.difference_interval or (None, None)
        cost = costs.get(row.name)
        lines.append(
            [
                row.name,
                str(row.seeds),
                f"{row.mean:.4f}",
                *(_number(value, "+.4f" if place else ".4f") for place, value in enumerate([row.sd, row.difference])),
                *(_number(value, "+.4f") for value in (low, high)),
                _number(row.p_holm, ".3g"),
                *([f"{cost.parameters:.2f}", f"{cost.train_s:.0f}", f"{cost.img_s:.0f}"] if cost else ["", "", ""]),
            ]
        )
    return lines


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def write_latex(lines: Lines) -> str:
    """Return lines as a LaTeX table of the package booktabs.

    >>> print(write_latex([["variant", "95 %"], ["a_b", "1"]]))
    \\begin{tabular}{lr}
    \\toprule
    variant & 95 \\% \\\\
    \\midrule
    a\\_b & 1 \\\\
    \\bottomrule
    \\end{tabular}
    """
    head, *body = [" & ".join(map(_escape, line)) + r" \\" for line in lines]
    form = "l" + "r" * (len(lines[0]) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{form}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    )


def _escape(text: str) -> str:
    signs = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(signs.get(letter, rf"\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def write_markdown(title: str, told: Sequence[str], tables: Sequence[tuple[str, Lines]]) -> str:
    """Return a Markdown page: its title, sentences, and titled tables."""
    parts = [f"# {title}", *told]
    for heading, lines in tables:
        parts += [f"## {heading}", format_markdown(lines).rstrip()]
    return "\n\n".join(parts) + "\n"
