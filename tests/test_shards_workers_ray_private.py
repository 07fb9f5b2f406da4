"""Ray's private interfaces are what shards/workers/ray_private.py takes them for; another Ray fails with a sentence."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import ray

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "shards/workers/ray_private.py"

# Function of ray_private -> what it takes of Ray (module:name[.attribute]), and the parameters that it passes.
USES: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "make_safe_job": [("ray.job_config:JobConfig._runtime_env_has_working_dir", ("self",))],
    "put_text": [("ray.experimental.internal_kv:_internal_kv_put", ("key", "value", "namespace"))],
    "read_text": [("ray.experimental.internal_kv:_internal_kv_get", ("key", "namespace"))],
    "remove_text": [("ray.experimental.internal_kv:_internal_kv_del", ("key", "namespace"))],
    "list_texts": [("ray.experimental.internal_kv:_internal_kv_list", ("prefix", "namespace"))],
    "_coordinator": [
        (
            "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator:"
            "get_or_create_autoscaling_coordinator",
            (),
        )
    ],
    "recount_nodes": [
        (
            "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator:"
            "_AutoscalingCoordinatorActor.get_reserved_resources",
            ("requester_id", "recompute"),
        )
    ],
    "cancel_reservation": [
        (
            "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator:"
            "_AutoscalingCoordinatorActor.cancel_request",
            ("requester_id",),
        )
    ],
    "remove_group": [
        ("ray._raylet:PlacementGroupID", ()),
        ("ray.util.placement_group:remove_placement_group", ("placement_group",)),
    ],
    "read_preemption_notice": [("ray.train.v2._internal.execution.context:get_train_context", ())],
    "build_trainer": [
        (
            "ray.train.v2._internal.execution.failure_handling:DefaultFailurePolicy.make_decision",
            ("self", "training_failed_error"),
        ),
        ("ray.train.v2._internal.execution.failure_handling:FailureDecision.RAISE", ()),
        ("ray.train.torch:TorchTrainer._initialize_and_run_controller", ("self",)),
    ],
    "make_torch_config": [
        ("ray.train.torch.config:_TorchBackend.on_start", ("self", "worker_group", "backend_config")),
        ("ray.train.torch:TorchConfig.backend_cls", ()),
        ("ray.train.v2._internal.execution.worker_group.worker_group:WorkerGroup.execute", ("self", "fn")),
    ],
    "unwrap_failure": [("ray.train.v2._internal.exceptions:WorkerHealthCheckFailedError", ("message", "failure"))],
    "apply_serve_config": [("ray.serve.schema:ServeDeploySchema.model_validate", ("obj",))],
    "_read_configs": [("ray.serve._private.controller:ServeController.get_app_configs", ("self",))],
    "_open_serve": [("ray.serve.context:_get_global_client", ("raise_if_no_controller_running",))],
    "read_serve_port": [("ray.serve.context:_get_global_client", ("raise_if_no_controller_running",))],
    "read_serve_config": [("ray.serve._private.controller:ServeController.get_app_configs", ("self",))],
    "list_serve_replicas": [("ray.serve._private.client:ServeControllerClient.get_serve_details", ("self",))],
    "read_serve_routes": [("ray.serve._private.client:ServeControllerClient.get_serve_details", ("self",))],
    "start_counter": [("ray.util.metrics:Metric._record", ("self", "value", "tags"))],
    "find_running": [
        ("ray._private.services:find_gcs_addresses", ()),
        ("ray._private.services:find_bootstrap_address", ("temp_dir",)),
    ],
    "read_node_timers": [("ray._raylet:Config", ())],
}
PUBLIC = {"_use_node_interface"}
"""Functions there that use nothing private by themselves."""


def explain_change(function: str, place: str, parameters: tuple[str, ...]) -> str:
    """Return what another Ray changed, in a sentence; nothing if it is as it was."""
    module, _, path = place.partition(":")
    end = f"; {function} of shards/workers/ray_private.py needs it, so mend that function for this Ray"
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = inspect.getattr_static(found, name) if inspect.isclass(found) else getattr(found, name)
    except (ImportError, AttributeError) as err:
        return f"Ray {ray.__version__} has no {place} ({err}){end}"
    if not parameters:
        return ""
    found = getattr(found, "__func__", getattr(found, "__wrapped__", found))
    there = inspect.signature(found).parameters
    missing = [name for name in parameters if name not in there]
    return f"{place} of Ray {ray.__version__} takes no {', '.join(missing)}, but {', '.join(there)}{end}" * bool(
        missing
    )


CASES = [(function, place, parameters) for function, uses in USES.items() for place, parameters in uses]


@pytest.mark.parametrize(("function", "place", "parameters"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_ray_has_what_is_taken_of_it(function: str, place: str, parameters: tuple[str, ...]) -> None:
    changed = explain_change(function, place, parameters)
    assert not changed, changed


def test_every_function_of_the_module_is_looked_at() -> None:
    functions = [node.name for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert set(functions) == set(USES) | PUBLIC


@pytest.mark.parametrize(
    ("place", "parameters", "said"),
    [
        ("ray.serve.context:_get_global_clients", (), "has no ray.serve.context:_get_global_clients"),
        ("ray.serve.contexts:_get_global_client", (), "has no ray.serve.contexts:"),
        ("ray.serve.context:_get_global_client", ("raises",), "takes no raises, but raise_if_no_controller_running"),
    ],
)
def test_change_of_ray_is_told_in_a_sentence(place: str, parameters: tuple[str, ...], said: str) -> None:
    changed = explain_change("read_serve_port", place, parameters)
    assert said in changed
    assert "read_serve_port of shards/workers/ray_private.py needs it" in changed
