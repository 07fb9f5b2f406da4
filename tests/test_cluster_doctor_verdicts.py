"""Each verdict of the doctor as arithmetic, over made facts of several nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.doctor.cgroups import Limits, read_limits
from cluster.doctor.checks import CHECKS
from cluster.doctor.clock import bound
from cluster.doctor.draw import draw
from cluster.doctor.examine import Examined, make_verdict
from cluster.doctor.network import list_pairs
from cluster.doctor.options import DoctorOptions
from cluster.doctor.patience import run_all
from cluster.doctor.storage import find_groups
from cluster.doctor.verdict import FAILED, Facts, Finding, Node, Verdict, View

GIB = 1 << 30
ROOT = Path(__file__).parents[1]


CPUS = {"CPU": 4.0}


def look(
    check: str,
    facts: Mapping[str, Facts],
    resources: Mapping[str, float] | None = None,
    cluster: str | None = "head:6379",
    silent: Mapping[str, str] | None = None,
    **options: Any,
) -> Verdict:
    """Return the verdict of a check over facts by node; the first is the head."""
    nodes = tuple(
        Node(name, f"10.0.0.{number}", name, resources or {}, head=number == 1) for number, name in enumerate(facts, 1)
    )
    made = {name: each for name, each in facts.items() if name not in (silent or {})}
    return make_verdict(check, View(nodes, made, DoctorOptions(**options), cluster, silent or {}))


def red(verdict: Verdict) -> dict[str, tuple[str, ...]]:
    """Return the facts that are red, and their nodes."""
    return {each.fact: each.nodes for each in verdict.find("red")}


def only(verdict: Verdict) -> Finding:
    """Return the one finding that is red."""
    (found,) = verdict.find("red")
    return found


def versions(**other: str) -> Facts:
    libraries = ["torchvision", "timm", "numpy", "pillow", "simplejpeg", "pyarrow", "albumentations"]
    here = dict.fromkeys(["python", "ray", "torch", "shardline", "code", *libraries], "1.0")
    return {**here, **other, "here": here}


def test_node_with_another_torch_is_named_with_both_versions() -> None:
    verdict = look("versions", {"a": versions(), "b": versions(torch="2.0"), "c": versions(torch="2.0")})
    assert red(verdict) == {"torch is 2.0, and 1.0 on the other nodes": ("b", "c")}
    assert only(verdict).remedy.startswith("`pip install torch==1.0` there")
    assert verdict.cells == {"a": "shardline 1.0", "b": "differ", "c": "differ"}


def test_versions_that_are_nowhere_those_of_this_process_are_red() -> None:
    (fact,) = red(look("versions", {"a": versions(ray="2.0"), "b": versions(ray="2.0")}))
    assert fact == "ray is 2.0 on the nodes, and 1.0 where this command runs"


def test_other_code_of_the_same_version_is_red() -> None:
    assert red(look("versions", {"a": versions(), "b": versions(code="2.0")})) == {
        "Shardline's code is 2.0, and 1.0 on the other nodes": ("b",)
    }


def test_library_that_reads_pictures_and_differs_is_a_note() -> None:
    verdict = look("versions", {"a": versions(), "b": versions(pillow="2.0")})
    assert not red(verdict)
    assert [each.nodes for each in verdict.find("note")] == [("b",)]


def gpus(count: int, torch: int | None = None, driver: str = "610.1", cuda: str | None = "13.2") -> Facts:
    cards = [{"name": "H200", "driver": driver, "mib": "143771", "used_mib": "0"}] * count
    seen = count if torch is None else torch
    return {
        "cards": cards,
        "devices": [],
        "torch": {"count": seen, "usable": seen > 0, "cuda": cuda} if count else None,
    }


@pytest.mark.parametrize(
    ("facts", "told", "fact"),
    [
        (gpus(2), 2, None),
        (gpus(0), 0, None),
        (gpus(2), 4, "Ray was told 4 GPUs and torch can use 2: ranks there fail"),
        (gpus(0), 1, "Ray was told 1 GPUs and torch can use 0: ranks there fail"),
        (gpus(2, torch=0), 2, "there are 2 GPUs and torch, built for CUDA 13.2, can use none"),
        (gpus(2, torch=0, cuda=None), 0, "there are 2 GPUs and torch, built without CUDA, can use none"),
    ],
)
def test_gpus_are_those_that_ray_was_told(facts: Facts, told: int, fact: str | None) -> None:
    assert list(red(look("gpus", {"a": facts}, {"GPU": told}))) == ([fact] if fact else [])


def test_gpus_that_ray_was_not_told_and_drivers_that_differ_are_notes() -> None:
    verdict = look("gpus", {"a": gpus(2), "b": gpus(1, driver="590.2")}, {"GPU": 1})
    assert [(each.nodes, each.fact) for each in verdict.findings] == [
        (("a",), "Ray was told 1 GPUs and torch can use 2: the others are idle"),
        (("a", "b"), "the GPU drivers differ: 590.2, 610.1"),
    ]


@pytest.mark.parametrize(
    ("allowed", "quota", "told", "fact"),
    [
        (8, None, 8, None),
        (8, 2.5, 3, None),
        (8, 2.5, 2, None),
        (8, 2.5, 4, "Ray was told 4 CPUs and its control group allows 2.5: tasks wait for each other there"),
        (4, 16.0, 8, "Ray was told 8 CPUs and it may run on 4: tasks wait for each other there"),
        (8, None, 0, None),
    ],
)
def test_cpus_are_not_more_than_the_node_may_use(
    allowed: int, quota: float | None, told: int, fact: str | None
) -> None:
    facts = {"a": {"machine": 64, "allowed": allowed, "quota": quota}}
    assert list(red(look("cpus", facts, {"CPU": told}))) == ([fact] if fact else [])


def memory(limit: int | None, used: int = GIB) -> Facts:
    return {"machine": 64 * GIB, "used": 2 * GIB, "limit": limit, "group_used": used if limit else None}


def test_memory_that_ray_was_told_must_be_there() -> None:
    told = {"memory": 30.0 * GIB, "object_store_memory": 10.0 * GIB}
    assert not look("memory", {"a": memory(None), "b": memory(40 * GIB), "c": memory(1 << 62)}, told).findings
    found = only(look("memory", {"a": memory(None), "b": memory(32 * GIB)}, told))
    assert found.nodes == ("b",)
    assert found.fact.startswith("Ray was told 40.0 GiB and its control group allows 32.0 GiB")
    assert f"--memory {int(0.6 * 32 * GIB)} --object-store-memory {int(0.3 * 32 * GIB)}" in found.remedy


def test_memory_that_is_used_up_is_red() -> None:
    found = only(look("memory", {"a": memory(10 * GIB, used=8 * GIB), "b": memory(10 * GIB, used=int(9.6 * GIB))}))
    assert (found.nodes, found.fact[:31]) == (("b",), "9.6 GiB of 10.0 GiB are in use,")


def test_object_store_must_fit_into_shared_memory() -> None:
    facts = {"a": {"size": 12 * GIB}, "b": {"size": 64 << 20}}
    found = only(look("shm", facts, {"object_store_memory": 10 * GIB}))
    assert found.nodes == ("b",)
    assert "`docker run --shm-size=11g`" in found.remedy
    assert f"--object-store-memory {int(0.9 * (64 << 20))}" in found.remedy
    assert not look("shm", facts, {}, cluster=None).findings


@pytest.mark.parametrize(
    ("size", "free", "is_red"),
    [(100, 50, False), (100, 4, True), (10, 0.9, True), (4000, 199, True), (4000, 201, False)],
)
def test_disk_of_ray_must_have_room(size: float, free: float, is_red: bool) -> None:
    facts = {"a": {"folder": "/tmp/ray", "size": int(size * GIB), "free": int(free * GIB)}}
    assert bool(red(look("disk", facts))) == is_red


@pytest.mark.parametrize(("soft", "is_red"), [(1024, True), (4095, True), (4096, False), (65536, False), (-1, False)])
def test_low_limit_of_open_files_is_red(soft: int, is_red: bool) -> None:
    assert bool(red(look("open-files", {"a": {"soft": soft, "hard": soft}}))) == is_red


def token(mode: str = "token", permissions: int | None = 0o600, by_variable: bool = False) -> Facts:
    return {"mode": mode, "by_variable": by_variable, "path": "/root/.ray/auth_token", "permissions": permissions}


def test_token_that_others_can_read_is_red_with_the_command_that_mends_it() -> None:
    verdict = look("token", {"a": token(), "b": token(permissions=0o644), "c": token(permissions=0o640)})
    assert list(red(verdict).values()) == [("b",), ("c",)]
    assert verdict.find("red")[0].fact.startswith("/root/.ray/auth_token has mode 0644: other users")
    assert all("`chmod 600 /root/.ray/auth_token`" in each.remedy for each in verdict.find("red"))


@pytest.mark.parametrize(
    "facts", [token("disabled", 0o644), token(by_variable=True, permissions=0o644), token("", None)]
)
def test_token_file_that_is_not_used_is_not_red(facts: Facts) -> None:
    assert not red(look("token", {"a": facts}))


def test_modes_that_differ_are_red_where_they_differ_from_the_head() -> None:
    assert list(red(look("token", {"a": token(), "b": token("disabled")})).values()) == [("b",)]
    assert [each.level for each in look("token", {"a": token("disabled")}).findings] == ["note"]
    assert not look("token", {"a": token("disabled")}, cluster=None).findings


def timers(period: int = 3000, timeout: int = 10000, threshold: int = 5) -> Facts:
    return {"period_ms": period, "timeout_ms": timeout, "failure_threshold": threshold}


def test_timers_count_where_the_head_is() -> None:
    assert not look("timers", {"a": timers(), "b": timers()}).findings
    assert list(red(look("timers", {"a": timers(), "b": timers(period=500)})).values()) == [("b",)]
    assert look("timers", {"a": {}}, cluster=None).skipped == "no cluster"


@pytest.mark.parametrize(
    ("facts", "words"), [(timers(500, 500, 2), "after 2 s"), (timers(threshold=60), "after 780 s")]
)
def test_timers_that_are_too_short_or_too_long_are_red(facts: Facts, words: str) -> None:
    assert words in only(look("timers", {"a": facts, "b": facts})).fact


def test_wandb_is_red_only_if_it_was_asked_for() -> None:
    facts = {"a": {"url": "http://w", "seconds": 0.2}, "b": {"url": "http://w", "error": "Connection refused"}}
    assert look("wandb", {"a": {}, "b": {}}).skipped == "not asked for"
    verdict = look("wandb", facts, wandb="http://w")
    assert only(verdict).nodes == ("b",)
    assert verdict.cells == {"a": "200 ms", "b": "no"}


def test_node_with_another_dataset_or_without_its_shards_is_red() -> None:
    same: Facts = {"fingerprint": "f" * 64, "shards": 9, "wrong": []}
    facts = {
        "a": same,
        "b": same,
        "c": {**same, "fingerprint": "e" * 64},
        "d": {**same, "wrong": ["train-000001.tar"]},
        "e": {"error": "/data does not exist"},
    }
    assert red(look("data", facts, data="/data")) == {
        "the dataset is eeeeeeeeeeee, and ffffffffffff on the other nodes": ("c",),
        "1 of 9 shards are missing or have another size: train-000001.tar": ("d",),
        "the dataset cannot be read: /data does not exist": ("e",),
    }


def test_bounds_of_a_clock_hold_the_truth_however_uneven_the_trips() -> None:
    ahead = 5.0
    trips = [(0.0, 0.9 + ahead, 1.0), (2.0, 2.0 + ahead, 2.3), (4.0, 4.1 + ahead, 4.9)]  # slow there, back, both
    facts = bound(trips)
    assert facts["least"] <= ahead <= facts["most"]
    assert facts["most"] - facts["least"] <= 0.3


@pytest.mark.parametrize(
    ("least", "most", "is_red"), [(-0.01, 0.01, False), (0.9, 1.3, False), (1.2, 1.3, True), (-9.0, -8.0, True)]
)
def test_clock_is_red_only_if_no_round_trip_can_explain_the_difference(least: float, most: float, is_red: bool) -> None:
    facts = {"a": {"least": -0.001, "most": 0.001}, "b": {"least": least, "most": most}}
    assert bool(red(look("clock", facts))) == is_red


def test_clock_is_compared_with_the_heads_and_not_with_ours() -> None:
    """A laptop whose clock is wrong looks at a cluster whose clocks agree."""
    verdict = look("clock", {"a": {"least": 70.0, "most": 70.1}, "b": {"least": 70.05, "most": 70.2}})
    assert not verdict.findings
    assert verdict.cells == {"a": "reference", "b": "+75.0 ms ±125.0 ms"}


def name(*addresses: str, by_name: str = "", by_ray: str = "", interface: str = "", lookup_s: float = 0.0) -> Facts:
    return {
        "host": "gpu-1", "addresses": list(addresses), "interface": interface, "error": "Name or service not known",
        "by_name": {"z": by_name}, "by_ray": {"z": by_ray}, "lookup_s": lookup_s,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (name("10.0.0.1"), None),
        (name("127.0.1.1"), None),  # all nodes are on this machine: they reach it there
        (name("127.0.1.1", by_name="Connection refused"), "resolves to 127.0.1.1, which is loopback"),
        (name("10.9.9.9", by_name="timed out"), "resolves to 10.9.9.9, where z cannot reach it"),
        (name(), "its host name gpu-1 has no address (Name or service not known)"),
        (name("127.0.1.1", by_name="Connection refused", interface="eth0"), None),
        (name("10.0.0.1", lookup_s=1.9), None),
        (name("10.0.0.1", lookup_s=10.01), "another node's address is looked up for 10 s"),
        (name("10.0.0.1", by_ray="timed out"), "a port at its address 10.0.0.1 cannot be reached from z (timed out)"),
    ],
)
def test_host_name_must_lead_where_others_reach_the_node(facts: Facts, words: str | None) -> None:
    verdict = look("names", {"a": facts, "z": name("10.0.0.2")}, CPUS)
    assert [words in each.fact for each in verdict.findings] == ([True] if words else [])
    assert bool(red(verdict)) == bool(words and "a port at its address" in words)  # ranks do not use host names


def test_one_node_needs_no_name() -> None:
    assert not look("names", {"a": name()}, CPUS).findings


def stored(seen: str, **other: Any) -> Facts:
    rates = {"write_mb_s": 100.0, "read_mb_s": 200.0, "same": True, "free": 9 * GIB, "made": None}
    return {**rates, "seen": list(seen), "unseen": dict.fromkeys(set("abc") - set(seen), "No such file"), **other}


def test_folder_that_is_not_shared_is_named_with_the_node_that_has_another_one() -> None:
    found = only(look("storage", {"a": stored("ab"), "b": stored("ab"), "c": stored("c")}, storage="/runs"))
    assert found.nodes == ("c",)
    assert found.fact == "/runs is not that of a, b: nodes do not see each other's files"
    made = look("storage", {"a": stored("ab"), "b": stored("ab"), "c": stored("c", made="/runs")}, storage="/runs")
    assert only(made).fact.endswith(", and it was not there before")


def test_files_that_other_nodes_may_not_read_are_no_folder_that_is_not_shared() -> None:
    facts = {"a": stored("ab"), "b": stored("b", unseen={"a": "Permission denied: /runs/x"})}
    found = only(look("storage", facts, storage="/runs"))
    assert found.remedy == "run Ray as the same user on all nodes"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"error": "Permission denied: /runs", "step": "written to", "errno": 13}, "chown"),
        ({"error": "Read-only file system", "step": "written to", "errno": 30}, "mount it so that it can be written"),
        (stored("ab", same=False), "trust nothing"),
        (stored("ab", free=1000), "free some room"),
    ],
)
def test_storage_that_cannot_be_used_has_its_own_remedy(facts: Facts, words: str) -> None:
    assert words in only(look("storage", {"a": facts, "b": stored("ab")}, storage="/runs")).remedy


def test_keys_of_a_store_are_not_shown() -> None:
    facts = {"a": {"error": "denied", "step": "written to", "errno": None}}
    found = only(look("storage", facts, storage="s3://key:secret@bucket/runs?region=x&scheme=http"))
    assert found.fact == "s3://bucket/runs cannot be written to: denied"


def test_groups_of_nodes_are_those_that_see_each_other() -> None:
    assert find_groups({"a": {"a"}, "b": {"b", "c"}, "c": {"b", "c"}}) == [["b", "c"], ["a"]]
    assert find_groups({"a": {"a", "b"}, "b": {"b"}}) == [["a"], ["b"]]  # one way is not enough


def rate(mb_s: float, **pairs: float) -> Facts:
    each = {name: {"mb_s": value, "backend": "gloo"} for name, value in pairs.items()}
    return {"mb_s": mb_s, "backend": "gloo", "pairs": each}


def test_all_reduce_that_fails_or_crawls_is_red() -> None:
    assert not look("network", {"a": rate(100), "b": rate(99)}, CPUS).findings
    assert "has 3.0 MB/s" in only(look("network", {"a": rate(3), "b": rate(4)}, CPUS)).fact
    failed = {"error": "connect timeout", "backend": "gloo", "pairs": {}}
    found = only(look("network", {"a": rate(100), "b": failed}, CPUS))
    assert (found.nodes, found.fact) == (("b",), "an all-reduce of all nodes by gloo fails: connect timeout")
    assert "GLOO_SOCKET_IFNAME" in found.remedy


def test_slowest_pair_is_named() -> None:
    facts = {"a": rate(20, b=1000, c=1100), "b": rate(20, a=990, c=100), "c": rate(20, a=1100, b=120)}
    verdict = look("network", facts, CPUS)
    assert [(each.nodes, each.fact) for each in verdict.find("note")] == [
        (("b", "c"), "these two have 100 MB/s, and the median pair 990")
    ]
    nodes = tuple(map(Node, facts))
    assert list_pairs(View(nodes, facts))[("a", "b")]["mb_s"] == 990


def test_node_that_all_broken_pairs_have_in_common_is_named() -> None:
    broken = {"error": "another node did not come in time", "backend": "gloo"}
    good = {"mb_s": 100.0, "backend": "gloo"}
    facts = {
        "a": {**broken, "pairs": {"b": good, "c": broken}},
        "b": {**broken, "pairs": {"a": good, "c": broken}},
        "c": {**broken, "pairs": {"a": broken, "b": broken}},
    }
    assert red(look("network", facts, CPUS)) == {
        "an all-reduce of all nodes by gloo fails: another node did not come in time": ("a", "b", "c"),
        "an all-reduce of two fails between a and c, b and c": ("c",),
    }
    one = {name: {**broken, "pairs": dict.fromkeys(set("abc") - {name}, broken)} for name in "abc"}
    assert len(red(look("network", one, CPUS))) == 1


def test_nodes_without_cpus_take_no_part() -> None:
    assert look("network", {"a": {}, "b": {}}, {}).skipped == "no two nodes with CPUs or GPUs"


def test_node_that_does_not_answer_is_one_red_line_and_no_other_check_speaks_of_it() -> None:
    silent = {"b": "does not answer within 10 s"}
    limits: dict[str, Facts] = {"a": {"soft": 9999}, "b": {}}
    found = only(look("answers", {"a": {}, "b": {}}, silent=silent))
    assert (found.nodes, found.fact) == (("b",), "does not answer within 10 s")
    assert not look("open-files", limits, silent=silent).findings
    assert (
        "install Shardline there"
        in only(
            look(
                "answers", {"b": {}}, silent={"b": "runs no process of ours: ModuleNotFoundError: No module 'cluster'"}
            )
        ).remedy
    )


@pytest.mark.parametrize("check", [check for check in CHECKS if check != "answers"])
def test_facts_that_could_not_be_read_are_red_in_every_check(check: str) -> None:
    failed = {FAILED: "no answer within 5 s"}
    options = {"storage": "/runs", "data": "/data", "wandb": "http://w"}
    verdict = look(check, {"a": failed, "b": failed}, CPUS, **options)
    assert red(verdict) == {"it could not be examined: no answer within 5 s": ("a", "b")}
    assert verdict.cells == {"a": "?", "b": "?"}


@pytest.mark.parametrize("check", CHECKS)
def test_a_cluster_in_which_no_node_answers_breaks_no_check(check: str) -> None:
    verdict = look(check, {"a": {}, "b": {}}, silent={"a": "gone", "b": "gone"})
    assert bool(verdict.find("red")) == (check == "answers")


def test_calls_that_hang_do_not_delay_the_others() -> None:
    import threading

    never = threading.Event()
    found = run_all({"hangs": never.wait, "fails": lambda: int("x"), "works": lambda: 3}, limit_s=0.2)
    assert [type(each).__name__ for each in found.values()] == ["Slow", "ValueError", "int"]


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        # version 2, in a container that sees its own group as the root
        ("0::/", {"cpu.max": "250000 100000", "memory.max": "1000", "memory.current": "700"}, Limits(2.5, 1000, 700)),
        ("0::/", {"cpu.max": "max 100000", "memory.max": "max"}, Limits()),
        # version 2, where a group above is stricter
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "300000 100000"}, Limits(1.0)),
        # version 1
        (
            "4:memory:/x\n1:cpu,cpuacct:/x",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
                "memory/x/memory.limit_in_bytes": "2000", "memory/x/memory.usage_in_bytes": "1500",
                "memory/x/memory.stat": "inactive_file 1\ntotal_inactive_file 500",
            },
            Limits(0.5, 2000, 1000),
        ),
        # version 1 without limits
        (
            "4:memory:/\n1:cpu:/",
            {
                "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            Limits(),
        ),
        # version 1 in a container: the file names the host's path, which it does not see
        ("1:cpu:/docker/ab", {"cpu/cpu.cfs_quota_us": "20000", "cpu/cpu.cfs_period_us": "10000"}, Limits(2.0)),
    ],
)  # fmt: skip
def test_limits_of_control_groups_are_the_strictest(
    own: str, files: dict[str, str], limits: Limits, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(own + "\n")
    assert read_limits(write_tree(tmp_path / "cgroup", files), tmp_path / "own") == limits


def make_examined(count: int, faulty: int) -> Examined:
    nodes = tuple(Node(f"a-node-with-a-long-name-{number}", f"10.0.0.{number}") for number in range(count))
    verdict = Verdict({node.name: "1,024" for node in nodes})
    for node in nodes[:faulty]:
        verdict.red(node.name, "a process may open 1,024 files, and Ray needs at least 4,096", "`ulimit -n 65536`")
    return Examined("10.0.0.0:6379", nodes, {}, {"open-files": verdict}, {"open-files": {}})


@pytest.mark.parametrize("count", [1, 3, 6, 7, 100])
@pytest.mark.parametrize("faulty", [0, 1, 100])
def test_text_has_80_columns_and_one_line_for_a_fault_of_many_nodes(count: int, faulty: int) -> None:
    text = draw(make_examined(count, faulty))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("-> `ulimit -n 65536`") == (1 if faulty else 0)
    assert len(text.splitlines()) < 40


def test_text_of_many_nodes_shows_those_with_findings() -> None:
    text = draw(make_examined(100, 2))
    assert "98 nodes more: nothing was found." in text
    assert "ith-a-long-name-1" in text
    assert "ith-a-long-name-2" not in text


def test_page_has_a_row_for_each_check_as_the_table_has_it() -> None:
    page = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
    for check in CHECKS.values():
        assert f"\n| `{check.name}` | {check.summary} | {check.red} | {check.remedy} |\n" in page
    assert page.count("\n| `") == len(CHECKS)


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_every_check_asks_nodes_in_one_way_and_says_when_it_is_red(check: Any) -> None:
    assert bool(check.reader) != bool(check.survey)
    assert check.red
    assert check.remedy
