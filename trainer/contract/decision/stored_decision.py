"""Replace the decision or positive class of an existing bundle atomically: readers see the old or the new one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from shards.errors import UsageError
from shards.files.atomic import lock_folder, replace_folder, write_text
from shards.files.temporary import TEMPORARY
from trainer.contract.bundle import Bundle, BundlePage, read_bundle_page, read_bundle_probes
from trainer.contract.decision.decision import Decision
from trainer.contract.decision.ood import DETECTOR, Detector, write_detector
from trainer.contract.intact import PAGE


def store_decision(
    folder: Path, decision: Decision, detector: Detector | None = None, out: Path | None = None
) -> BundlePage:
    """Store a new decision in a bundle, or in a copy of it, and return the new metadata.

    Readers see the old decision or the new one: one rename publishes bundle.json, or the folder of the copy.

    Args:
        folder: The bundle.
        decision: The file and sha256 of its `ood` are filled in here.
        detector: The detector for its `ood`, with the scores of the probes.
        out: The copy's folder; None changes the bundle itself.

    Raises:
        UsageError: `out` exists.
    """
    if out is None:
        return _replace_decision(folder, decision, detector)
    if out.exists():
        raise UsageError(f"{out} exists; choose another --out, or delete it first")
    with replace_folder(out, replaces=False) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
        _write_decision(temporary, decision, detector)  # its lock is already held
    return read_bundle_page(out)


def _replace_decision(folder: Path, decision: Decision, detector: Detector | None) -> BundlePage:
    with lock_folder(folder):
        return _write_decision(folder, decision, detector)


def _write_decision(folder: Path, decision: Decision, detector: Detector | None) -> BundlePage:
    """Store a decision in a folder that is locked against other writers, and return the new metadata."""
    old = read_bundle_page(folder)
    if decision.ood is not None and detector is not None:
        name, digest = write_detector(folder, detector)
        ood = decision.ood.model_copy(update={"file": name, "sha256": digest})
        decision = decision.model_copy(update={"ood": ood})
    page = old.model_copy(update={"decision": decision})
    write_text(folder / PAGE, page.model_dump_json(indent=2, exclude_unset=True) + "\n")
    kept = decision.ood.file if decision.ood else None
    # Remove the old detector and files left by killed processes; the lock excludes other writers.
    for path in [*folder.glob(f"{DETECTOR}*"), *folder.glob(f"{PAGE}{TEMPORARY}-*")]:
        if path.name != kept:
            path.unlink(missing_ok=True)
    return page


def store_positive(folder: Path, positive: str) -> BundlePage:
    """Make one of a bundle's classes the positive one, and return the new metadata."""
    with lock_folder(folder):
        page = read_bundle_page(folder).model_copy(update={"positive": positive})
        write_text(folder / PAGE, page.model_dump_json(indent=2, exclude_unset=True) + "\n")
    return page


def score_probes(folder: Path, bundle: Bundle, detector: Detector) -> Detector:
    """Return the detector with the scores of the bundle's probes, computed on the CPU, where the model then stays."""
    _, images, _ = read_bundle_probes(folder)
    scoring = Bundle(bundle.page, bundle.model.cpu(), torch.device("cpu"), detector=detector)
    _, scores = scoring.compute_batch(images)
    assert scores is not None  # there is a detector
    return replace(detector, probe_scores=scores)
