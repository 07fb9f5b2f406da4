"""Random changes of training pictures, the same for every number of ranks, workers and threads.

A policy states what happens to the decoded picture, before geometry, and what to the model's input, after it. Each
part draws from generators that the sample's key seeds; nothing draws from a process-wide generator, so threads cannot
disturb each other.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from shards.cli.table import load_builder
from shards.errors import UsageError
from shards.order.purposes import Purpose
from trainer.feed.augment.library import Change, Library, Policy, brief, build_operation
from trainer.feed.augment.operations import erase
from trainer.feed.augment.probe import probe_decoded, probe_input
from trainer.feed.augment.seeding import SampleKey
from trainer.recipes.options.augment import POLICIES, AugmentOptions, Backend, Operation


def build_policy(options: AugmentOptions) -> Policy:
    """Return what a recipe's options make of training pictures, from the sample's key alone.

    Raises:
        UsageError: A pipeline with an operation that does not exist or a bad parameter.
    """
    build = load_builder(POLICIES[options.policy].builders[options.chosen_backend])
    policy: Policy = _build_pipeline(options) if options.pipeline else build()
    if options.erase == 0:
        return policy
    return replace(policy, after=_follow(policy.after, erase(options.erase)))


def check_augment(options: AugmentOptions, channels: int = 3, size: int = 224) -> None:
    """Refuse a crop that cannot fit, and a pipeline that cannot change pictures, by trying each operation on noise.

    Args:
        options: Of the recipe.
        channels: Of the model's input, 1 or 3.
        size: Side of the model's input, pixels.

    Raises:
        UsageError: A crop larger than what it is taken from; an operation that does not exist, a bad parameter, one
            that fails, gives something else than uint8 or another shape where it must not, or does not depend on the
            sample's key alone.
    """
    side = options.crop_side(size) + 2 * options.crop_padding
    if options.chosen_crop == "padded" and side < size:
        raise UsageError(
            f"augment.crop_resize and twice augment.crop_padding make {side} pixels, less than image_size {size}: no "
            "crop fits; raise them, or leave them out"
        )
    for operation in options.pipeline:
        library = _open_library(options.chosen_backend)
        _build_all([operation], library)  # its refusals are told as they are
        change = library.seed(partial(_build_all, [operation], library), Purpose.OPERATIONS)
        probe = probe_input if operation.when == "after" else probe_decoded
        try:
            probe(change, channels, size, library.disturb)
        except ValueError as err:
            raise UsageError(f"augment.pipeline: {operation.op} {err}") from err


def _follow(first: Change | None, second: Change) -> Change:
    return second if first is None else lambda image, key: second(first(image, key), key)


# policies written out


def _open_library(backend: Backend) -> Library:
    if backend == "torchvision":
        from trainer.feed.augment import torchvision_policies

        return torchvision_policies.LIBRARY
    # late: importing albumentations takes most of a second, which other recipes need not pay
    from trainer.feed.augment import albumentations_policies

    return albumentations_policies.LIBRARY


def _build_pipeline(options: AugmentOptions) -> Policy:
    library = _open_library(options.chosen_backend)

    def build_stage(when: str, purpose: int) -> Change | None:
        chosen = [operation for operation in options.pipeline if operation.when == when]
        if not chosen:
            return None
        _build_all(chosen, library)  # refused now, and not in the first thread that needs it
        change = library.seed(partial(_build_all, chosen, library), purpose)
        return _name_failures(change, [operation.op for operation in chosen], keeps_shape=when == "after")

    return Policy(build_stage("before", Purpose.BEFORE), build_stage("after", Purpose.OPERATIONS))


def _build_all(operations: list[Operation], library: Library) -> list[Any]:
    return [build_operation(operation, library, partial(_find_elsewhere, library)) for operation in operations]


def _find_elsewhere(library: Library, name: str) -> str:
    """Return where a name that a library lacks is at home; empty where nowhere."""
    other: Backend = "albumentations" if library.name == "torchvision" else "torchvision"
    if name not in _open_library(other).kinds:
        return ""
    return f"; {other} has: set augment.backend={other}, where its parameters may be other ones"


def _name_failures(change: Change, names: list[str], keeps_shape: bool) -> Change:
    """Return a change whose failures on some picture say that it is the recipe's pipeline that does not fit it."""

    def apply(image: Tensor, key: SampleKey) -> Tensor:
        try:
            changed: Tensor = change(image, key)
        except Exception as err:
            raise UsageError(f"{_describe(names, image, key)} ({brief(err)})") from err
        if keeps_shape and changed.shape != image.shape:
            raise UsageError(f"{_describe(names, image, key)}: it became {tuple(changed.shape)}")
        return changed

    return apply


def _describe(names: list[str], image: Tensor, key: SampleKey) -> str:
    return (
        f"augment.pipeline: {', '.join(names)} failed on sample {key.sample_id} in epoch {key.epoch + 1}, a picture of "
        f"{tuple(image.shape)}; leave out what does not fit every picture"
    )
