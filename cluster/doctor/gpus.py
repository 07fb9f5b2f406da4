"""GPUs of a node and their driver, against what Ray was told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cluster.doctor.options import DoctorOptions
from cluster.doctor.verdict import Facts, Node, Verdict, View

_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader,nounits")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def read(_: DoctorOptions) -> Facts:
    """Return the cards that the driver lists, and what torch sees of them; torch is loaded only where there are any."""
    cards = list_cards()
    devices = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    if not cards and not devices:
        return {"cards": [], "devices": [], "torch": None}
    return {"cards": cards, "devices": devices, "torch": _ask_torch(), "visible": find_visible()}


def list_cards() -> list[dict[str, str]]:
    """Return name, driver, and MiB of memory (all, in use) of each card, none without nvidia-smi or a driver."""
    if shutil.which(_QUERY[0]) is None:
        return []
    done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=10, check=False)
    rows = [line.split(", ") for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [dict(zip(("name", "driver", "mib", "used_mib"), row, strict=True)) for row in rows if len(row) == 4]


def find_visible() -> str | None:
    """Return CUDA_VISIBLE_DEVICES as the node's raylet has it: Ray hides all GPUs from tasks that ask for none."""
    try:
        rows = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return os.environ.get(_VISIBLE)
    found = [row.partition(b"=")[2].decode() for row in rows if row.startswith(f"{_VISIBLE}=".encode())]
    return found[0] if found else None


def show_all() -> None:
    """Let torch see the GPUs that the node's raylet sees; before it is used for the first time in this process."""
    visible = find_visible()
    if visible is None:
        os.environ.pop(_VISIBLE, None)
    else:
        os.environ[_VISIBLE] = visible


def _ask_torch() -> Facts:
    show_all()
    import torch  # late: it takes seconds

    return {"count": torch.cuda.device_count(), "usable": torch.cuda.is_available(), "cuda": torch.version.cuda}


def judge(view: View) -> Verdict:
    """Find nodes where Ray counts other GPUs than torch can use."""
    verdict = Verdict()
    for node, facts in view.each():
        usable = facts["torch"]["count"] if facts["torch"] and facts["torch"]["usable"] else 0
        driver = f", {facts['cards'][0]['driver']}" if facts["cards"] else ""
        verdict.cells[node.name] = f"{usable}{driver}" if facts["cards"] or usable else "none"
        _judge_node(node, facts, usable, bool(view.cluster), verdict)
    _compare_drivers(view, verdict)
    return verdict


def _judge_node(node: Node, facts: Facts, usable: int, told_by_ray: bool, verdict: Verdict) -> None:
    told = int(node.resources.get("GPU", 0))
    there = len(facts["cards"]) or len(facts["devices"])
    if there and not usable:
        cuda = facts["torch"]["cuda"] if facts["torch"] else None
        built = f"for CUDA {cuda}" if cuda else "without CUDA"
        verdict.red(
            node.name,
            f"there are {there} GPUs and torch, built {built}, can use none",
            "install a torch for the driver's CUDA (`nvidia-smi` shows it), or a newer driver",
        )
    elif told_by_ray and told > usable:
        verdict.red(
            node.name,
            f"Ray was told {told} GPUs and torch can use {usable}: ranks there fail",
            f"restart Ray there with `ray start --num-gpus {usable}`, or give the container its GPUs (--gpus all)",
        )
    elif told_by_ray and told < usable:
        verdict.note(
            node.name,
            f"Ray was told {told} GPUs and torch can use {usable}: the others are idle",
            f"restart Ray there with `ray start --num-gpus {usable}` to use them",
        )


def _compare_drivers(view: View, verdict: Verdict) -> None:
    drivers = {node.name: facts["cards"][0]["driver"] for node, facts in view.each() if facts["cards"]}
    if len(set(drivers.values())) > 1:
        shown = ", ".join(sorted(set(drivers.values())))
        verdict.note(tuple(drivers), f"the GPU drivers differ: {shown}", "install the same one; NCCL may refuse a mix")
