"""By which names figures about the positive class are told: never without that class."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.contract.metrics import METRICS


def is_of_positive(name: str, num_classes: int) -> bool:
    """Say whether a metric, with or without an area before it (`val/`), is about the positive class alone.

    >>> is_of_positive("test/auprc", 2), is_of_positive("auprc", 3), is_of_positive("accuracy", 2)
    (True, False, False)
    """
    last = name.rpartition("/")[2]
    return any(
        metric.key == last and (metric.needs == "positive class" or (metric.positive_of_two and num_classes == 2))
        for metric in METRICS
    )


def name_figure(name: str, positive: str | None, num_classes: int) -> str:
    """Return the name of a metric as people see it, with its class where it is about the positive one.

    >>> name_figure("val/sensitivity", "DEFECTIVE", 2)
    'val/sensitivity (DEFECTIVE)'
    """
    return f"{name} ({positive})" if positive is not None and is_of_positive(name, num_classes) else name


def name_figures(numbers: Mapping[str, float], positive: str | None, num_classes: int) -> dict[str, float]:
    """Return numbers by the names of `name_figure`."""
    return {name_figure(name, positive, num_classes): value for name, value in numbers.items()}
