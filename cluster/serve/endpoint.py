"""The endpoint as one application of a Ray cluster: check its place, put it there, take it away."""

from __future__ import annotations

import errno
import socket
import time

import ray
from ray import serve
from ray.serve.context import _get_global_client  # Serve's port is shown nowhere else without the dashboard
from ray.serve.schema import ApplicationStatus

from cluster.serve.options import ServeOptions
from shards.errors import ShardError, UsageError

APPLICATION = "shardline"
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


def check_port(host: str, port: int) -> None:
    """Return when `host`:`port` can be listened on.

    Raises:
        UsageError: It is taken, forbidden, or not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
            probe.bind(address)
    except OSError as err:
        raise UsageError(_explain(err, host, port)) from err


def _explain(err: OSError, host: str, port: int) -> str:
    if err.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken by another program; stop that, or choose another with --port"
    if err.errno == errno.EACCES:
        return f"port {port} needs root; choose one above 1023 with --port"
    return f"{host} is no address of this machine ({err.strerror}); use --host 127.0.0.1, or 0.0.0.0 for all"


def check_place(host: str, port: int) -> None:
    """Return when the joined cluster can listen on `port`: its Serve does already, or nobody does.

    Raises:
        UsageError: Serve runs there on another port, or another program has the port.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        check_port(host, port)
    elif client.http_config.port != port:
        raise UsageError(
            f"this cluster's Ray Serve already listens on port {client.http_config.port}, which cannot change while "
            f"it runs; give --port {client.http_config.port}"
        )


def check_resources(options: ServeOptions) -> None:
    """Return when the cluster, as it is now, can hold all replicas.

    Raises:
        UsageError: It has too few CPUs or GPUs.
    """
    total = ray.cluster_resources()
    for kind, each in (("CPU", options.cpus_per_replica), ("GPU", options.gpus_per_replica)):
        needed, there = each * options.replicas, total.get(kind, 0)
        if needed > there:
            raise UsageError(
                f"{options.replicas} replicas of {each:g} {kind} need {needed:g}, this machine has {there:g}; "
                f"lower --replicas or --{kind.lower()}s-per-replica"
            )


def deploy(application: serve.Application, host: str, port: int) -> None:
    """Return when `application` answers; one of the same name is replaced.

    Raises:
        ShardError: Its replicas cannot start, or the cluster refuses it.
    """
    serve.start(http_options={"host": host, "port": port}, logging_config=_LOGGING)
    target = serve.RunTarget(application, name=APPLICATION, route_prefix="/", logging_config=_LOGGING)
    serve.run_many([target], wait_for_applications_running=False)
    while (state := serve.status().applications[APPLICATION]).status != ApplicationStatus.RUNNING:
        if state.status == ApplicationStatus.DEPLOY_FAILED:
            lines = [line for line in state.message.splitlines() if line.strip()] or ["no reason given"]
            raise ShardError(f"the endpoint could not start: {lines[-1].strip()}")
        time.sleep(0.2)


def remove(everything: bool) -> None:
    """Take the application away; `everything` ends Serve and Ray too, as is right where they were started here."""
    if not everything:
        serve.delete(APPLICATION)
        return
    serve.shutdown()
    ray.shutdown()
