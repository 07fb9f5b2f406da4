"""One Ray cluster for this process: the one that RAY_ADDRESS names, or a new one on this machine.

Packing, training, sweeps and serving all come to their cluster by this door.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

CONNECT_TIMEOUT_S = 5.0

# Ray reads these once, when it is imported: whoever imports ray imports this module first.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise Ray runs `uv run` again for each of its workers when this process was started by it.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray will stop hiding GPUs from actors that ask for none; it warns until one of the two is chosen.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # On a busy machine Serve's proxy takes longer to start than the 5 s after which it is killed and started anew, and
    # a replica longer to answer than the 0.1 s after which a warning is printed.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "1",
}.items():
    os.environ.setdefault(_name, _value)


def read_address() -> str | None:
    """Return the address of the cluster to join, None where one is to be started here."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


def join_or_start(**options: Any) -> bool:
    """Connect this process to Ray and return True when a cluster was started here, which then ends with it.

    Args:
        options: For `ray.init`; num_cpus counts only where a cluster is started.

    Raises:
        ConnectionError: RAY_ADDRESS names a cluster that does not answer.
    """
    import ray

    if ray.is_initialized():
        return False
    address = read_address()
    if address is None:
        _connect(address="local", include_dashboard=False, **options)
        return True
    options.pop("num_cpus", None)  # a running cluster has what it has
    try:
        _require_listener(address)
        _connect(address=address, **options)
    except (OSError, RuntimeError) as err:
        raise ConnectionError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({err}); start it, or unset RAY_ADDRESS to start one here"
        ) from err
    return False


def _connect(**options: Any) -> None:
    import ray

    if os.environ.get("PYTHONSAFEPATH") and not options["address"].startswith("ray://"):
        from shards.workers.ray_private import make_safe_job

        # As `shardline` has it for all processes that it starts. Ray looks in the current folder first of all.
        options["job_config"] = make_safe_job()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(logging_level="error", **options)
    finally:
        # Ray's own handler ends the process at once with exit code 15, and nothing is tidied up.
        signal.signal(signal.SIGTERM, on_sigterm)


def _require_listener(address: str) -> None:
    """Return when somebody listens at HOST:PORT; else `ray.init` of 2.60 tries on for over ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
