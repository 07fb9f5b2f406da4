"""A running endpoint as its operator sees it: its bundles, its replicas, and changes that all replicas follow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve

from cluster.serve.endpoint import APPLICATION, DEPLOYMENT, find_trouble
from cluster.serve.place import spell_bundle
from cluster.serve.report import ReplicaReport, read_report
from cluster.serve.rollout import Rollout
from shards.errors import ShardError, UsageError
from shards.workers.ray_cluster import join_running
from shards.workers.ray_private import apply_serve_config, list_serve_replicas, read_serve_config, read_serve_port

_POLL_S = 0.05
_RUNNING = "RUNNING"


@dataclass(frozen=True)
class ReplicaState:
    """A replica: its id, its state in Ray Serve, its node, and its report if it has made one."""

    name: str
    state: str
    node: str
    report: ReplicaReport | None


class Service:
    """The endpoint of this name in the Ray cluster that this process has joined.

    Raises:
        UsageError: There is none, or it was not deployed by configuration.
    """

    def __init__(self, name: str = APPLICATION) -> None:
        self._name = name
        self._config = _read_config(name)

    @classmethod
    def join(cls, address: str | None = None, name: str = APPLICATION) -> Service:
        """Join the Ray cluster at `address`, the local one by default, and return its endpoint.

        Raises:
            ConnectionError: No cluster answers.
            UsageError: It has no endpoint.
        """
        join_running(address)
        return cls(name)

    @property
    def rollout(self) -> Rollout:
        """Which bundles it has, and which of them answers."""
        return Rollout.model_validate(self._deployment["user_config"])

    @property
    def _deployment(self) -> dict[str, Any]:
        return next(each for each in self._config["deployments"] if each["name"] == DEPLOYMENT)

    def list_replicas(self) -> list[ReplicaState]:
        """Return its replicas."""
        found = list_serve_replicas(self._name, DEPLOYMENT)
        return [
            ReplicaState(each["id"], each["state"], each["node"], read_report(self._name, each["id"])) for each in found
        ]

    @property
    def is_broken(self) -> bool:
        """Whether replicas have ended that cannot start again."""
        return find_trouble(self._name) is not None

    def list_metrics(self) -> list[str]:
        """Return the addresses at which Ray's agents serve the metrics of the replicas on their nodes."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        return [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in alive]

    def follow(self, rollout: Rollout, timeout_s: float) -> None:
        """Make all replicas follow a rollout, and return when they do.

        Raises:
            ShardError: A replica cannot, or not in time; all have been told to stay with what they had.
        """
        before = self.rollout
        self._put(rollout)
        try:
            self._wait(rollout, timeout_s)
        except ShardError:
            self._put(before)
            raise

    def _put(self, rollout: Rollout) -> None:
        self._deployment["user_config"] = rollout.model_dump()
        apply_serve_config([self._config])

    def _wait(self, rollout: Rollout, timeout_s: float) -> None:
        until, waking = time.monotonic() + timeout_s, None
        while True:
            replicas = self.list_replicas()
            if not replicas and waking is None:  # all have ended for want of requests, and one must check the bundle
                waking = serve.get_app_handle(self._name).wake.remote()
            asked = [each.report for each in replicas if each.report and each.report.asked == rollout]
            failed = next((report.failed for report in asked if report.failed), None)
            if failed:
                raise ShardError(f"a replica refuses it, and all stay with the bundle that they have: {failed}")
            if replicas and len(asked) == len(replicas) and all(each.state == _RUNNING for each in replicas):
                return
            if time.monotonic() > until:
                raise ShardError(
                    f"{len(replicas) - len(asked)} of {len(replicas)} replicas did not follow within {timeout_s:g} s, "
                    "and all stay with the bundle that they have; look at `ray status`, or allow more with --timeout-s"
                )
            time.sleep(_POLL_S)


def _read_config(name: str) -> dict[str, Any]:
    config = read_serve_config(name) if read_serve_port() is not None else None
    if config is None:
        raise UsageError(
            f"this Ray cluster has no endpoint '{name}' of `python -m cluster.serve` or `serve deploy`; start one, or "
            "give the --address of its cluster. One of `serve run` is restarted with another bundle instead"
        )
    if not any(each["name"] == DEPLOYMENT and each.get("user_config") for each in config.get("deployments", [])):
        rollout = Rollout(bundle=spell_bundle(config.get("args", {}).get("bundle", ""))).model_dump()
        config = {**config, "deployments": [{"name": DEPLOYMENT, "user_config": rollout}]}
    return config
