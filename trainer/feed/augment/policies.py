"""Random changes of training pictures, independent of the number of ranks, workers and threads.

A policy has a part for the decoded picture, before geometry, and a part for the model's input, after it. Both draw from
generators seeded by the sample's key, never from a process-wide generator, so threads do not affect each other.
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
    """Return the policy of a recipe's options, whose draws depend only on the sample's key.

    Raises:
        UsageError: A pipeline has an unknown operation or an invalid parameter.
    """
    build = load_builder(POLICIES[options.policy].builders[options.chosen_backend])
    policy: Policy = _build_pipeline(options) if options.pipeline else build()
    if options.erase == 0:
        return policy
    return replace(policy, after=_follow(policy.after, erase(options.erase)))


def check_augment(options: AugmentOptions, channels: int = 3, size: int = 224) -> None:
    """Raise if a crop cannot fit or a pipeline cannot change pictures, by trying each operation on noise.

    Args:
        options: The recipe's augment options.
        channels: Channels of the model's input, 1 or 3.
        size: Side of the model's input, pixels.

    Raises:
        UsageError: A crop is larger than its picture; an operation is unknown, has an invalid parameter, fails, returns
            another type than uint8 or a shape that must not change, or does not depend on the sample's key alone.
    """
    side = options.crop_side(size) + 2 * options.crop_padding
    if options.chosen_crop == "padded" and side < size:
        raise UsageError(
            f"augment.crop_resize and twice augment.crop_padding make {side} pixels, less than image_size {size}: no "
            "crop fits; raise them, or leave them out"
        )
    for operation in options.pipeline:
        library = _open_library(options.chosen_backend)
        _build_all([operation], library)  # its errors are reported unchanged
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
    # lazy: importing albumentations takes most of a second
    from trainer.feed.augment import albumentations_policies

    return albumentations_policies.LIBRARY


def _build_pipeline(options: AugmentOptions) -> Policy:
    library = _open_library(options.chosen_backend)

    def build_stage(when: str, purpose: int) -> Change | None:
        chosen = [operation for operation in options.pipeline if operation.when == when]
        if not chosen:
            return None
        _build_all(chosen, library)  # raise here, not in the first thread that needs it
        change = library.seed(partial(_build_all, chosen, library), purpose)
        return _name_failures(change, [operation.op for operation in chosen], keeps_shape=when == "after")

    return Policy(build_stage("before", Purpose.BEFORE), build_stage("after", Purpose.OPERATIONS))


def _build_all(operations: list[Operation], library: Library) -> list[Any]:
    return [build_operation(operation, library, partial(_find_elsewhere, library)) for operation in operations]


def _find_elsewhere(library: Library, name: str) -> str:
    """Return a hint if another library has an operation of this name, else ""."""
    other: Backend = "albumentations" if library.name == "torchvision" else "torchvision"
    if name not in _open_library(other).kinds:
        return ""
    return f"; {other} has it: set augment.backend={other}, where its parameters may differ"


def _name_failures(change: Change, names: list[str], keeps_shape: bool) -> Change:
    """Return a change whose failures name the pipeline's operations and the picture."""

    def apply(image: Tensor, key: SampleKey) -> Tensor:
        try:
            changed: Tensor = change(image, key)
        except Exception as err:
            raise UsageError(f"{_describe(names, image, key)} ({brief(err)})") from err
        if keeps_shape and changed.shape != image.shape:
            shape = f"they changed the shape to {tuple(changed.shape)}, which must stay the same"
            raise UsageError(f"{_describe(names, image, key)} ({shape})")
        return changed

    return apply


def _describe(names: list[str], image: Tensor, key: SampleKey) -> str:
    return (
        f"augment.pipeline: {', '.join(names)} failed on sample {key.sample_id} in epoch {key.epoch + 1}, with shape "
        f"{tuple(image.shape)}; remove operations that do not fit every picture"
    )
