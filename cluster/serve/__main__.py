"""`python -m cluster.serve BUNDLE`: run an endpoint until Ctrl-C."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.serve.auth import parse_auth, read_tokens
from cluster.serve.haproxy import use_haproxy
from cluster.serve.options import ServeOptions, read_options
from cluster.serve.place import PLACE, bring_bundle
from shards.cli.calling import CommandParser, respell
from shards.cli.ending import DONE, run_command
from shards.errors import UsageError
from shards.storage.shown import show_location
from shards.workers.ray_cluster import join_or_start, read_address
from trainer.contract.intact import check_intact
from trainer.contract.model.names import AUTO, BACKENDS

_MORE_S = 30
"""Seconds that a request may take beside its limits, for a replica to start in."""
_LOOK_S = 5.0
"""Seconds between two looks at the state of the replicas."""
METAVARS: dict[Any, str] = {bool: "on|off", str: "NAME"}


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_args(argv))
    host, port, grpc_port, target_ms = (arguments.pop(name) for name in ("host", "port", "grpc_port", "tune_batch"))
    options = read_options(arguments)
    folder, weights = _check_before_ray(options)
    if target_ms is not None:
        return _tune(options, folder, weights, target_ms)
    silence_s = round(options.max_upload_s + options.max_wait_s + _MORE_S)
    proxy = use_haproxy(silence_s) if read_address() is None else None
    try:
        return _serve(options, host, port, grpc_port)
    finally:
        if proxy is not None:
            shutil.rmtree(proxy, ignore_errors=True)


def _tune(options: ServeOptions, folder: Path, weights: str, target_ms: float) -> int:
    from cluster.serve.tune_batch import describe_tuned, tune_batch  # late: it imports torch

    if str(folder) != options.bundle:
        raise UsageError(
            f"{show_location(options.bundle)} is in a store, where nothing is recorded; tune a folder of this machine, "
            "and upload it to a new location"
        )
    print(describe_tuned(*tune_batch(options, folder, weights, target_ms)))
    return DONE


def _check_before_ray(options: ServeOptions) -> tuple[Path, str]:
    """Refuse what replicas could not start with, before anything is started.

    Returns:
        The folder of the bundle on this machine, and the sha256 of its weights.
    """
    bundle = bring_bundle(options.bundle)
    weights = check_intact(bundle)
    row = BACKENDS.get(options.backend)
    if row and row.of_a_file:
        from trainer.contract.compute.exported import require_onnx  # late: it imports torch

        require_onnx(bundle, weights, options.backend)
    if path := parse_auth(options.auth):
        read_tokens(path)
    return bundle, weights


def _serve(options: ServeOptions, host: str, port: int, grpc_port: int | None) -> int:
    from cluster.serve import endpoint  # late import: it imports ray

    if read_address() is None:
        endpoint.check_port(host, port)
    if grpc_port is not None:
        endpoint.check_port(host, grpc_port, "--grpc-port")
    print(f"starting {options.replicas} x {show_location(options.bundle)} ...", file=sys.stderr, flush=True)
    started = join_or_start()
    endpoint.check_resources(options) if started else endpoint.check_place(host, port)
    try:
        endpoint.deploy(options, host, port)
        with _answer_grpc(options, host, port, grpc_port):
            _announce(host, port, grpc_port, options)
            _wait_for_stop(endpoint.find_trouble)
    finally:
        with _undisturbed():
            endpoint.remove(everything=started)
    print("stopped", flush=True)
    return DONE


@contextmanager
def _answer_grpc(options: ServeOptions, host: str, port: int, grpc_port: int | None) -> Iterator[None]:
    if grpc_port is None:
        yield
        return
    from cluster.serve.gateway.server import run_gateway  # late: nothing else needs gRPC

    with run_gateway(f"http://{_find_address(host, port)}", host, grpc_port, options):
        yield


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m cluster.serve",
        description="Serve a bundle over HTTP, in the cluster named by RAY_ADDRESS or in one started here.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("bundle", help=PLACE)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all of this machine's")
    parser.add_argument("--port", type=int, default=8000, choices=range(1, 65536), metavar="PORT", help="TCP port")
    parser.add_argument(
        "--grpc-port",
        type=int,
        choices=range(1, 65536),
        metavar="PORT",
        help="TCP port for gRPC of the Open Inference Protocol; without it there is no gRPC",
    )
    parser.add_argument(
        "--tune-batch",
        type=float,
        metavar="MS",
        help="try batches on this machine, record in the bundle those that answer most pictures per second with 99 %% "
        "of them within MS milliseconds, and end",
    )
    for name, field in ServeOptions.model_fields.items():
        if name != "bundle":
            text = " ".join((field.description or "").split()).removesuffix(".")
            choices = (AUTO, *BACKENDS) if name == "backend" else None
            metavar = None if choices else METAVARS.get(field.annotation, "N")
            option = f"--{name.replace('_', '-')}"
            parser.add_argument(option, default=_spell(field.default), choices=choices, metavar=metavar, help=text)
    return parser


def _spell(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _find_address(host: str, port: int) -> str:
    """Return HOST:PORT at which this machine reaches what listens there."""
    return f"{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104, compared


def _announce(host: str, port: int, grpc_port: int | None, options: ServeOptions) -> None:
    url = f"http://{_find_address(host, port)}"
    lines = [
        f"ready: {show_location(options.bundle)}",
        *([f"  page   {url}/"] if options.page else []),
        f"  ask    curl -F file=@picture.jpg {url}/v1/predict",
        f"         {respell('python -m cluster.client')} {url} picture.jpg",
        f"  model  {url}/v1/model",
        *([f"  gRPC   {_find_address(host, grpc_port)}"] if grpc_port else []),
        "  stop   Ctrl-C",
    ]
    print("\n".join(lines), flush=True)


def _wait_for_stop(find_trouble: Callable[[], str | None]) -> None:
    """Return after Ctrl-C; say meanwhile when replicas that ended cannot start again, and when they can."""
    said: str | None = None
    seen: str | None = None
    try:
        while True:
            time.sleep(_LOOK_S)
            before, seen = seen, find_trouble()
            if seen and seen == before and seen != said:  # Ray's first reason is that a replica does not answer
                remedy = f"restore what it needs, or let another bundle answer: {respell('python -m cluster.promote')}"
                print(f"error: a replica has ended, and none can start: {seen}; {remedy}", file=sys.stderr, flush=True)
                said = seen
            elif said and not seen:
                print("replicas start again", file=sys.stderr, flush=True)
                said = None
    except KeyboardInterrupt:
        print("\nstopping ...", file=sys.stderr, flush=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore signals during cleanup: a second Ctrl-C would leave processes behind."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(run_command(main))
