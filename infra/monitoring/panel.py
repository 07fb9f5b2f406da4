"""Panels of dashboards, and queries that many of them have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Panel:
    """A panel: its title, its queries by legend, its unit in Grafana's words, and what to look for in it."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    meaning: str = ""
    kind: Literal["timeseries", "stat", "state-timeline"] = "timeseries"
    width: int = 8


@dataclass(frozen=True)
class Dashboard:
    """A dashboard: the name of its file, its title, the tag that its variable chooses from, and its panels."""

    name: str
    title: str
    tag: str
    listed_by: str
    """Metric whose values of the tag can be chosen."""
    panels: tuple[Panel, ...]


def share(part: str, whole: str, by: str) -> str:
    """Return the query of the share that one counter has in another."""
    return f"sum by ({by}) (rate({part}[$__rate_interval])) / sum by ({by}) (rate({whole}[$__rate_interval]))"


def quantile(at: float, histogram: str, by: str) -> str:
    """Return the query of a quantile of a histogram."""
    rate = f"sum by ({by}, le) (rate({histogram}[$__rate_interval]))"
    return f"histogram_quantile({at}, {rate})"


def rate(counter: str, by: str) -> str:
    return f"sum by ({by}) (rate({counter}[$__rate_interval]))"


RUN, DATASET, SWEEP, ENDPOINT = '{run=~"$run"}', '{dataset=~"$dataset"}', '{sweep=~"$sweep"}', '{endpoint=~"$endpoint"}'
ASKED = '{endpoint=~"$endpoint", page=~".*(predict|infer)"}'


def of(tag: str, more: str) -> str:
    """Return a selector of the chosen values of a tag, with more labels.

    >>> of("run", 'phase="training"')
    '{run=~"$run", phase="training"}'
    """
    return f'{{{tag}=~"${tag}", {more}}}'
