"""A bundle as a file of another format: written, compared with the bundle, described, published."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import torch
from torch import Tensor

from shards.errors import DecodeError, ShardError, UsageError
from shards.files import write_text
from shards.fingerprint import fingerprint_file
from trainer.contract.bundle import Bundle, read_bundle_probes, read_versions
from trainer.contract.exported import ExportPage, describe_steps, describe_tensors, page_path
from trainer.contract.names import ExportKind
from trainer.contract.outputs import FeatureClassifier
from trainer.contract.parity import TOLERANCE, Parity, require_parity
from trainer.contract.probes import OTHER_BACK_END
from trainer.deploy.pictures import Pictures
from trainer.deploy.writers import Compute, open_model, write_model

_BATCHES = (1, 3, 8)
"""Sizes that are run through each exported file."""
_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


def require_libraries(kind: ExportKind) -> None:
    """Refuse a format whose libraries are not installed.

    Raises:
        UsageError: With the command that installs them.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None] if kind == "onnx" else []
    if missing:
        raise UsageError(f"--to onnx needs {', '.join(missing)}, not installed here: pip install 'shardline[onnx]'")


def export_bundle(
    folder: Path, kind: ExportKind, path: Path, pictures: Pictures | None = None, tolerance: float = TOLERANCE
) -> ExportPage:
    """Write a bundle as a file of another format, with its page beside it, and return the page.

    Args:
        folder: The bundle.
        kind: The format.
        path: The file; one that is there is replaced, once the new one has passed.
        pictures: More pictures to compare on than the probes.
        tolerance: Largest difference of a probability.

    Raises:
        UsageError: No bundle, or libraries that are missing.
        ShardError: A damaged bundle, a model that the format cannot hold, or a file that differs from the bundle by
            more than `tolerance`; nothing is left behind then.
    """
    require_libraries(kind)
    bundle = Bundle.load(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        file = temporary / path.name
        model, probes = FeatureClassifier(bundle.model), read_bundle_probes(folder)[1]
        with torch.inference_mode():
            _, features = model(probes[:1])
        page = _describe(bundle, kind, features.shape[1])
        write_model(kind, model, probes[0].shape, page, file)
        compute = open_model(kind, file)
        _compare_features(compute, model, probes, kind)
        parity = _compare(compute, bundle, probes, pictures, kind, tolerance)
        page = page.model_copy(update={"file": path.name, "sha256": fingerprint_file(file), "parity": parity})
        _publish(file, path, page)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return page


def _describe(bundle: Bundle, kind: ExportKind, num_features: int) -> ExportPage:
    page = bundle.page
    return ExportPage(
        kind=kind,
        bundle=page.fingerprint(),
        weights_sha256=page.weights_sha256,
        dataset=page.dataset,
        recipe=page.recipe,
        model=page.model,
        classes=page.classes,
        display_names=page.display_names,
        decision=page.decision,
        **describe_tensors(page.preprocess, len(page.classes), num_features),
        preprocess=page.preprocess,
        steps=describe_steps(page.preprocess),
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
    """Return the parity by source, once every one of them is within the tolerance."""
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
    """Return the pictures that can be decoded, and uint8[N, C, S, S] of them.

    Raises:
        ShardError: None of them can.
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


def _publish(file: Path, path: Path, page: ExportPage) -> None:
    beside = page_path(path)
    beside.unlink(missing_ok=True)  # an export without its page is none
    os.replace(file, path)
    write_text(beside, page.model_dump_json(indent=2) + "\n")
