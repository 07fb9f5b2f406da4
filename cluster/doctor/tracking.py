"""Whether the W&B server can be reached from each node: which of them has rank 0 is not known before a run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from cluster.doctor.options import DoctorOptions
from cluster.doctor.patience import explain
from cluster.doctor.verdict import Facts, Verdict, View

DEFAULT_URL = "https://api.wandb.ai"
_TIMEOUT_S = 8.0


def find_url(environment: Mapping[str, str], asked: bool) -> str | None:
    """Return the server that runs would report to, None if they would not.

    >>> find_url({}, asked=False), find_url({"WANDB_MODE": "online"}, asked=False)
    (None, 'https://api.wandb.ai')
    >>> find_url({"WANDB_API_KEY": "...", "WANDB_MODE": "offline"}, asked=False) is None
    True
    """
    mode = environment.get("WANDB_MODE", "")
    wanted = asked or mode == "online" or (not mode and "WANDB_API_KEY" in environment)
    return (environment.get("WANDB_BASE_URL") or DEFAULT_URL) if wanted else None


def read(options: DoctorOptions) -> Facts:
    """Return the server's address, and the seconds to its answer or the error; empty if it is not asked for."""
    if options.wandb is None:
        return {}
    import httpx  # late: it takes 0.1 s

    url = os.environ.get("WANDB_BASE_URL") or options.wandb
    began = time.monotonic()
    try:
        httpx.get(f"{url.rstrip('/')}/healthz", timeout=_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as err:
        return {"url": url, "error": explain(err)}
    return {"url": url, "seconds": time.monotonic() - began}


def judge(view: View) -> Verdict:
    """Find nodes that cannot reach the server; any answer of it will do."""
    verdict = Verdict()
    if view.options.wandb is None:
        verdict.skipped = "not asked for"
        return verdict
    for node, facts in view.each():
        verdict.cells[node.name] = f"{1000 * facts['seconds']:.0f} ms" if "seconds" in facts else "no"
        if "error" in facts:
            verdict.red(
                node.name,
                f"{facts['url']} does not answer ({facts['error']}): a run there would wait for it",
                "set HTTPS_PROXY, or WANDB_BASE_URL for a server of your own, before `ray start`; or "
                "`track.wandb=offline` and `wandb sync` later",
            )
    return verdict
