"""Whether every node sees the same dataset."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from cluster.doctor.options import DoctorOptions
from cluster.doctor.patience import explain
from cluster.doctor.verdict import Facts, Verdict, View
from shards.cli.sentences import join_some

_MOST_REMOTE = 16
"""Shards of a store whose sizes are asked; those of a folder are all looked at."""


def read(options: DoctorOptions) -> Facts:
    """Return the dataset's fingerprint and which shards are missing or have another size, or the error.

    Empty if no dataset is asked for.
    """
    if options.data is None:
        return {}
    try:
        return _read(options.data)
    except Exception as err:  # whatever it is, the other nodes are told as well
        return {"error": explain(err)}


def _read(location: str) -> Facts:
    from shards.dataset.dataset import open_dataset  # late: pyarrow takes half a second
    from shards.storage.storage import FolderStorage, open_readable

    dataset, storage = open_dataset(location), open_readable(location)
    rows = dataset.table.select(["name", "bytes"]).to_pylist()
    rows = rows if isinstance(storage, FolderStorage) else rows[:: max(1, len(rows) // _MOST_REMOTE)]

    def is_wrong(row: dict[str, object]) -> bool:
        try:
            return storage.size(str(row["name"])) != row["bytes"]
        except OSError:
            return True

    with ThreadPoolExecutor(8) as pool:
        wrong = [row["name"] for row, bad in zip(rows, pool.map(is_wrong, rows), strict=True) if bad]
    return {"fingerprint": dataset.fingerprint(), "shards": len(rows), "wrong": wrong}


def judge(view: View) -> Verdict:
    """Find nodes that see no dataset, another one, or one that lacks shards."""
    verdict = Verdict()
    if view.options.data is None:
        verdict.skipped = "no --data"
        return verdict
    there = {node.name: facts["fingerprint"] for node, facts in view.each() if "fingerprint" in facts}
    usual = Counter(there.values()).most_common(1)[0][0] if there else ""
    for node, facts in view.each():
        verdict.cells[node.name] = there.get(node.name, "no")[:12]
        if "error" in facts:
            remedy = _share(view.options.data) if there else "see the message; `python -m shards stat` shows a dataset"
            verdict.red(node.name, f"the dataset cannot be read: {facts['error']}", remedy)
            continue
        if facts["fingerprint"] != usual:
            fact = f"the dataset is {facts['fingerprint'][:12]}, and {usual[:12]} on the other nodes"
            verdict.red(node.name, fact, _share(view.options.data))
        if facts["wrong"]:
            fact = f"{len(facts['wrong'])} of {facts['shards']} shards are missing or have another size"
            names = join_some(facts["wrong"], 3)
            verdict.red(node.name, f"{fact}: {names}", "copy them again; `python -m shards verify` checks every byte")
    return verdict


def _share(location: str) -> str:
    if "://" in location:
        return "let all nodes use the same store: its endpoint and keys are set before `ray start`"
    return f"mount the same folder at {location} on all nodes, copy it there, or name an s3://, gs:// or http(s):// one"
