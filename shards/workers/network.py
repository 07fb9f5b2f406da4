"""The network interface by which this node is reached."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

_SIOCGIFADDR = 0x8915


def find_interface(address: str) -> str | None:
    """Return the name of the interface that has an IPv4 address, None if none has it.

    >>> find_interface("127.0.0.1")
    'lo'
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def use_interface(address: str) -> None:
    """Let gloo use the interface with this node's address, unless GLOO_SOCKET_IFNAME names one.

    Otherwise gloo looks up its own host name, which many machines cannot resolve, or resolve to 127.0.0.1.
    """
    name = find_interface(address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
