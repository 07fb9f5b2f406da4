"""The table of all checks: what each looks at, when it is red, and what helps.

To add one: a module with its facts and its verdict, a row here, and a test of its verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.cli.table import Row, Table


@dataclass(frozen=True)
class Check(Row):
    """A check; its builder is the verdict: a pure function of `View` that returns `Verdict`.

    reader: package.module:function that is called on each node with the options and returns its facts, all readers of a
    node at once. survey: instead of it, a function that is called here with the nodes and the options, asks them in
    several rounds, and returns facts by node.
    """

    reader: str = ""
    survey: str = ""
    red: str = ""
    """When it is red, for the page of docs/."""
    remedy: str = ""
    """What then helps, for the page of docs/."""
    slow: bool = False
    """It only measures bandwidth; --quick leaves it out."""


CHECKS = Table(
    "checks",
    Check(
        "answers",
        "each node of Ray's list starts a process that answers",
        "cluster.doctor.answers:judge",
        reader="cluster.doctor.answers:read",
        red="a node does not answer within `--timeout-s`, or cannot import Shardline",
        remedy="restart Ray on the node, or install Shardline there",
    ),
    Check(
        "versions",
        "Python, Ray, torch, Shardline and its code; libraries that read pictures",
        "cluster.doctor.versions:judge",
        survey="cluster.doctor.versions:survey",
        red="one of the first four differs between nodes or from this process",
        remedy="install the versions of constraints.txt, and the same code, on all nodes",
    ),
    Check(
        "gpus",
        "GPUs and driver, against what Ray was told",
        "cluster.doctor.gpus:judge",
        reader="cluster.doctor.gpus:read",
        red="Ray counts other GPUs than torch can use",
        remedy="`ray start --num-gpus N`; a torch built for the driver's CUDA",
    ),
    Check(
        "cpus",
        "CPUs of the control group and affinity, against what Ray was told",
        "cluster.doctor.cpus:judge",
        reader="cluster.doctor.cpus:read",
        red="Ray was told more CPUs than the node may use",
        remedy="`ray start --num-cpus N`, or raise the container's limit",
    ),
    Check(
        "memory",
        "memory of the machine or its control group, against what Ray was told",
        "cluster.doctor.memory:judge",
        reader="cluster.doctor.memory:read",
        red="Ray was told more than there is, or 95 % are used",
        remedy="`ray start --memory N --object-store-memory N`, or raise the container's limit",
    ),
    Check(
        "shm",
        "/dev/shm, against Ray's object store",
        "cluster.doctor.shm:judge",
        reader="cluster.doctor.shm:read",
        red="the object store does not fit into it, and lies on a disk",
        remedy="`docker run --shm-size`, a larger emptyDir in memory, or `ray start --object-store-memory N`",
    ),
    Check(
        "disk",
        "the disk of Ray's temporary folder",
        "cluster.doctor.disk:judge",
        reader="cluster.doctor.disk:read",
        red="95 % are used (Ray then starts nothing there), or less than 1 GiB is free",
        remedy="free some, or `ray start --temp-dir` on another disk",
    ),
    Check(
        "open-files",
        "the limit of open files (`ulimit -n`)",
        "cluster.doctor.open_files:judge",
        reader="cluster.doctor.open_files:read",
        red="below 4,096, where Ray's own processes fail under load",
        remedy="`ulimit -n 65536` before `ray start`",
    ),
    Check(
        "token",
        "Ray's authentication, and who may read the file with its token",
        "cluster.doctor.token:judge",
        reader="cluster.doctor.token:read",
        red="others may read the file, or nodes have different modes",
        remedy="`chmod 600` that file; the same RAY_AUTH_MODE everywhere",
    ),
    Check(
        "timers",
        "after how long Ray counts a silent node as lost",
        "cluster.doctor.timers:judge",
        reader="cluster.doctor.timers:read",
        red="less than 5 s or more than 5 minutes, or settings that the head was not started with",
        remedy="RAY_health_check_period_ms, _timeout_ms and _failure_threshold before `ray start --head`",
    ),
    Check(
        "wandb",
        "whether the W&B server answers, when runs are to be tracked there",
        "cluster.doctor.tracking:judge",
        reader="cluster.doctor.tracking:read",
        red="it is asked for (`--wandb`, WANDB_API_KEY, WANDB_MODE=online) and does not answer",
        remedy="HTTPS_PROXY or WANDB_BASE_URL on the nodes, or `track.wandb=offline`",
    ),
    Check(
        "data",
        "the dataset of `--data`, and that its shards have their sizes",
        "cluster.doctor.data:judge",
        reader="cluster.doctor.data:read",
        red="a node does not see it, sees another one, or lacks shards",
        remedy="mount or copy the same folder on all nodes, or name an s3://, gs:// or http(s):// location",
    ),
    Check(
        "clock",
        "the clocks of the nodes, by round trips",
        "cluster.doctor.clock:judge",
        survey="cluster.doctor.clock:survey",
        red="two differ by more than 1 s, the uncertainty subtracted",
        remedy="run an NTP client (chrony, systemd-timesyncd) on the nodes",
    ),
    Check(
        "names",
        "the address that each node's own host name has, and whether the others reach it",
        "cluster.doctor.names:judge",
        survey="cluster.doctor.names:survey",
        red="the others cannot reach a port at the node's address; a host name that leads elsewhere is a note",
        remedy="open all TCP ports between the nodes; a line in /etc/hosts, for other programs",
    ),
    Check(
        "storage",
        "writing to `--storage`, reading it back, and reading what other nodes wrote",
        "cluster.doctor.storage:judge",
        survey="cluster.doctor.storage:survey",
        red="a node cannot write, or does not see what the others wrote, or less than 1 GiB is free",
        remedy="mount the same folder on all nodes, or name an object store, its keys set before `ray start`",
    ),
    Check(
        "network",
        "all-reduce between nodes, NCCL where all have GPUs, else gloo",
        "cluster.doctor.network:judge",
        survey="cluster.doctor.network:survey",
        red="it fails, or is slower than 10 MB/s",
        remedy="the interface by GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME; open the ports between the nodes",
        slow=True,
    ),
)
