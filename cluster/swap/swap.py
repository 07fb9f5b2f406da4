"""Promote a bundle, roll it back, and describe what a service does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from cluster.serve.place import bring_bundle, spell_bundle
from cluster.serve.rollout import Rollout
from shards.cli.options import Options
from shards.errors import ShardError, UsageError
from shards.storage.shown import show_location
from trainer.contract.intact import check_intact, read_classes

if TYPE_CHECKING:
    from cluster.swap.service import Service  # it imports ray, which must not load before options are checked


class PromoteOptions(Options):
    """How a bundle is promoted."""

    there_are: ClassVar[str] = "promote has"

    bundle: str
    """Folder of a bundle, a run or a sweep, which every node must see, or its location in a store, s3://... ."""
    canary: float | None = Field(default=None, gt=0, lt=1)
    """Share of the requests that it answers, beside the bundle in use; None: it answers all."""
    shadow: bool = False
    """It answers none, but computes every picture, to count how often both agree."""
    force: bool = False
    """Also if its classes are not those of the bundle in use."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Seconds within which all replicas must have loaded it."""

    @field_validator("bundle", mode="before")
    @classmethod
    def _spelt(cls, value: Any) -> Any:
        return spell_bundle(value) if isinstance(value, str | Path) else value

    def model_post_init(self, _: Any) -> None:
        if self.canary is not None and self.shadow:
            raise UsageError("a bundle is tried as canary or as shadow, not as both; leave one out")


def promote(service: Service, options: PromoteOptions) -> Rollout:
    """Load a bundle in every replica, and then let it answer; return what is in force.

    It is checked in all replicas before the first of them answers with it. The bundle in use stays loaded.

    Raises:
        UsageError: It is no bundle, has other classes, or is in use.
        ShardError: It is damaged, or a replica cannot load it; nothing has changed.
    """
    new, before = options.bundle, service.rollout
    if new == before.bundle:
        raise UsageError(f"{show_location(new)} is the bundle in use; `python -m cluster.status` shows what is loaded")
    here = bring_bundle(new)
    check_intact(here)
    if not options.force:
        _compare_classes(new, here, before.bundle)
    if service.is_broken:  # perhaps for want of the old bundle, beside which nothing could be loaded then
        after = Rollout(bundle=new)
        service.follow(after, options.timeout_s)
        return after
    if new != before.beside:
        service.follow(Rollout(bundle=before.bundle, beside=new), options.timeout_s)
    after = (
        Rollout(bundle=before.bundle, beside=new, share=options.canary or 0.0, shadow=options.shadow)
        if options.canary or options.shadow
        else Rollout(bundle=new, beside=before.bundle)
    )
    service.follow(after, options.timeout_s)
    return after


def roll_back(service: Service, timeout_s: float = 300.0) -> Rollout:
    """End the trial of a bundle, or exchange the bundle in use for the one before; return what is in force.

    Raises:
        UsageError: There is nothing to go back to.
        ShardError: A replica cannot follow.
    """
    before = service.rollout
    if before.share or before.shadow:
        after = Rollout(bundle=before.bundle)
    elif before.beside:
        after = Rollout(bundle=before.beside, beside=before.bundle)
    else:
        raise UsageError(
            f"there is no bundle to go back to: {show_location(before.bundle)} is the only one that was served"
        )
    service.follow(after, timeout_s)
    return after


def describe_service(service: Service) -> dict[str, Any]:
    """Return the service's bundles and replicas, as JSON."""
    replicas = [
        {
            "replica": each.name,
            "state": each.state,
            "node": each.node,
            "bundle": each.report.bundle if each.report else None,
            "beside": each.report.beside if each.report else None,
            "failed": each.report.failed if each.report else None,
        }
        for each in service.list_replicas()
    ]
    return {**service.rollout.show(), "replicas": replicas, "metrics": service.list_metrics()}


def _compare_classes(new: str, here: Path, old: str) -> None:
    """Check that a bundle, whose folder is `here`, has the classes of the old one."""
    theirs = read_classes(here)
    try:
        ours = read_classes(bring_bundle(old))
    except (UsageError, ShardError, OSError) as err:
        raise UsageError(
            f"the classes of the bundle in use cannot be compared ({err}); if programs that read answers expect those "
            f"of {show_location(new)}, promote it with --force"
        ) from err
    if theirs != ours:
        raise UsageError(
            f"{show_location(new)} has the classes {', '.join(theirs)}, the bundle in use has {', '.join(ours)}: "
            "programs that read answers would misread them; promote it with --force, or serve it under another address"
        )
