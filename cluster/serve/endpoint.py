"""The endpoint as one application of a Ray cluster: check its port and resources, deploy it, remove it."""

from __future__ import annotations

import errno
import logging
import re
import socket
from contextlib import suppress

import ray
from ray import serve
from ray.serve.exceptions import RayServeException

from cluster.serve.options import ServeOptions
from shards.errors import ShardError, UsageError
from shards.workers.ray_private import read_serve_port

APPLICATION = "shardline"
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


def check_port(host: str, port: int) -> None:
    """Check that `host`:`port` can be listened on.

    Raises:
        UsageError: It is in use, forbidden, or not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released is free
            probe.bind(address)
    except OSError as err:
        raise UsageError(_explain(err, host, port)) from err


def _explain(err: OSError, host: str, port: int) -> str:
    if err.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use by another program; stop that, or choose another with --port"
    if err.errno == errno.EACCES:
        return f"port {port} needs root; choose one above 1023 with --port"
    return f"{host} is not an address of this machine ({err.strerror}); use --host 127.0.0.1, or 0.0.0.0 for all"


def check_place(host: str, port: int) -> None:
    """Check that the joined cluster can listen on `port`: its Serve already does, or the port is free.

    Raises:
        UsageError: Serve runs there on another port, or another program uses the port.
    """
    there = read_serve_port()
    if there is None:
        check_port(host, port)
    elif there != port:
        raise UsageError(
            f"this cluster's Ray Serve already listens on port {there}, which cannot change while it runs; give "
            f"--port {there}"
        )


def check_resources(options: ServeOptions) -> None:
    """Check that the cluster, as it is now, can hold all replicas.

    Raises:
        UsageError: It has too few CPUs or GPUs.
    """
    total = ray.cluster_resources()
    for kind, each in (("CPU", options.cpus_per_replica), ("GPU", options.gpus_per_replica)):
        needed, there = each * options.replicas, total.get(kind, 0)
        if needed > there:
            raise UsageError(
                f"{options.replicas} replicas of {each:g} {kind} need {needed:g}, but this machine has {there:g}; "
                f"lower --replicas or --{kind.lower()}s-per-replica"
            )


def deploy(application: serve.Application, host: str, port: int, name: str = APPLICATION) -> None:
    """Deploy `application`, replacing one of the same name, and return when it answers.

    Raises:
        ShardError: Its replicas cannot start.
        UsageError: Another application uses its pages.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": host, "port": port}, logging_config=_LOGGING)
    target = serve.RunTarget(application, name=name, route_prefix="/", logging_config=_LOGGING)
    try:
        serve.run_many([target])
    except RayServeException as err:  # an application of another name has the same pages
        raise UsageError(
            f"the cluster's Ray Serve refuses the endpoint: {_last_line(str(err))} Delete that one first"
        ) from err
    except RuntimeError as err:
        raise ShardError(f"no replica could start: {_read_reason(name) or _last_line(str(err))}") from err


def remove(everything: bool, name: str = APPLICATION) -> None:
    """Remove the application; `everything` also ends Ray, if it was started here."""
    with suppress(RayServeException):  # Serve has not started yet
        serve.delete(name)
    if everything:
        ray.shutdown()


def _read_reason(name: str) -> str:
    """Return the reason that Serve recorded for the replica's failure, empty if there is none."""
    application = serve.status().applications.get(name)
    messages = [state.message for state in application.deployments.values()] if application else []
    return _last_line("\n".join(messages))


def _last_line(text: str) -> str:
    """Return the last sentence of a traceback, which Serve's messages contain."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1]) if lines else ""
