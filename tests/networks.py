"""Machines of a network of their own: network namespaces behind a bridge, which this machine reaches as 10.77.N.1."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest


@dataclass
class Network:
    """name: of the bridge. addresses: namespace -> its address."""

    name: str
    addresses: dict[str, str]

    def cut(self, namespace: str) -> None:
        """Pull a machine's cable."""
        run(f"ip link set {namespace} down")


def run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


@contextlib.contextmanager
def build_network(name: str, count: int, number: int) -> Iterator[Network]:
    """Yield a network of `count` machines while the block runs; the test is skipped where one may not make any.

    name: at most 8 characters. number: of the network, 10.77.NUMBER.0/24.
    """
    try:
        run(f"ip link add {name} type bridge")
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"needs the right to make networks: {err}")
    addresses = {f"{name}{each}": f"10.77.{number}.{each + 10}" for each in range(count)}
    try:
        run(f"ip address add 10.77.{number}.1/24 dev {name}")
        run(f"ip link set {name} up")
        for namespace, address in addresses.items():
            _add(name, namespace, address, f"10.77.{number}.1")
        yield Network(name, addresses)
    finally:
        for namespace in addresses:
            subprocess.run(["ip", "link", "del", namespace], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
        run(f"ip link del {name}")


def _add(bridge: str, namespace: str, address: str, gateway: str) -> None:
    run(f"ip netns add {namespace}")
    run(f"ip link add {namespace} type veth peer name eth0 netns {namespace}")
    run(f"ip link set {namespace} master {bridge}")
    run(f"ip link set {namespace} up")
    for command in (
        f"address add {address}/24 dev eth0", "link set eth0 up", "link set lo up", f"route add default via {gateway}"
    ):  # fmt: skip
        run(f"ip -n {namespace} {command}")
