"""This process's Ray cluster: the one named by RAY_ADDRESS, or a new one on this machine.

Packing, training, sweeps and serving all connect through this module.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

CONNECT_TIMEOUT_S = 5.0

# Ray reads these once, when it is imported: modules that import ray import this one first.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise Ray runs `uv run` again for each worker if this process was started by it.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray will stop hiding GPUs from actors that request none; it warns until either behaviour is chosen.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # On a busy machine, Serve's proxy takes longer than the default 5 s to start, after which it is killed and
    # restarted, and a replica takes longer than the default 0.1 s to answer, after which a warning is printed.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "1",
}.items():
    os.environ.setdefault(_name, _value)


def use_token() -> None:
    """Let Ray show its token where there is one, unless RAY_AUTH_MODE says otherwise; it must not be imported yet.

    Ray does so by itself only for clusters that it finds, not for those whose address it is given.
    """
    has_token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if has_token or (Path.home() / ".ray/auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


use_token()


def read_address() -> str | None:
    """Return the address of the cluster to join, None to start one here."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


def join_or_start(**options: Any) -> bool:
    """Connect this process to Ray; return True if a cluster was started here, which then ends with this process.

    Args:
        options: For `ray.init`; num_cpus applies only if a cluster is started.

    Raises:
        ConnectionError: The cluster named by RAY_ADDRESS does not answer.
    """
    import ray

    if ray.is_initialized():
        return False
    address = read_address()
    if address is None:
        _connect(address="local", include_dashboard=False, **options)
        return True
    options.pop("num_cpus", None)  # a running cluster has a fixed number of CPUs
    try:
        require_listener(address)
        _connect(address=address, **options)
    except (OSError, RuntimeError) as err:
        raise ConnectionError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({err}); start it, or unset RAY_ADDRESS to start one here"
        ) from err
    return False


def join_running(address: str | None = None, **options: Any) -> None:
    """Connect this process to a Ray cluster that runs.

    Args:
        address: Its HOST:PORT; None: that of RAY_ADDRESS, or else the one on this machine.
        options: For `ray.init`.

    Raises:
        ConnectionError: No cluster answers.
    """
    import ray

    if ray.is_initialized():
        return
    given = address or read_address()
    try:
        if given:
            require_listener(given)
        _connect(address=given or "auto", **options)
    except (OSError, RuntimeError, ValueError) as err:
        where = f"at {given}" if given else "on this machine"
        raise ConnectionError(
            f"no Ray cluster answers {where} ({str(err).splitlines()[0]}); start an endpoint with "
            "`python -m cluster.serve`, or give the --address of its cluster"
        ) from err


def _connect(**options: Any) -> None:
    import ray

    if os.environ.get("PYTHONSAFEPATH") and not options["address"].startswith("ray://"):
        from shards.workers.ray_private import make_safe_job

        # `shardline` sets it for all processes that it starts, but Ray would search the current folder first.
        options["job_config"] = make_safe_job()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(logging_level="error", **options)
    finally:
        # Ray's own handler ends the process at once with exit code 15, without cleaning up.
        signal.signal(signal.SIGTERM, on_sigterm)


def require_listener(address: str) -> None:
    """Check that something listens at HOST:PORT; otherwise `ray.init` of 2.60 retries for over ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
