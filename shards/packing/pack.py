"""Pictures to a dataset: select them, cut them into shards, write the shards, publish."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shards.audit.examine import Progress
from shards.dataset.manifest import MANIFEST_NAME, VERSION, Manifest, Packing, parse_manifest
from shards.dataset.origin import PackCommand, find_commands, record_command
from shards.errors import UsageError
from shards.files.disk import MOVE_TEMPORARIES, DiskError
from shards.files.fingerprint import fingerprint_json
from shards.packing.age import check_age, compare_age
from shards.packing.claim import claim_target, refuse_foreign, release_target
from shards.packing.compare import compare_sources
from shards.packing.cut import ShardPlan, plan_shards, refuse_lost_classes
from shards.packing.estimate import estimate_sizes
from shards.packing.options import PackOptions
from shards.packing.positive import name_positive, refuse_misfit
from shards.packing.publish import name_shards, publish
from shards.packing.repack import Repack
from shards.packing.select import Selection, select_audited, select_unaudited
from shards.packing.update import Base, compare_mix, read_base, read_rows
from shards.packing.write import Setting, ShardJob, find_written, write_shard
from shards.pictures.decoding import VERSION as DECODING
from shards.pictures.decoding import describe_versions
from shards.sources.load import load_groups
from shards.sources.model import SourceList
from shards.storage.storage import FolderStorage, Storage, open_storage
from shards.workers.pools import InlinePool, Pool


@dataclass(frozen=True)
class Run:
    """How packing is run; none of it changes the result.

    pool: where pictures are decoded and shards written. progress: called as work is done.
    report: called with each note for the user, one sentence.
    """

    pool: Pool = field(default_factory=InlinePool)
    progress: Progress = lambda *_: None
    report: Callable[[str], None] = lambda _: None


def pack(
    listed: SourceList,
    target: str | Path,
    options: PackOptions = PackOptions(),
    run: Run = Run(),
    update: bool = False,
    command: PackCommand | None = None,
) -> Manifest:
    """Write a dataset and return its manifest.

    The same pictures and options give byte-identical shards. A stopped run resumes from its finished shards;
    `dataset.json` is written last. Unreadable pictures are only listed in `quarantine.csv`.

    Args:
        target: Folder, s3:// or gs:// of the dataset.
        update: Add the pictures that a finished dataset does not have, and take over the present weights and groups of
            the others; its shards are not changed.
        command: The command that called this, to be recorded with the dataset.

    Raises:
        UsageError: The target holds something else.
        ShardError: Pictures that must not be packed as they are, or that changed meanwhile.
        OSError: The target cannot be written.
    """
    storage = open_storage(target)
    if not update:
        refuse_misfit(options.positive, listed)
    with storage.locked():
        sizes = storage.sizes()
        refuse_foreign(storage, sizes)  # before decoding the pictures, which may take hours
        if MANIFEST_NAME in sizes and not update:
            return _compare(listed, storage, options, run, command)
        if not update:
            return _grow(listed, Base(), storage, options, run, command)
        repack = Repack(storage, find_commands(storage), command)
        base = read_base(storage, options)
        if base.manifest:
            refuse_misfit(options.positive, base.manifest)
        new, grown = compare_sources(base, listed, options, repack)
        aged = check_age(base, listed, options.store.decode, adds=bool(new.sources))
        if aged.note:
            run.report(aged.note)
        return _grow(new, grown, storage, options, run, command, aged.decoding)


def _grow(
    listed: SourceList,
    base: Base,
    storage: Storage,
    options: PackOptions,
    run: Run,
    command: PackCommand | None,
    decoding: int = DECODING,
) -> Manifest:
    if base.manifest and not listed.sources and not base.changed:
        return _add_nothing(base.manifest, base.rows, storage, listed.notes, options, run)
    chosen, plan = _plan(listed, base, storage, options, run)
    if base.manifest and not plan and not base.changed:  # the new pictures were left out before, or are unreadable
        return _add_nothing(base.manifest, base.rows, storage, [], options, run)
    identity = _identify(plan, chosen, listed.classes, options)
    if base.changed:
        changed = [base.sources[row] for row in sorted(base.changed)]
        identity = fingerprint_json([identity, [[each.name, each.weight, each.group] for each in changed]])
    # Shards written by a killed run with another decoding version are rewritten.
    stamps = fingerprint_json([identity, DECODING, [source.stamp for source in chosen.sources]])
    sizes = claim_target(storage, stamps, name_shards(base.rows), base.manifest.updates if base.manifest else 0)
    labels = {name: number for number, name in enumerate(listed.classes)}
    setting = Setting(storage, listed.store, options.store, labels, identity)
    rows = list(_write(setting, plan, chosen, sizes, run))
    warning = compare_mix(base, rows)
    if warning:
        run.report(warning)
    draft = _draft(listed, base, chosen, identity, options).model_copy(update={"decoding": decoding})
    old = base.rows
    if base.changed:
        from shards.packing.reindex import reindex  # late import: few updates change packed pictures

        old = reindex(storage, base)
    record_command(storage, draft.updates, command)
    return publish(storage, [*old, *rows], draft)


def _add_nothing(
    manifest: Manifest,
    rows: list[dict[str, Any]],
    storage: Storage,
    notes: list[str],
    options: PackOptions,
    run: Run,
) -> Manifest:
    release_target(storage, manifest, name_shards(rows))  # an update may have been killed after publishing
    for note in notes:
        run.report(note)
    run.report("nothing to add: the dataset holds every picture of the source that can be packed")
    return name_positive(manifest, options.positive, storage, run.report)


def _compare(
    listed: SourceList, storage: Storage, options: PackOptions, run: Run, command: PackCommand | None
) -> Manifest:
    """Return the manifest of a finished dataset if packing now would give the same dataset.

    Only its positive class may be changed.
    """
    manifest = parse_manifest(storage.read(MANIFEST_NAME), f"{storage}/{MANIFEST_NAME}")
    with tempfile.TemporaryDirectory(prefix="shardline-") as scratch, _moving_temporaries():
        chosen, plan = _plan(listed, Base(), FolderStorage(Path(scratch)), options, run)
    shown = listed.display_names or listed.classes
    if _identify(plan, chosen, listed.classes, options) != manifest.packing.plan or shown != manifest.display_names:
        older = describe_versions("the dataset", manifest.decoding) if manifest.decoding != DECODING else ""
        raise UsageError(
            f"{storage} already holds a dataset of other pictures or options; "
            f"add new pictures to it with --update, name another folder, or delete it first{older and f' ({older})'}"
        )
    for note in compare_age(manifest, storage, chosen):
        run.report(note)
    rows = read_rows(storage, manifest)
    release_target(storage, manifest, name_shards(rows))  # a run may have been killed after publishing
    if options.positive not in (None, manifest.positive):
        record_command(storage, manifest.updates, command)
    return name_positive(manifest, options.positive, storage, run.report)


@contextlib.contextmanager
def _moving_temporaries() -> Iterator[None]:
    """Make disk errors in the block advise to move the temporary files."""
    try:
        yield
    except DiskError as err:
        raise DiskError(err.errno or 0, err.fact, err.remedy, MOVE_TEMPORARIES, err.filename) from err


def _plan(
    listed: SourceList, base: Base, storage: Storage, options: PackOptions, run: Run
) -> tuple[Selection, list[ShardPlan]]:
    if options.audit == "none":
        chosen = select_unaudited(listed, base, options)
    else:
        chosen = select_audited(listed, base, options, run.pool, storage, run.progress)
    for note in [*listed.notes, *chosen.notes]:
        run.report(note)
    plan = plan_shards(
        estimate_sizes(listed.store, chosen.sources, options.store),
        chosen.splits,
        seed=options.split.seed,
        shard_bytes=options.shard_bytes,
        start=base.start(),
    )
    if base.manifest is None:
        trains = not options.split.is_only_test and listed.may_train
        refuse_lost_classes(plan, chosen.sources, listed.classes, trains=trains)
    return chosen, plan


def _write(
    setting: Setting, plan: list[ShardPlan], chosen: Selection, sizes: dict[str, int], run: Run
) -> Iterator[dict[str, Any]]:
    """Yield the shard table's rows: first those of finished shards, then of shards written now."""
    total, done = sum(len(shard.members) for shard in plan), 0
    missing: list[ShardPlan] = []
    for shard in plan:
        row = find_written(setting, _job(shard, chosen, None), sizes)
        if row is None:
            missing.append(shard)
            continue
        done += row["count"]
        run.progress("write", done, total, row["bytes"])
        yield row
    for row in run.pool.run(partial(write_shard, setting), _jobs(setting, missing, chosen)):
        done += row["count"]
        run.progress("write", done, total, row["bytes"])
        yield row


def _jobs(setting: Setting, plan: list[ShardPlan], chosen: Selection) -> Iterator[ShardJob]:
    groups = ([chosen.sources[row] for row in shard.members.tolist()] for shard in plan)
    for shard, data in zip(plan, load_groups(setting.store, groups), strict=True):
        yield _job(shard, chosen, data)


def _job(shard: ShardPlan, chosen: Selection, data: list[bytes] | None) -> ShardJob:
    def pick(values: list[str] | None) -> list[str] | None:
        return None if values is None else [values[row] for row in shard.members.tolist()]

    sources = [chosen.sources[row] for row in shard.members.tolist()]
    return ShardJob(
        shard.split, shard.name, shard.first_id, sources, pick(chosen.bytes_xxh3), pick(chosen.pixels_xxh3), data
    )


def _identify(plan: list[ShardPlan], chosen: Selection, classes: list[str], options: PackOptions) -> str:
    """Return the sha256 of everything that determines the shards; pictures' bytes are covered if the audit read
    them.
    """
    shape = options.model_dump(mode="json", include={"shard_bytes", "store", "audit"})
    digest = hashlib.sha256(fingerprint_json([VERSION, shape, options.split.seed, classes]).encode())
    for shard in plan:
        digest.update(f"{shard.name} {shard.first_id}\n".encode())
        for row in shard.members.tolist():
            source = chosen.sources[row]
            content = chosen.bytes_xxh3[row] if chosen.bytes_xxh3 else source.size
            digest.update(repr((source.name, source.labels, source.weight, source.group, content)).encode())
    return digest.hexdigest()


def _draft(listed: SourceList, base: Base, chosen: Selection, identity: str, options: PackOptions) -> Manifest:
    store = options.store
    packing = Packing(
        shard_bytes=options.shard_bytes,
        split=options.split,
        decode=store.decode,
        max_side=store.max_side,
        quality=store.quality if store.max_side else None,
        plan=identity,
    )
    if base.manifest:
        changes: dict[str, Any] = {"updates": base.manifest.updates + 1, "packing": packing, "audited": chosen.audited}
        changes["positive"] = options.positive or base.manifest.positive
        return base.manifest.model_copy(update=changes | {"quarantined": chosen.quarantined})
    return Manifest(
        classes=listed.classes,
        display_names=listed.display_names or listed.classes,
        task=listed.task,
        positive=options.positive,
        splits={},
        packing=packing,
        audited=chosen.audited,
        table_sha256="",
        quarantined=chosen.quarantined,
    )
