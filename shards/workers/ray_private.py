"""All uses of Ray's private interfaces, so that a new version of Ray needs changes in one place only.

Each function imports what it needs: a replica that serves must not load Ray Train.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import shards.workers.ray_cluster  # noqa: F401  # isort: skip, it quiets Ray

import ray
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_list, _internal_kv_put

from shards.errors import UsageError

_NAMESPACE = "shardline"
_REQUEST_TIMEOUT_S = 5.0


def make_safe_job() -> Any:
    """Return job settings whose workers do not search the folder of the command for modules."""
    from ray.job_config import JobConfig

    class SafeJob(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            return True  # Ray uses it only to decide whether workers search that folder

    return SafeJob()


def start_counter(counter: Any, tags: dict[str, str]) -> None:
    """Let a counter of `ray.util.metrics` begin at 0; its `inc` refuses 0."""
    counter._record(0.0, tags=tags)


def put_text(key: str, text: str) -> None:
    """Keep a text in the cluster's key-value store, readable by every process of the cluster."""
    _internal_kv_put(key, text.encode(), namespace=_NAMESPACE)


def read_text(key: str) -> str | None:
    """Return the text that `put_text` stored under `key`, None if there is none."""
    found: bytes | None = _internal_kv_get(key, namespace=_NAMESPACE)
    return None if found is None else found.decode()


def remove_text(key: str) -> None:
    _internal_kv_del(key, namespace=_NAMESPACE)


def list_texts(prefix: str) -> list[str]:
    """Return the keys with this prefix in the cluster's key-value store, sorted."""
    return sorted(key.decode() for key in _internal_kv_list(prefix, namespace=_NAMESPACE))


def recount_nodes() -> None:
    """Make Ray list its nodes now and not only every 20 s; elastic ranks are started by that list."""
    ray.get(_coordinator().get_reserved_resources.remote("shardline", recompute=True), timeout=_REQUEST_TIMEOUT_S)


def cancel_reservation(run_id: str) -> None:
    """Release what an attempt of Ray Train reserved, which Ray otherwise keeps for 3 minutes."""
    ray.get(_coordinator().cancel_request.remote(f"train-{run_id}"), timeout=_REQUEST_TIMEOUT_S)


def _coordinator() -> Any:
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as module

    return module.get_or_create_autoscaling_coordinator()


def remove_group(name: str) -> None:
    """Remove the placement group with this id (hexadecimal digits), wherever it was made."""
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def read_preemption_notice() -> Any:
    """Return Ray Train's notice that a node of this run will be taken away, None if there is none.

    `ray.train.get_preemption_info` returns the same, but is a barrier over all ranks.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info


def build_trainer(is_final: Callable[[Exception], bool], *arguments: Any, **options: Any) -> Any:
    """Return a TorchTrainer that does not restart ranks after a final error; otherwise Ray Train's policy decides.

    Args:
        is_final: Returns whether an error is final; called by Ray Train's controller, in another process.
        arguments: Of the TorchTrainer, as are the options.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision

    class Policy(DefaultFailurePolicy):
        def make_decision(self, training_failed_error: Exception) -> Any:
            if is_final(training_failed_error):
                return FailureDecision.RAISE
            return super().make_decision(training_failed_error)

    class Trainer(TorchTrainer):
        def _initialize_and_run_controller(self, **options: Any) -> Any:
            # There is no public way to set a failure policy.
            options["failure_policy"] = Policy(self.run_config.failure_config)
            return super()._initialize_and_run_controller(**options)

    return Trainer(*arguments, **options)


def make_torch_config(timeout_s: int) -> Any:
    """Return the settings of a process group whose ranks reach each other by the addresses of their nodes.

    timeout_s: After so many seconds, a collective operation fails.
    """
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    class Backend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(_use_node_interface)  # before the ranks join
            super().on_start(worker_group, backend_config)

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> type[Backend]:
            return Backend

    return Config(timeout_s=timeout_s)


def _use_node_interface() -> None:
    from shards.workers.network import use_interface

    use_interface(ray.util.get_node_ip_address())


def unwrap_failure(failure: Exception) -> Exception:
    """Return the cause of a worker's failure, unwrapped from Ray Train's errors for exceptions and for lost workers."""
    unwrapped: Exception = getattr(failure, "health_check_failure", getattr(failure, "_base_exc", failure))
    return unwrapped


def apply_serve_config(applications: list[dict[str, Any]]) -> None:
    """Deploy applications to this cluster's Ray Serve as `serve deploy` does, which needs no dashboard here.

    All others that were deployed in this way stay as they are.

    Args:
        applications: As in the files of `serve deploy`, see `ray.serve.schema.ServeApplicationSchema`.

    Raises:
        RayServeException, ValueError: Ray Serve refuses them.
    """
    from ray.serve.schema import ServeDeploySchema

    client = _open_serve()
    mine = {each["name"] for each in applications}
    others = [
        config.model_dump(exclude_unset=True) for name, config in _read_configs(client).items() if name not in mine
    ]
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [*others, *applications]}))


def read_serve_config(name: str) -> dict[str, Any] | None:
    """Return the application of this name as it was deployed by `apply_serve_config` or `serve deploy`, if it was."""
    found = _read_configs(_open_serve()).get(name)
    return None if found is None else dict(found.model_dump(exclude_unset=True))


def list_serve_replicas(application: str, deployment: str) -> list[dict[str, str]]:
    """Return id, state, node and pid of each replica of a deployment; none if there is no such application.

    A replica that is starting has no node and no pid yet.
    """
    found = _open_serve().get_serve_details()["applications"].get(application, {})
    replicas = found.get("deployments", {}).get(deployment, {}).get("replicas", [])
    return [
        {
            "id": each["replica_id"],
            "state": each["state"],
            "node": each.get("node_ip") or "",
            "pid": str(each.get("pid") or ""),
        }
        for each in replicas
    ]


def read_serve_routes() -> dict[str, str | None]:
    """Return the route prefix of each application of this cluster's Ray Serve, by name."""
    details = _open_serve().get_serve_details()["applications"]
    return {name: each.get("route_prefix") for name, each in details.items()}


def _read_configs(client: Any) -> dict[str, Any]:
    """Return the configuration of each application that is there: Ray keeps those of removed ones, too."""
    there = client.get_serve_details()["applications"]
    alive = {name for name, each in there.items() if each["status"] != "DELETING"}
    found = ray.get(client._controller.get_app_configs.remote())
    return {name: config for name, config in found.items() if name in alive}


def _open_serve() -> Any:
    from ray.serve.context import _get_global_client

    return _get_global_client()


def read_serve_port() -> int | None:
    """Return the port that this cluster's Ray Serve listens on, None if Serve is not running.

    Without the dashboard, Ray shows it nowhere else.
    """
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else int(client.http_config.port)


def find_running() -> str | None:
    """Return HOST:PORT of the Ray cluster that runs on this machine, None if there is none.

    Raises:
        UsageError: There are several, and none of them was the last to be started by `ray start`.
    """
    from ray._private import services

    running = sorted(services.find_gcs_addresses())
    last: str | None = services.find_bootstrap_address(None)
    if last in running or len(running) < 2:
        return last if last in running else next(iter(running), None)
    raise UsageError(f"several Ray clusters run on this machine: {', '.join(running)}; give the --address of one")


def read_node_timers() -> dict[str, int]:
    """Return Ray's settings for lost nodes as this process's environment has them; the head's node has those in force.

    period_ms and timeout_ms: of a health check; failure_threshold: checks that must fail one after another.
    """
    from ray import _raylet

    config: Any = _raylet.Config  # type: ignore[attr-defined]
    return {
        "period_ms": config.health_check_period_ms(),
        "timeout_ms": config.health_check_timeout_ms(),
        "failure_threshold": config.health_check_failure_threshold(),
    }
