"""The report's section about the dataset: content, audit, and whether splits keep groups apart."""

from __future__ import annotations

from trainer.report.markup import show_facts, show_table
from trainer.report.sources import Finished


def tell_dataset(run: Finished) -> str:
    """Return the content of the dataset, and the findings of its audit."""
    manifest = run.dataset.manifest
    splits = manifest.splits
    counts = [[name, *(f"{count:,}" for count in row)] for name, row in count_classes(run)]
    total = ["samples", *(f"{split.samples:,}" for split in splits.values())]
    return (
        show_table(["class", *splits], [*counts, total])
        + show_facts(describe_audit(run))
        + ("" if run.page.decision.task.is_exclusive else f"<p class=soft>{_COUNTED_TWICE}</p>")
    )


_COUNTED_TWICE = "A picture with several labels counts for each of them."


def count_classes(run: Finished) -> list[tuple[str, tuple[int, ...]]]:
    """Return each class with its samples in every split."""
    manifest = run.dataset.manifest
    counts = zip(*(split.class_counts for split in manifest.splits.values()), strict=True)
    return list(zip(manifest.display_names, counts, strict=True))


def describe_audit(run: Finished) -> dict[str, str]:
    """Return the findings of the audit, and whether splits keep groups apart, in words."""
    manifest, audited = run.dataset.manifest, run.dataset.manifest.audited
    told = {
        "audit": "every picture was decoded and compared" if audited.level == "full" else "none: nothing was checked",
        "quarantined": f"{manifest.quarantined:,} unusable pictures",
    }
    if audited.level == "full":
        told |= {
            "duplicates": f"{audited.duplicates:,} copies within a split, {audited.dropped:,} left out",
            "leaks": f"{audited.leaks:,} groups of equal pictures in more than one split",
            "label conflicts": f"{audited.conflicts:,} groups of equal pictures with different labels",
        }
    return told | {"groups": _describe_groups(run), "fingerprint": run.dataset.fingerprint()}


def _describe_groups(run: Finished) -> str:
    crossing = run.dataset.manifest.audited.crossing_groups
    if crossing:
        return f"NOT group-safe: {crossing:,} groups are in more than one split, so results may be too good"
    if not run.evaluations:
        return "not checked: no split was evaluated"
    if all(each.predictions.groups is None for each in run.evaluations):
        return "none recorded: pictures of one patient or device may be in more than one split"
    return "recorded; none was found in more than one split"
