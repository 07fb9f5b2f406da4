"""The storage of runs: every node writes there, reads it back, and reads what the other nodes wrote."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time

from cluster.doctor.nodes import Nodes
from cluster.doctor.options import DoctorOptions
from cluster.doctor.patience import explain
from cluster.doctor.verdict import FAILED, Facts, Verdict, View
from shards.cli.sentences import join_some
from shards.files.sizes import format_size
from shards.storage.storage import FolderStorage, Storage, open_storage

_BYTES, _FEW = 32 << 20, 64 << 10
_LEAST_FREE = 1 << 30
_SLOW = 20.0
"""MB/s below which snapshots of a hundred megabytes take longer than five seconds."""
_SEEN_WITHIN_S = 5.0
"""How long a file may take until other nodes see it: file servers let clients cache names for some seconds."""


def write(location: str, folder: str, name: str, size: int) -> Facts:
    """Write a large and a small file, read the large one back, and remove it.

    Returns `error` with `step`, or MB/s (10^6) of writing and reading, free bytes of a folder's disk, and `made`: the
    first folder of the path that was not there before.
    """
    step, made = "opened", None
    try:
        storage = open_storage(location)
        made = _find_missing(storage)
        step, data = "written to", secrets.token_bytes(size)
        write_mb_s = _time(lambda: storage.write(f"{folder}/{name}.large", data), size)
        step = "read"
        _forget(storage, f"{folder}/{name}.large")
        began = time.monotonic()
        same = storage.read(f"{folder}/{name}.large") == data
        read_mb_s = size / (time.monotonic() - began) / 1e6
        step = "written to"
        storage.write(f"{folder}/{name}", name.encode())
        step = "cleared"
        storage.delete([f"{folder}/{name}.large"])
    except Exception as err:  # stores raise errors of several libraries
        return {"error": explain(err), "step": step, "errno": getattr(err, "errno", None), "made": made}
    return {"write_mb_s": write_mb_s, "read_mb_s": read_mb_s, "same": same, "free": _free(storage), "made": made}


def see(location: str, folder: str, names: list[str]) -> Facts:
    """Return `seen`: which of the small files of these names can be read here, and `errors` for the others."""
    storage, errors = open_storage(location), {}
    until = time.monotonic() + _SEEN_WITHIN_S
    for name in names:
        while error := _read_error(storage, f"{folder}/{name}", name):
            if time.monotonic() > until:
                errors[name] = error
                break
            time.sleep(0.2)
    return {"seen": [name for name in names if name not in errors], "errors": errors}


def clear(location: str, folder: str, names: list[str], made: str | None) -> Facts:
    """Remove the files, and the folders that `write` has made; return the error if there is one."""
    try:
        storage = open_storage(location)
        storage.delete([f"{folder}/{name}" for name in names] + [f"{folder}/{name}.large" for name in names])
    except Exception as err:
        return {"error": explain(err)}
    if made is not None and isinstance(storage, FolderStorage):
        for path in [storage.root, *storage.root.parents]:
            if path.is_relative_to(made):
                with contextlib.suppress(OSError):  # another node's files are there
                    path.rmdir()
    return {}


def _find_missing(storage: Storage) -> str | None:
    if not isinstance(storage, FolderStorage):
        return None
    missing = [path for path in [storage.root, *storage.root.parents] if not path.exists()]
    return str(missing[-1]) if missing else None


def _time(action: object, size: int) -> float:
    assert callable(action)
    began = time.monotonic()
    action()
    return size / (time.monotonic() - began) / 1e6


def _forget(storage: Storage, name: str) -> None:
    """Drop a folder's file from the page cache, so that reading it measures the disk or the network."""
    if isinstance(storage, FolderStorage):
        with open(storage.root / name, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _free(storage: Storage) -> int | None:
    return shutil.disk_usage(storage.root).free if isinstance(storage, FolderStorage) else None


def _read_error(storage: Storage, path: str, expected: str) -> str:
    try:
        return "" if storage.read(path) == expected.encode() else "it holds something else"
    except OSError as err:
        return explain(err)


def survey(nodes: Nodes, options: DoctorOptions) -> dict[str, Facts]:
    """Return by node what `write` and then `see` return; nothing is left behind."""
    if options.storage is None:
        return {}
    folder, limit_s = f"shardline-doctor-{secrets.token_hex(4)}", options.timeout_s
    files = {node.name: node.node_id or "here" for node in nodes.nodes}
    size = _FEW if options.quick else _BYTES
    given = {name: (options.storage, folder, file, size) for name, file in files.items()}
    found = nodes.ask("cluster.doctor.storage:write", given, limit_s)
    wrote = {name for name, facts in found.items() if not {"error", FAILED} & set(facts)}
    names = [files[name] for name in wrote]
    seen = nodes.ask("cluster.doctor.storage:see", dict.fromkeys(wrote, (options.storage, folder, names)), limit_s)
    made = {name: facts.get("made") for name, facts in found.items()}
    given_back = {name: (options.storage, folder, [files[name]], made[name]) for name in found}
    cleared = nodes.ask("cluster.doctor.storage:clear", given_back, limit_s)
    nodes_of = {file: name for name, file in files.items()}
    return {name: _join(facts, seen.get(name), cleared.get(name), nodes_of) for name, facts in found.items()}


def _join(wrote: Facts, seen: Facts | None, cleared: Facts | None, nodes_of: dict[str, str]) -> Facts:
    facts = dict(wrote)
    if seen is not None:
        facts[FAILED] = seen.get(FAILED)
        facts["seen"] = [nodes_of[file] for file in seen.get("seen", [])]
        facts["unseen"] = {nodes_of[file]: why for file, why in seen.get("errors", {}).items()}
    if cleared and "error" not in wrote:
        facts["left_behind"] = cleared.get("error") or cleared.get(FAILED)
    return {name: value for name, value in facts.items() if name != FAILED or value}


def judge(view: View) -> Verdict:
    """Find nodes that cannot write, that see other files than the others, or whose disk is nearly full."""
    verdict = Verdict()
    location = view.options.storage
    if location is None:
        verdict.skipped = "no --storage"
        return verdict
    for node, facts in view.each():
        if "error" in facts:
            verdict.cells[node.name] = "no"
            verdict.red(
                node.name, f"{_hide(location)} cannot be {facts['step']}: {facts['error']}", _spell(facts, location)
            )
            continue
        verdict.cells[node.name] = _draw_speed(facts, view.options.quick)
        _judge_node(node.name, facts, view.options, verdict)
    _judge_sharing(view, location, verdict)
    return verdict


def _draw_speed(facts: Facts, quick: bool) -> str:
    return "writable" if quick else f"{facts['write_mb_s']:.0f}/{facts['read_mb_s']:.0f} MB/s"


def _judge_node(name: str, facts: Facts, options: DoctorOptions, verdict: Verdict) -> None:
    if not facts["same"]:
        remedy = "trust nothing that was written there; look at the file server's or the disk's log"
        verdict.red(name, "what was written is not what is read back", remedy)
    if facts["free"] is not None and facts["free"] < _LEAST_FREE:
        verdict.red(
            name,
            f"the disk of {options.storage} has {format_size(facts['free'])} free: snapshots need more",
            "free some room there, or name a folder on another disk as storage.root",
        )
    if not options.quick and facts["write_mb_s"] < _SLOW:
        verdict.note(
            name,
            f"writing takes {facts['write_mb_s']:.1f} MB/s, with all nodes at once: snapshots hold up the run",
            "a larger snapshot.every_s, or a faster store",
        )
    if facts.get("left_behind"):
        verdict.note(name, f"a test file was left: {facts['left_behind']}", "remove shardline-doctor-* there")


def _spell(facts: Facts, location: str) -> str:
    if "://" in location:
        return "set the store's keys, endpoint and region in the environment before `ray start` there, and let it write"
    if facts["errno"] in (errno.EACCES, errno.EPERM):
        return f"let the user of Ray write there: `chown` or `chmod u+w {location}`, or mount it without root_squash"
    if facts["errno"] in (errno.EROFS, errno.ENOSPC, errno.EDQUOT):
        return "mount it so that it can be written, free some room, or name another folder"
    return f"create {location} there, or mount it, and let the user of Ray write there"


def _judge_sharing(view: View, location: str, verdict: Verdict) -> None:
    seen = {node.name: set(facts["seen"]) for node, facts in view.each() if "seen" in facts}
    groups = find_groups(seen)
    if len(groups) < 2:
        return
    denied = {why for _, facts in view.each() for why in facts.get("unseen", {}).values() if "denied" in why.lower()}
    if denied:
        remedy = "run Ray as the same user on all nodes"
        verdict.red(tuple(seen), f"files of other nodes in {_hide(location)} cannot be read: {min(denied)}", remedy)
        return
    for group in groups[1:]:
        made = any(view.facts[name].get("made") for name in group)
        was = ", and it was not there before" if made else ""
        verdict.red(
            tuple(group),
            f"{_hide(location)} is not that of {join_some(groups[0], 4)}: nodes do not see each other's files{was}",
            f"mount the same file system at {location} on all nodes (NFS, Lustre, a cloud's file store), or name an "
            "s3:// or gs:// location",
        )


def find_groups(seen: dict[str, set[str]]) -> list[list[str]]:
    """Return the nodes in groups that see each other's files, the largest first.

    >>> find_groups({"a": {"a", "b"}, "b": {"a", "b"}, "c": {"c"}})
    [['a', 'b'], ['c']]
    """
    groups: list[list[str]] = []
    for name in seen:
        near = [group for group in groups if all(name in seen[each] and each in seen[name] for each in group)]
        if near:
            near[0].append(name)
        else:
            groups.append([name])
    return sorted(groups, key=lambda group: -len(group))


def _hide(location: str) -> str:
    """Return a location without a store's options and keys."""
    return location if "://" not in location else str(open_storage(location))
