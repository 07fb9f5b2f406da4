"""The preprocessing that a recipe's weights expect: size, normalisation, interpolation."""

from __future__ import annotations

from pathlib import Path

from trainer.contract.bundle import read_bundle_page
from trainer.contract.intact import is_bundle
from trainer.contract.model.backbone import find_timm_cfg, is_size_fixed
from trainer.contract.model.names import TIMM_PREFIX
from trainer.weights.expectation import SCRATCH, Expectation


def read_expectation(model: str, weights: str) -> Expectation:
    """Return the preprocessing that a recipe's weights expect.

    Args:
        model: The library's name of the model.
        weights: As in the recipe. A file has no metadata; the library's default weights are assumed.

    Raises:
        UsageError: The weights belong to another model.
    """
    if weights == "none":
        own = _read_own(model) if is_size_fixed(model) else None
        return Expectation(SCRATCH.mean, SCRATCH.std, own.size, SCRATCH.interpolation) if own else SCRATCH
    from trainer.weights.installed import INSTALLED  # late, as all that follows: without weights nothing asks for it
    from trainer.weights.published import find_published
    from trainer.weights.saved import is_saved_folder, read_saved_expectation

    if weights in INSTALLED:
        return INSTALLED[weights].expects
    if published := find_published(model, weights):
        return published.expects
    if is_bundle(Path(weights)):
        page = read_bundle_page(Path(weights))
        mean, std = (values * (3 // len(values)) for values in (page.model.mean, page.model.std))
        return Expectation(mean, std, page.preprocess.size, page.preprocess.interpolation, page.preprocess.resize)
    saved = read_saved_expectation(Path(weights)) if is_saved_folder(Path(weights)) else None
    return saved or read_own_expectation(model)


def read_own_expectation(model: str) -> Expectation:
    """Return the preprocessing of a model's published weights; that of an untrained model if unknown."""
    return _read_own(model) or SCRATCH


def _read_own(model: str) -> Expectation | None:
    from trainer.weights.published import find_published, read_timm_cfg  # late, as above

    if published := find_published(model, "pretrained"):
        return published.expects
    if not model.startswith(TIMM_PREFIX):
        return None
    cfg = find_timm_cfg(model)
    return read_timm_cfg(cfg) if cfg else None
