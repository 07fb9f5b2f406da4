"""Faults of real clusters, each found by the doctor and mended by the remedy that it names."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctors import ROOT, Looked, doctor
from networks import build_network, run
from object_stores import READER, SeaweedFS
from ray_nodes import Nodes, run_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUICK = ("--quick", "--timeout-s", "20")


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with run_nodes() as cluster:
        yield cluster


def read_commands(remedy: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", remedy)


def test_limit_shared_memory_and_mount_are_mended_by_their_remedies(nodes: Nodes, tmp_path: Path) -> None:
    number = nodes.start(1, open_files=1024, disks={"/dev/shm": "128m", str(tmp_path): "4g"})
    words = ["--address", nodes.address, *QUICK, "--storage", tmp_path / "runs"]
    looked = Looked.at(*words)
    assert looked.all_red() == ["shm", "open-files", "storage"]
    nodes.stop(number)
    store = read_commands(looked.remedy("shm"))[-1].removeprefix("ray start ").split()
    limit = int(read_commands(looked.remedy("open-files"))[0].removeprefix("ulimit -n "))
    assert looked.remedy("storage").startswith(f"mount the same file system at {tmp_path}/runs")
    # This machine's own limit may be below that of the remedy.
    nodes.start(1, open_files=min(limit, 16384), disks={"/dev/shm": "128m"}, options=store)
    assert Looked.at(*words).all_red() == []


def test_memory_and_cpus_of_a_control_group_are_mended_by_their_remedies(nodes: Nodes) -> None:
    groups = [Path("/sys/fs/cgroup", kind, "shardline-doctor") for kind in ("cpu", "memory")]
    if not (groups[0].parent / "cpu.cfs_quota_us").exists():
        pytest.skip("needs control groups of version 1")
    try:
        for group in groups:
            group.mkdir()
        (groups[0] / "cpu.cfs_quota_us").write_text("150000")
        (groups[1] / "memory.limit_in_bytes").write_text(str(6 << 30))
        inside = [str(group) for group in groups]
        much = ["--memory", str(8 << 30), "--object-store-memory", str(1 << 30)]
        number = nodes.start(4, groups=inside, options=much)
        looked = Looked.at("--address", nodes.address, *QUICK)
        assert looked.all_red() == ["cpus", "memory"]
        assert looked.red("cpus")[0][0].startswith("Ray was told 4 CPUs and its control group allows 1.5")
        assert looked.red("memory")[0][0].startswith("Ray was told 9.0 GiB and its control group allows 6.0 GiB")
        nodes.stop(number)
        cpus = read_commands(looked.remedy("cpus"))[0].removeprefix("ray start --num-cpus ")
        memory = read_commands(looked.remedy("memory"))[0].removeprefix("ray start ").split()
        number = nodes.start(int(cpus), groups=inside, options=memory)
        assert Looked.at("--address", nodes.address, *QUICK).all_red() == []
        nodes.stop(number)
    finally:
        for group in groups:
            group.rmdir()


def test_small_disk_of_rays_temporary_folder_is_red(nodes: Nodes) -> None:
    nodes.start(1, disks={"/tmp/ray": "300m"})
    looked = Looked.at("--address", nodes.address, *QUICK)
    assert looked.all_red() == ["disk"]
    assert looked.red("disk")[0][0].startswith("the disk of /tmp/ray has ")


def test_node_whose_raylet_is_frozen_is_red_and_the_others_are_examined(nodes: Nodes) -> None:
    number = nodes.start(1)
    nodes.start(1)
    nodes.freeze(number)
    looked = Looked.at("--address", nodes.address, "--quick", "--timeout-s", "12")
    assert looked.all_red() == ["answers"]
    ((fact, (name,)),) = looked.red("answers")
    assert fact == "does not answer within 12 s"
    assert set(looked.page["checks"]["open-files"]["values"]) == {
        node["name"] for node in looked.page["nodes"] if node["name"] != name
    }
    nodes.thaw(number)
    assert Looked.at("--address", nodes.address, *QUICK).all_red() == []


def test_node_that_ray_has_lost_is_a_note(nodes: Nodes) -> None:
    number = nodes.add(1)
    nodes.kill(number)
    looked = Looked.at("--address", nodes.address, *QUICK)
    while looked.page["red"]:  # Ray does not know it yet
        assert looked.all_red() == ["answers"]
        looked = Looked.at("--address", nodes.address, *QUICK)
    assert any(each["fact"].startswith("Ray has lost ") for each in looked.page["checks"]["answers"]["findings"])


def test_node_without_shardline_is_red_with_its_remedy(nodes: Nodes) -> None:
    nodes.start(1, disks={str(ROOT / "cluster"): "1m"})
    looked = Looked.at("--address", nodes.address, *QUICK)
    assert looked.all_red() == ["answers"]
    assert "ModuleNotFoundError: No module named 'cluster" in looked.red("answers")[0][0]
    assert looked.remedy("answers").startswith("install Shardline there")


HOLD = """
import ray, sys, time
ray.init(address=sys.argv[1], logging_level="error")

@ray.remote(num_cpus=1)
def hold():
    print("held", flush=True)
    time.sleep(600)

reference = hold.remote()
time.sleep(600)
"""


def test_cluster_whose_cpus_are_all_taken_is_examined(nodes: Nodes) -> None:
    nodes.start(1)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, nodes.address], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert any("held" in line for line in holder.stdout)
        assert Looked.at("--address", nodes.address, *QUICK).all_red() == []
    finally:
        holder.kill()
        holder.wait()


def test_store_is_seen_by_all_nodes_and_a_node_with_keys_that_may_not_write_is_red(
    nodes: Nodes, seaweedfs: SeaweedFS
) -> None:
    nodes.add(1)
    words = ["--address", nodes.address, "--quick", "--timeout-s", "60", "--storage", seaweedfs.s3.format(path="runs")]
    looked = Looked.at(*words)
    assert looked.all_red() == []
    assert len(looked.page["checks"]["storage"]["values"]) == 2
    nodes.start(1, host="gpu-3", variables={"AWS_ACCESS_KEY_ID": READER[0], "AWS_SECRET_ACCESS_KEY": READER[1]})
    looked = Looked.at(*words)
    assert looked.all_red() == ["storage"]
    ((fact, where),) = looked.red("storage")
    assert where == ["gpu-3"]
    assert fact.startswith("s3://shards/runs cannot be written to: ")
    assert looked.remedy("storage").startswith("set the store's keys")


# a network


def start_behind(
    nodes: Nodes, addresses: dict[str, str], folder: Path, resolver: str = "", **variables: str
) -> list[int]:
    """Start a node on each machine of a network, whose host name resolves to loopback, as Debian writes it.

    resolver: content of /etc/resolv.conf; by default every look-up fails at once.
    """
    started = []
    (folder / "resolv.conf").write_text(resolver)
    for place, (namespace, address) in enumerate(addresses.items(), 1):
        hosts = folder / f"hosts-{place}"
        hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 gpu-{place}\n")
        options = ["--node-ip-address", address]
        files = {"/etc/hosts": str(hosts), "/etc/resolv.conf": str(folder / "resolv.conf")}
        started.append(
            nodes.start(1, network=namespace, host=f"gpu-{place}", files=files, options=options, variables=variables)
        )
    return started


def test_host_name_that_is_loopback_is_noted_until_the_line_of_the_remedy_is_written_and_breaks_no_rank(
    nodes: Nodes, tmp_path: Path
) -> None:
    with build_network("sldoc", 2, 61) as network:
        start_behind(nodes, network.addresses, tmp_path)
        words = ["--address", nodes.address, "--timeout-s", "15"]
        looked = Looked.at(*words)
        assert looked.all_red() == []
        notes = [each for each in looked.page["checks"]["names"]["findings"] if "gpu-" in each["nodes"][0]]
        assert sorted(each["nodes"][0] for each in notes) == ["gpu-1", "gpu-2"]
        for found in notes:
            line = read_commands(found["remedy"])[0].removesuffix("`")
            hosts = tmp_path / f"hosts-{line[-1]}"
            assert "take the name out of those of 127.0.0.1 and 127.0.1.1" in found["remedy"]
            hosts.write_text(f"127.0.0.1 localhost\n{line}\n")
        looked = Looked.at(*words)
        assert looked.all_red() == []
        assert looked.page["checks"]["names"]["values"]["gpu-2"] == network.addresses["sldoc1"]
        assert all("gloo" in looked.page["checks"]["network"]["values"][name] for name in ("gpu-1", "gpu-2"))


def test_name_server_that_is_silent_is_noted_until_all_addresses_stand_in_hosts(nodes: Nodes, tmp_path: Path) -> None:
    with build_network("sldoe", 2, 63) as network, socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("10.77.63.1", 53))
        resolver = "nameserver 10.77.63.1\noptions timeout:1 attempts:3\n"
        start_behind(nodes, network.addresses, tmp_path, resolver)

        def find_notes(look: Looked) -> dict[str, str]:
            found = [
                each for each in look.page["checks"]["names"]["findings"] if "is looked up for 3 s" in each["fact"]
            ]
            return {name: each["remedy"] for each in found for name in each["nodes"]}

        looked = Looked.at("--address", nodes.address, *QUICK)
        notes = find_notes(looked)
        assert (set(notes), looked.all_red()) == ({"gpu-1", "gpu-2"}, [])
        assert all(
            remedy.startswith("put all nodes' addresses and names into /etc/hosts there") for remedy in notes.values()
        )
        lines = "".join(f"{node['address']} {node['name']}\n" for node in looked.page["nodes"])
        for hosts in tmp_path.glob("hosts-*"):
            hosts.write_text(lines + hosts.read_text())
        assert find_notes(Looked.at("--address", nodes.address, *QUICK)) == {}


def test_interface_for_gloo_mends_it_too_and_a_slow_cable_and_a_pulled_one_are_red(
    nodes: Nodes, tmp_path: Path
) -> None:
    with build_network("sldod", 3, 62) as network:
        start_behind(nodes, network.addresses, tmp_path, GLOO_SOCKET_IFNAME="eth0")
        words = ["--address", nodes.address, "--timeout-s", "30"]
        looked = Looked.at(*words)
        assert looked.all_red() == []
        assert set(looked.page["checks"]["network"]["facts"]["gpu-1"]["pairs"]) == {"gpu-2", "gpu-3"}
        run("tc qdisc add dev sldod2 root tbf rate 16mbit burst 32kbit latency 400ms")
        looked = Looked.at(*words)
        assert looked.all_red() == ["network"]
        assert re.search(r"an all-reduce of all nodes by gloo has \d\.\d MB/s", looked.red("network")[0][0])
        slow = [each["nodes"] for each in looked.page["checks"]["network"]["findings"] if each["level"] == "note"]
        assert slow in ([["gpu-1", "gpu-3"], ["gpu-2", "gpu-3"]], [])  # two of three pairs are slow: so is the median
        network.cut("sldod2")
        looked = Looked.at("--address", nodes.address, *QUICK)
        assert looked.all_red() == ["answers"]
        assert looked.red("answers")[0][1] == ["gpu-3"]
        assert "gpu-3" in doctor("--address", nodes.address, *QUICK).stdout
