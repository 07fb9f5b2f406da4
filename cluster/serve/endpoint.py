"""The endpoint as one application of a Ray cluster: check its port and resources, deploy it, remove it."""

from __future__ import annotations

import errno
import logging
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from cluster.serve.options import ServeOptions
from cluster.serve.report import forget_reports
from cluster.serve.rollout import Rollout
from shards.errors import ShardError, UsageError
from shards.workers.ray_private import apply_serve_config, read_serve_port, read_serve_routes

APPLICATION = "shardline"
DEPLOYMENT = "Replica"
_PASSING = ("NOT_STARTED", "DEPLOYING")
_BROKEN = ("UNHEALTHY", "DEPLOY_FAILED")
_POLL_S = 0.05
LOGGING = {"log_level": "WARNING", "enable_access_log": False}


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Check that `host`:`port`, the value of an option, can be listened on.

    Raises:
        UsageError: It is in use, forbidden, or not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released is free
            probe.bind(address)
    except OSError as err:
        raise UsageError(_explain(err, host, port, option)) from err


def _explain(err: OSError, host: str, port: int, option: str) -> str:
    if err.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use by another program; stop that, or choose another with {option}"
    if err.errno == errno.EACCES:
        return f"port {port} needs root; choose one above 1023 with {option}"
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


def deploy(options: ServeOptions, host: str, port: int, name: str = APPLICATION, route: str = "/") -> None:
    """Deploy a bundle, replacing an application of the same name, and return when it answers.

    Raises:
        ShardError: Its replicas cannot start.
        UsageError: Another application uses its pages, which begin with `route`.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with _starting_serve(host, port):
        _refuse_taken_pages(name, route)
        apply_serve_config([describe_application(options, name, route)])
    while (application := serve.status().applications.get(name)) is None or application.status in _PASSING:
        time.sleep(_POLL_S)
    if application.status != "RUNNING":
        raise ShardError(f"no replica could start: {_find_reason(application)}")


def find_trouble(name: str = APPLICATION) -> str | None:
    """Return why replicas of a running endpoint cannot start anew, None if they can or if it cannot be known now."""
    with suppress(RayServeException, RayError, TimeoutError):
        application = serve.status().applications.get(name)
        if application is not None and application.status in _BROKEN:
            return _find_reason(application)
    return None


def _find_reason(application: Any) -> str:
    messages = [application.message, *(state.message for state in application.deployments.values())]
    return _last_line(chr(10).join(messages))


@contextmanager
def _starting_serve(host: str, port: int) -> Iterator[None]:
    """Run the block as soon as Ray Serve's controller takes applications; at the end its proxies are ready, too.

    A proxy takes some seconds to start, in which replicas can start as well.
    """
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(serve.start, http_options={"host": host, "port": port}, logging_config=LOGGING)
        while not starting.done() and read_serve_port() is None:
            time.sleep(_POLL_S)
        if starting.done():
            starting.result()  # raises what went wrong
        yield
        starting.result()


def describe_application(options: ServeOptions, name: str, route: str) -> dict[str, Any]:
    """Return the application as in a file of `serve deploy`."""
    rollout = Rollout(bundle=options.bundle).model_dump()
    return {
        "name": name,
        "route_prefix": route,
        "import_path": "cluster.serve.app:build",
        "args": options.model_dump(mode="json", exclude_unset=True),
        "runtime_env": dict(ray.get_runtime_context().runtime_env),
        "deployments": [{"name": DEPLOYMENT, "user_config": rollout}],
    }


def _refuse_taken_pages(name: str, route: str) -> None:
    others = [other for other, taken in read_serve_routes().items() if taken == route and other != name]
    if others:
        raise UsageError(
            f"the cluster's Ray Serve already has the application '{others[0]}' at the same pages; delete that one "
            "first"
        )


def remove(everything: bool, name: str = APPLICATION) -> None:
    """Remove the application; `everything` also ends Ray, if it was started here."""
    with suppress(RayServeException):  # Serve has not started yet
        serve.delete(name)
        forget_reports(name)
    if everything:
        ray.shutdown()


def _last_line(text: str) -> str:
    """Return the last sentence of a traceback, which Serve's messages contain."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1]) if lines else ""
