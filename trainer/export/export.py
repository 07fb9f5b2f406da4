"""Export a bundle to a file of another format: write, compare with the bundle, describe, publish."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from shards.errors import DecodeError, ShardError, UsageError
from shards.files.atomic import open_temporary_folder, write_text
from shards.files.fingerprint import fingerprint_file
from trainer.contract.bundle import Bundle, read_bundle_page, read_bundle_probes, read_versions
from trainer.contract.compute.exported import ExportPage, default_path, detector_path, page_path, script_path
from trainer.contract.compute.outputs import Compute, FeatureClassifier
from trainer.contract.compute.parity import Parity, require_parity
from trainer.contract.model.names import ExportKind
from trainer.contract.probes import OTHER_BACK_END
from trainer.export.explanation import describe_answer, describe_steps, describe_tensors
from trainer.export.options import TOLERANCE, ExportOptions
from trainer.export.pictures import Pictures, read_pictures
from trainer.export.script import join_script
from trainer.export.writers import open_model, write_model

_BATCHES = (1, 3, 8)
"""Batch sizes that each exported file is tested with."""
_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """An export's file and its metadata."""

    file: Path
    page: ExportPage


def export(options: ExportOptions) -> Exported:
    """Write a bundle as a file of another format, verified on its probes and on `data`; raises like `export_bundle`."""
    read_bundle_page(options.bundle)  # check for the most common mistakes first
    require_libraries(options.to)
    pictures = read_pictures(options.data, options.samples) if options.data else None
    file = options.out or default_path(options.bundle, options.to)
    return Exported(file, export_bundle(options.bundle, options.to, file, pictures, options.tolerance))


def require_libraries(kind: ExportKind) -> None:
    """Raise if the libraries of a format are not installed.

    Raises:
        UsageError: A library is missing; the message has the command that installs it.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None] if kind == "onnx" else []
    if missing:
        raise UsageError(f"--to onnx needs {', '.join(missing)}, not installed here: pip install 'shardline[onnx]'")


def export_bundle(
    folder: Path, kind: ExportKind, path: Path, pictures: Pictures | None = None, tolerance: float = TOLERANCE
) -> ExportPage:
    """Write a bundle as a file of another format, with its metadata and a program beside it; return the metadata.

    Args:
        folder: The bundle.
        kind: The format.
        path: The file; an existing one is replaced after the new one is verified.
        pictures: Pictures to compare on in addition to the probes.
        tolerance: Largest allowed difference of a probability.

    Raises:
        UsageError: The folder is not a bundle, or a library is missing.
        ShardError: The bundle is damaged, the format does not support the model, or the file differs from the bundle by
            more than `tolerance`; then nothing is written.
    """
    require_libraries(kind)
    bundle = Bundle.load(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _removing_empty(path.parent), open_temporary_folder(path) as temporary:
        file = temporary / path.name
        _copy_detector(bundle, folder, detector_path(file))
        model, probes = FeatureClassifier(bundle.model), read_bundle_probes(folder)[1]
        with torch.inference_mode():
            _, features = model(probes[:1])
        page = describe_export(bundle, kind, features.shape[1])
        write_model(kind, model, probes[0].shape, page, file)
        compute = open_model(kind, file)
        _compare_features(compute, model, probes, kind)
        parity = _compare(compute, bundle, probes, pictures, kind, tolerance)
        facts = {"file": path.name, "sha256": fingerprint_file(file), "parity": parity}
        page = page.model_copy(update=facts | _name_beside(page, path))
        _publish(file, path, page)
    return page


@contextlib.contextmanager
def _removing_empty(folder: Path) -> Iterator[None]:
    """Remove a folder after the block if it is empty."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


def describe_export(bundle: Bundle, kind: ExportKind, num_features: int) -> ExportPage:
    """Return the metadata of a bundle's export, except what is known only once its file is written."""
    page, decision = bundle.page, bundle.page.decision.state_rule()
    return ExportPage(
        kind=kind,
        bundle=page.fingerprint(),
        weights_sha256=page.weights_sha256,
        dataset=page.dataset,
        recipe=page.recipe,
        model=page.model,
        classes=page.classes,
        display_names=page.display_names,
        decision=decision,
        **describe_tensors(page.preprocess, len(page.classes), num_features),
        preprocess=page.preprocess,
        steps=describe_steps(page.preprocess),
        answer_steps=describe_answer(decision, page.classes),
        versions=read_versions(),
    )


def _compare_features(compute: Compute, model: FeatureClassifier, probes: Tensor, kind: ExportKind) -> None:
    with torch.inference_mode():
        actual, expected = compute(probes)[1], model(probes)[1]
    worst = float((actual - expected).abs().max()) / max(float(expected.abs().max()), 1e-6)
    if not worst <= OTHER_BACK_END:
        raise ShardError(
            f"{kind} on probes: features differ from the bundle's by {worst:.1e} of the largest, the limit is "
            f"{OTHER_BACK_END:g}"
        )


def _compare(
    compute: Compute, bundle: Bundle, probes: Tensor, pictures: Pictures | None, kind: ExportKind, tolerance: float
) -> dict[str, Parity]:
    """Return the parity by source; raises unless all are within the tolerance."""
    for size in _BATCHES:
        images = probes.repeat(-(-size // len(probes)), 1, 1, 1)[:size]
        require_parity(compute(images)[0], bundle.compute_logits(images), tolerance, f"{kind} in a batch of {size}")
    sources = {"probes": probes}
    if pictures is not None:
        _, sources[pictures.source] = prepare_all(bundle, pictures)
    return {
        source: require_parity(
            torch.cat([compute(part)[0] for part in images.split(max(_BATCHES))]),
            torch.cat([bundle.compute_logits(part) for part in images.split(max(_BATCHES))]),
            tolerance,
            f"{kind} on {source}",
        )
        for source, images in sources.items()
    }


def prepare_all(bundle: Bundle, pictures: Pictures) -> tuple[Pictures, Tensor]:
    """Return the pictures that can be decoded, and their inputs uint8[N, C, S, S].

    Raises:
        ShardError: None of them can be decoded.
    """
    usable: list[bytes] = []
    images: list[Tensor] = []
    last: DecodeError | None = None
    for data in pictures.data:
        try:
            images.append(bundle.prepare(data))
            usable.append(data)
        except DecodeError as err:
            last = err
    if not images:
        raise ShardError(f"none of {len(pictures.data):,} pictures of {pictures.source} can be decoded ({last})")
    return Pictures(pictures.source, usable), torch.stack(images)


def _name_beside(page: ExportPage, path: Path) -> dict[str, str | None]:
    """Return the metadata fields that name the other files of an export."""
    detector = detector_path(path).name if page.decision.ood else None
    return {"script": script_path(path).name, "detector": detector}


def _copy_detector(bundle: Bundle, folder: Path, path: Path) -> None:
    """Copy a bundle's out-of-distribution detector, if its decision has one."""
    if bundle.page.decision.ood is not None:
        path.write_bytes((folder / bundle.page.decision.ood.file).read_bytes())


def _publish(file: Path, path: Path, page: ExportPage) -> None:
    beside = page_path(path)
    beside.unlink(missing_ok=True)  # without its metadata an export does not count
    os.replace(file, path)
    if page.detector is None:
        detector_path(path).unlink(missing_ok=True)  # left from an earlier decision
    else:
        os.replace(detector_path(file), detector_path(path))
    write_text(script_path(path), join_script())
    write_text(beside, page.model_dump_json(indent=2) + "\n")
