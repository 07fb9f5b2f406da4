"""`python -m cluster.serve BUNDLE`: run an endpoint until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.serve.options import ServeOptions, read_options
from shards.cli.calling import CommandParser, respell
from shards.cli.ending import DONE, run_command
from shards.workers.ray_cluster import join_or_start, read_address
from trainer.contract.model.names import AUTO, BACKENDS


def main(argv: list[str]) -> int:
    arguments = vars(build_parser().parse_args(argv))
    host, port = arguments.pop("host"), arguments.pop("port")
    options = read_options(arguments)
    from cluster.serve import app, endpoint  # late imports: they import ray

    application = app.build(arguments)
    if read_address() is None:
        endpoint.check_port(host, port)
    print(f"starting {options.replicas} x {options.bundle} ...", file=sys.stderr, flush=True)
    started = join_or_start()
    endpoint.check_resources(options) if started else endpoint.check_place(host, port)
    try:
        endpoint.deploy(application, host, port)
        _announce(host, port, options)
        _wait_for_stop()
    finally:
        with _undisturbed():
            endpoint.remove(everything=started)
    print("stopped", flush=True)
    return DONE


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m cluster.serve",
        description="Serve a bundle over HTTP, in the cluster named by RAY_ADDRESS or in one started here.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fields = ServeOptions.model_fields
    parser.add_argument("bundle", help="folder of a bundle, a run or a sweep; every node must see it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all of this machine's")
    parser.add_argument("--port", type=int, default=8000, choices=range(1, 65536), metavar="PORT", help="TCP port")
    _add_option(parser, fields, "replicas", int, "processes that each hold the model")
    _add_option(parser, fields, "max_batch_size", int, "most pictures in one forward pass")
    _add_option(parser, fields, "batch_wait_ms", float, "milliseconds that a batch's first picture waits for others")
    _add_option(parser, fields, "max_mib", float, "size of a picture file above which it is refused, MiB")
    _add_option(parser, fields, "cpus_per_replica", int, "threads of a replica's model, and CPUs reserved for it")
    _add_option(parser, fields, "gpus_per_replica", float, "GPUs reserved for a replica; 0 computes on the CPU")
    parser.add_argument(
        "--backend",
        choices=(AUTO, *BACKENDS),
        default=AUTO,
        help="back end that computes; auto: the one that `trainer.bench --choose` recorded for the replica's CPU, "
        "or eager",
    )
    return parser


def _add_option(
    parser: argparse.ArgumentParser, fields: dict[str, Any], name: str, kind: type[int] | type[float], text: str
) -> None:
    parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=fields[name].default, help=text)


def _announce(host: str, port: int, options: ServeOptions) -> None:
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    print(
        f"ready: {options.bundle}\n"
        f"  ask    curl -F file=@picture.jpg {url}/v1/predict\n"
        f"         {respell('python -m cluster.client')} {url} picture.jpg\n"
        f"  model  {url}/v1/model\n"
        f"  stop   Ctrl-C",
        flush=True,
    )


def _wait_for_stop() -> None:
    try:
        while True:
            time.sleep(3600)
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
