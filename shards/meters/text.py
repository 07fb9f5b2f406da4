"""Numbers of a process as Prometheus reads them: text, format 0.0.4.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

from shards.meters.metric import Meters, Metric, list_plain

Labels = tuple[tuple[str, str], ...]


class TextMeters(Meters):
    """Keeps numbers in memory and returns them as text; safe to share between threads.

    Args:
        table: What can be recorded.
        common: Tags of every metric that names them.
    """

    def __init__(self, table: Sequence[Metric], **common: str) -> None:
        self._table = {metric.name: metric for metric in table}
        self._common = common
        self._lock = threading.Lock()
        self._values: dict[str, dict[Labels, float]] = {metric.name: {} for metric in table}
        self._spread: dict[str, dict[Labels, list[float]]] = {metric.name: {} for metric in table}
        """By histogram and labels: the values up to each bound, then all of them, then their sum."""
        for metric in list_plain(table, common):
            self.count(metric.name, 0.0)
        for metric in table:
            if metric.kind == "histogram" and set(metric.tags) <= common.keys():
                self._spread[metric.name][self._label(metric.name, {})] = [0.0] * (len(metric.bounds) + 2)

    def count(self, name: str, number: float = 1.0, **tags: str) -> None:
        with self._lock:
            values, labels = self._values[name], self._label(name, tags)
            values[labels] = values.get(labels, 0.0) + number

    def set(self, name: str, value: float, **tags: str) -> None:
        with self._lock:
            self._values[name][self._label(name, tags)] = value

    def drop(self, name: str, **tags: str) -> None:
        with self._lock:
            self._values[name].pop(self._label(name, tags), None)

    def observe(self, name: str, value: float, **tags: str) -> None:
        bounds = self._table[name].bounds
        with self._lock:
            sums = self._spread[name].setdefault(self._label(name, tags), [0.0] * (len(bounds) + 2))
            for number, bound in enumerate(bounds):
                sums[number] += value <= bound
            sums[-2] += 1
            sums[-1] += value

    def to_text(self) -> str:
        """Return all numbers; what was never recorded is left out."""
        with self._lock:
            return "".join(f"{line}\n" for metric in self._table.values() for line in self._describe(metric))

    def _label(self, name: str, tags: dict[str, str]) -> Labels:
        """Return the labels of a series in the order of its table.

        Raises:
            ValueError: They are not those of the table, and Ray would refuse them.
        """
        wanted, given = self._table[name].tags, {**self._common, **tags}
        if not set(tags) <= set(wanted) <= given.keys():
            raise ValueError(f"{name} has the tags {', '.join(wanted)}, got {', '.join(given)}")
        return tuple((tag, given[tag]) for tag in wanted)

    def _describe(self, metric: Metric) -> Iterator[str]:
        values, spread = self._values[metric.name], self._spread[metric.name]
        if not values and not spread:
            return
        yield f"# HELP {metric.series} {metric.meaning.replace(chr(92), chr(92) * 2)}"
        yield f"# TYPE {metric.series} {metric.kind}"
        for labels, value in values.items():
            yield f"{metric.series}{_spell(labels)} {_write(value)}"
        for labels, sums in spread.items():
            for bound, below in zip([*map(_write, metric.bounds), "+Inf"], sums, strict=False):
                yield f"{metric.name}_bucket{_spell((*labels, ('le', bound)))} {_write(below)}"
            yield f"{metric.name}_sum{_spell(labels)} {_write(sums[-1])}"
            yield f"{metric.name}_count{_spell(labels)} {_write(sums[-2])}"


def _spell(labels: Labels) -> str:
    r"""Return labels in braces.

    >>> print(_spell((("run", 'a "b" \\ c'), ("phase", "x\ny"))))
    {run="a \"b\" \\ c",phase="x\ny"}
    >>> _spell(())
    ''
    """
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _write(value: float) -> str:
    """Return a number without loss.

    >>> list(map(_write, (0.1, 3.0, 1764558000.25, float("inf"), float("nan"))))
    ['0.1', '3', '1764558000.25', '+Inf', 'NaN']
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
