"""The files for Kubernetes: every overlay is rendered by kubectl, and read by the schemas and programs that it is for.

No cluster is started. KubeRay's schemas lie beside the repository, or in the folder that SHARDLINE_KUBERAY names.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from entrypoints import Read, read_entrypoint, split_entrypoint
from fleet import TIMERS
from pyarrow.fs import FileSystem, LocalFileSystem, copy_files
from pydantic import BaseModel
from ray.scripts.scripts import cli
from ray.serve.schema import ServeDeploySchema

from cluster.serve.app import build
from cluster.serve.endpoint import DEPLOYMENT
from cluster.serve.options import ServeOptions, read_options
from cluster.serve.rollout import Rollout
from shards.errors import UsageError

ROOT = Path(__file__).parent.parent
K8S = ROOT / "infra/k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
KUBECTL = Path(sys.executable).with_name("kubectl")
SCHEMAS = Path(os.environ.get("SHARDLINE_KUBERAY", ROOT.parent / "shared/kuberay"))
KUBERNETES = kubernetes_validate.latest_version()
SECRETS = {"shardline-ray-token": "auth_token", "shardline-redis": "password", "shardline-s3": None}
"""Secrets that the files refer to -> the key that is read; None: all keys become variables."""

Document = dict[str, Any]


@functools.cache
def render_text(folder: Path) -> str:
    command = [KUBECTL, "kustomize", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def render(overlay: str) -> list[Document]:
    return [*yaml.load_all(render_text(K8S / "overlays" / overlay), yaml.CSafeLoader)]


def pick(overlay: str, kind: str) -> list[Document]:
    return [each for each in render(overlay) if each["kind"] == kind]


def list_clusters(overlay: str) -> Iterator[tuple[str, Document]]:
    """Yield the name of each document that has a Ray cluster, and the cluster's spec."""
    for each in render(overlay):
        spec, name = each.get("spec", {}), f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "RayCluster":
            yield name, spec
        for path in ("rayClusterSpec", "rayClusterConfig"):
            if path in spec.get("jobTemplate", spec):
                yield name, spec.get("jobTemplate", spec)[path]


def list_groups(overlay: str) -> Iterator[tuple[str, Document]]:
    for name, cluster in list_clusters(overlay):
        yield f"{name} head", cluster["headGroupSpec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{name} {group['groupName']}", group


def list_pods(overlay: str) -> Iterator[tuple[str, Document]]:
    """Yield each template of a pod."""
    for name, group in list_groups(overlay):
        yield name, group["template"]
    for each in render(overlay):
        spec = each.get("spec", {})
        if each["kind"] == "StatefulSet":
            yield each["metadata"]["name"], spec["template"]
        if template := spec.get("jobTemplate", spec).get("submitterPodTemplate"):
            yield f"{each['metadata']['name']} submitter", template


def list_containers(overlay: str) -> Iterator[tuple[str, Document, Document]]:
    for name, template in list_pods(overlay):
        for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]:
            yield name, template["spec"], container


def list_jobs(overlay: str) -> Iterator[tuple[str, Document]]:
    for kind in ("RayJob", "RayCronJob"):
        for each in pick(overlay, kind):
            yield each["metadata"]["name"], each["spec"].get("jobTemplate", each["spec"])


def test_there_are_three_overlays() -> None:
    assert OVERLAYS == ["cpu-dev", "gpu", "s3"]


KINDS = {
    "ConfigMap", "Namespace", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget", "PodMonitor",
    "RayCluster", "RayCronJob", "RayJob", "RayService", "Service", "StatefulSet",
}  # fmt: skip
CUSTOM = ("RayCluster", "RayJob", "RayService")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_has_all_that_it_needs_and_is_in_one_namespace(overlay: str) -> None:
    documents = render(overlay)
    assert {each["kind"] for each in documents} == KINDS
    assert {each["metadata"].get("namespace") for each in documents if each["kind"] != "Namespace"} == {"shardline"}


@functools.cache
def read_schema(kind: str) -> Any:
    path = SCHEMAS / f"{kind}.json"
    if not path.is_file():
        pytest.skip(f"KubeRay's schemas are not in {SCHEMAS.name}/; SHARDLINE_KUBERAY names a folder that has them")
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def list_errors(document: Document) -> list[str]:
    """Return what KubeRay's schemas say about a document; the job of a RayCronJob is read as a RayJob."""
    if document["kind"] == "RayCronJob":
        unknown = set(document["spec"]) - {"schedule", "timeZone", "suspend", "jobTemplate"}
        job = {**document, "kind": "RayJob", "spec": document["spec"]["jobTemplate"]}
        return [f"spec: unknown {name}" for name in sorted(unknown)] + list_errors(job)
    errors = read_schema(document["kind"]).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_documents_of_kuberay_are_as_its_schemas_say(overlay: str) -> None:
    for kind in (*CUSTOM, "RayCronJob"):
        for each in pick(overlay, kind):
            assert list_errors(each) == [], each["metadata"]["name"]


@pytest.mark.parametrize(
    ("kind", "path", "typo"),
    [
        ("RayCluster", ("spec",), "enableInTreeAutoScaling"),
        ("RayJob", ("spec",), "backOffLimit"),
        ("RayJob", ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec"), "toleration"),
        ("RayService", ("spec",), "serveConfig"),
        ("RayCronJob", ("spec",), "timezone"),
        ("RayCronJob", ("spec", "jobTemplate"), "entryPoint"),
    ],
)
def test_misspelt_field_of_kuberay_is_found(kind: str, path: tuple[str | int, ...], typo: str) -> None:
    document = copy.deepcopy(pick("gpu", kind)[0])
    functools.reduce(lambda tree, key: tree[key], path, document)[typo] = True  # type: ignore[index]
    assert [error for error in list_errors(document) if typo in error]


POD_MONITOR = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"selector", "podTargetLabels", "podMetricsEndpoints", "jobLabel", "namespaceSelector", "sampleLimit"},
    "spec.selector": {"matchLabels", "matchExpressions"},
    "spec.podMetricsEndpoints": {"port", "path", "interval", "scrapeTimeout", "relabelings", "metricRelabelings"},
}
"""Fields of the Prometheus operator's PodMonitor, written down by hand: its schema is not to be had here."""


def test_pod_monitor_has_fields_that_the_operator_knows_and_ports_that_pods_have() -> None:
    (monitor,) = pick("gpu", "PodMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    spec = monitor["spec"]
    levels = {"": [monitor], "spec": [spec], "spec.selector": [spec["selector"]]}
    for level, parts in {**levels, "spec.podMetricsEndpoints": spec["podMetricsEndpoints"]}.items():
        assert [set(part) - POD_MONITOR[level] for part in parts] == [set()] * len(parts)
    assert {each["port"] for each in spec["podMetricsEndpoints"]} <= list_ports("gpu")


def test_pod_monitor_names_metrics_as_prometheus_own_configuration_does() -> None:
    """Otherwise no alert and no dashboard would find one."""
    (monitor,) = pick("gpu", "PodMonitor")
    config = yaml.safe_load((ROOT / "infra/monitoring/prometheus.yml").read_text(encoding="utf-8"))
    (ours,) = {
        json.dumps(job["metric_relabel_configs"]) for job in config["scrape_configs"] if "metric_relabel_configs" in job
    }
    spelt = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    for each in monitor["spec"]["podMetricsEndpoints"]:
        rules = [{spelt.get(key, key): value for key, value in rule.items()} for rule in each["metricRelabelings"]]
        assert rules == json.loads(ours)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_heads_know_soon_that_a_pod_is_gone(overlay: str) -> None:
    for name, cluster in list_clusters(overlay):
        (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
        found = {each["name"]: each["value"] for each in head["env"] if each["name"].startswith("RAY_health_check")}
        assert found == TIMERS, name


def list_ports(overlay: str) -> set[str]:
    return {port["name"] for _, _, container in list_containers(overlay) for port in container.get("ports", [])}


def test_network_policies_name_ports_and_labels_that_pods_have() -> None:
    for overlay in OVERLAYS:
        rules = [rule for each in pick(overlay, "NetworkPolicy") for rule in each["spec"]["ingress"]]
        named = [port["port"] for rule in rules for port in rule.get("ports", [])]
        assert {port for port in named if isinstance(port, str)} <= list_ports(overlay)
        parts = {name: template["metadata"]["labels"] for name, template in list_pods(overlay)}
        assert {labels.get("shardline/part") for labels in parts.values()} == {
            "cluster", "replicas", "submitter", None,
        }  # fmt: skip
        assert [name for name, labels in parts.items() if "shardline/part" not in labels] == ["redis"]


def validate(document: Document) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


@functools.cache
def validate_pod(template: str) -> None:
    """Check a template as a pod; those of several jobs are the same."""
    validate({"apiVersion": "v1", "kind": "Pod", **json.loads(template)})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_documents_and_pods_of_kubernetes_are_as_its_schemas_say(overlay: str) -> None:
    for each in render(overlay):
        if each["kind"] not in (*CUSTOM, "RayCronJob", "PodMonitor"):
            validate(each)
    for name, template in list_pods(overlay):
        validate_pod(json.dumps({**template, "metadata": {**template["metadata"], "name": "pod"}}))
        mounted = {m["name"] for c in template["spec"]["containers"] for m in c.get("volumeMounts", [])}
        claims = {"data"} if name == "redis" else set()
        assert mounted <= {volume["name"] for volume in template["spec"].get("volumes", [])} | claims, name


def test_misspelt_field_of_a_pod_is_found() -> None:
    _, template = next(list_pods("gpu"))
    spec = copy.deepcopy(template["spec"])
    spec["containers"][0]["volumeMount"] = spec["containers"][0].pop("volumeMounts")
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_referred_to_and_never_written_down(overlay: str) -> None:
    assert pick(overlay, "Secret") == []
    text = render_text(K8S / "overlays" / overlay)
    for name, key in re.findall(r"secretKeyRef:\n +key: (\S+)\n +name: (\S+)", text):
        assert SECRETS[key] == name
    referred = set(re.findall(r"(?:secretName|secretRef:\n +name): (\S+)", text))
    assert referred == {"shardline-ray-token"} | ({"shardline-s3"} if overlay == "s3" else set())
    for _, _, container in list_containers(overlay):
        for variable in container.get("env", []):
            is_secret = re.search("KEY|PASSWORD|SECRET|TOKEN", variable["name"])
            assert not is_secret or "value" not in variable, variable["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_pods_mount_is_there(overlay: str) -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in render(overlay)}
    for _, template in list_pods(overlay):
        for volume in template["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_run_as_a_user_without_rights_and_with_limited_memory(overlay: str) -> None:
    for name, pod, container in list_containers(overlay):
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        locked = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == locked, name
        assert "memory" in container["resources"]["limits"], name
        assert pod.get("automountServiceAccountToken") is False or name.startswith(("RayC", "RayJob")), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_tags_and_shardlines_are_of_this_version(overlay: str) -> None:
    for name, _, container in list_containers(overlay):
        image, _, tag = container["image"].partition(":")
        assert tag, name
        if image.startswith("shardline/"):
            assert tag.split("-")[0] == version("shardline"), name
            assert image == f"shardline/{'serve' if name.startswith('RayService') else 'train'}", name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_clusters_ask_for_a_token_and_ray_starts_with_options_that_it_has(overlay: str) -> None:
    clusters = dict(list_clusters(overlay))
    assert len(clusters) == 6
    for name, cluster in clusters.items():
        assert cluster["authOptions"] == {"mode": "token", "secretName": "shardline-ray-token"}, name
        assert cluster["rayVersion"] == version("ray")
        is_job = name.startswith(("RayJob", "RayCronJob"))
        assert ("gcsFaultToleranceOptions" in cluster) is not is_job, name
        if cluster.get("enableInTreeAutoscaling"):
            assert cluster["autoscalerOptions"]["version"] == "v2"
            groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
            assert {group["template"]["spec"]["restartPolicy"] for group in groups} == {"Never"}
        parameters = cluster["headGroupSpec"]["rayStartParams"]
        options = [f"--{key}={value}" for key, value in parameters.items()]
        assert cli.commands["start"].make_context("start", ["--head", *options]).params["num_cpus"] == 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_are_short_enough_for_what_the_operator_makes_of_them(overlay: str) -> None:
    for each in render(overlay):
        most = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}.get(each["kind"], 63)
        assert re.fullmatch(rf"[a-z]([-a-z0-9]{{0,{most - 2}}}[a-z0-9])?", each["metadata"]["name"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_runs_until_it_is_started(overlay: str) -> None:
    for kind in ("RayJob", "RayCronJob", "RayService"):
        for each in pick(overlay, kind):
            assert each["spec"]["suspend"], each["metadata"]["name"]
    for name, job in list_jobs(overlay):
        assert job["shutdownAfterJobFinishes"], f"{name}: the operator suspends no job without it"


def read_job(overlay: str, entrypoint: str, folder: Path) -> list[Read | None]:
    """Return what the commands of an entrypoint ask for; None for `python -c` whose text is Python."""
    (recipes,) = pick(overlay, "ConfigMap")
    for name, text in recipes["data"].items():
        (folder / name).write_text(text, encoding="utf-8")
    found: list[Read | None] = []
    for words in split_entrypoint(entrypoint.replace("/etc/shardline", str(folder))):
        if words[:2] == ["python", "-c"]:
            compile(words[2], "entrypoint", "exec")
        found.append(None if words[1] == "-c" else read_entrypoint(words))
    return found


def count_places(cluster: Document, cpus: float, gpus: float) -> int:
    """Return how many processes fit into the workers that are there before a job starts."""
    places = 0
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        there = [int(float(limits["cpu"]) // cpus)]
        there += [int(float(limits.get("nvidia.com/gpu", 0)) // gpus)] if gpus else []
        places += group["minReplicas"] * min(there)
    return places


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_jobs_run_commands_of_this_project_with_room_for_them(overlay: str, tmp_path: Path) -> None:
    modules = {}
    for name, job in list_jobs(overlay):
        (read,) = [each for each in read_job(overlay, job["entrypoint"], tmp_path) if each]
        number, cpus, gpus = read.needs
        cpus = max(cpus, float(job.get("entrypointNumCpus", 0)))
        assert count_places(job["rayClusterSpec"], cpus, gpus) >= number, name
        modules[name] = read.module
    assert modules == {
        "pack": "shards pack", "train": "trainer.run", "sweep": "tune.run", "nightly": "trainer.evaluate",
    }  # fmt: skip


def test_elastic_run_has_room_for_all_its_ranks_when_the_groups_are_full(tmp_path: Path) -> None:
    for overlay in OVERLAYS:
        job = dict(list_jobs(overlay))["train"]
        full = copy.deepcopy(job["rayClusterSpec"])
        for group in full["workerGroupSpecs"]:
            group["minReplicas"] = group["maxReplicas"]
        (read,) = read_job(overlay, job["entrypoint"], tmp_path)
        assert read is not None
        assert read.recipe is not None
        assert count_places(full, *read.needs[1:]) >= read.recipe.most_ranks, overlay


@pytest.mark.parametrize(
    ("entrypoint", "sentence"),
    [
        ("python -m trainer.run /etc/shardline/recipe.yaml num_rank=2..8", "did you mean 'num_ranks'"),
        ("python -m trainer.run /etc/shardline/recipes.yaml", "recipes.yaml"),
        ("python -m trainer.run /etc/shardline/recipe.yaml storage.rooot=/data/runs", "did you mean 'root'"),
        ("python -m tune.run /etc/shardline/recipe.yaml /etc/shardline/spaces.yaml", "no space"),
        ("python -m shards pack /data/pictures /data/shards --on rey", "ray"),
        ("python -m trainer.evaluates /data/runs/train/bundle /data/incoming", "no command of this project"),
        ("python -m trainer.evaluate /data/runs/train/bundle", "name a bundle and a split"),
        ("pyhton -m trainer.evaluate /data/runs/train/bundle /data/x", "no command of this project"),
    ],
)
def test_command_with_a_mistake_is_found(entrypoint: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        read_job("gpu", entrypoint, tmp_path)


def list_unknown(model: type[BaseModel], values: Document) -> list[str]:
    """Return keys that a schema of Ray Serve would ignore."""
    return sorted(set(values) - set(model.model_fields))


def read_serve_config(text: str) -> tuple[ServeDeploySchema, ServeOptions]:
    """Return a serveConfigV2 as Ray and the endpoint read it.

    Raises:
        UsageError, ValueError: They do not take it.
    """
    values = yaml.safe_load(text)
    config = ServeDeploySchema.model_validate(values)
    (application,) = config.applications
    (given,) = values["applications"]
    unknown = list_unknown(ServeDeploySchema, values) + list_unknown(type(application), given)
    unknown += [key for each in given["deployments"] for key in set(each) - {"name", "user_config"}]
    module, _, function = application.import_path.partition(":")
    if unknown or getattr(import_module(module), function) is not build:
        raise ValueError(f"unknown {unknown}, or {application.import_path} is not the endpoint")
    options = read_options(application.args)
    (deployment,) = application.deployments
    assert deployment.name == DEPLOYMENT
    assert Rollout.model_validate(deployment.user_config).bundle == str(options.bundle)
    return config, options


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_endpoint_is_deployed_with_options_that_it_has_and_room_for_its_replicas(overlay: str) -> None:
    (service,) = pick(overlay, "RayService")
    config, options = read_serve_config(service["spec"]["serveConfigV2"])
    assert config.http_options.port == 8000
    cluster = service["spec"]["rayClusterConfig"]
    assert count_places(cluster, options.cpus_per_replica, options.gpus_per_replica) >= options.replicas
    serve = [p["containerPort"] for _, g in list_groups(overlay) for c in g["template"]["spec"]["containers"]
             for p in c["ports"] if p["name"] == "serve"]  # fmt: skip
    assert set(serve) == {8000}
    assert service["spec"]["upgradeStrategy"] == {"type": "NewCluster"}


def test_file_of_serve_deploy_is_read_alike() -> None:
    values = yaml.safe_load((ROOT / "infra/serve.yaml").read_text(encoding="utf-8"))
    ServeDeploySchema.model_validate(values)
    assert read_options(values["applications"][0]["args"]).replicas == 1


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("replicas: 2", "replica: 2"),
        ("cluster.serve.app:build", "cluster.serve.app:builds"),
        ("cluster.serve.app:build", "cluster.serve.apps:build"),
        ("route_prefix:", "route_prefixes:"),
        ("http_options:", "http_option:"),
        ("user_config: {bundle:", "user_config: {bundel:"),
        ("user_config:", "user_configs:"),
        ("args: {bundle:", "args: {bundles:"),
    ],
)
def test_mistake_in_the_deployment_is_found(right: str, wrong: str) -> None:
    (service,) = pick("gpu", "RayService")
    text = service["spec"]["serveConfigV2"]
    assert right in text
    with pytest.raises((UsageError, ValueError, AttributeError, ModuleNotFoundError)):
        read_serve_config(text.replace(right, wrong))


def list_fetches() -> Iterator[tuple[str, str]]:
    """Yield the Python text of every command that fetches a bundle, and the folder that it goes to."""
    for _, job in list_jobs("s3"):
        for words in split_entrypoint(job["entrypoint"]):
            if words[1] == "-c":
                yield words[2], re.findall(r'"(/\S+)"\)', words[2])[0]


def test_bundle_is_fetched_from_a_store(bundle_path: Path, s3: str, tmp_path: Path) -> None:
    stored = s3.format(path="k8s/runs/train/bundle")
    store, folder = FileSystem.from_uri(f"{stored}&allow_bucket_creation=true")  # weed makes it a moment later
    copy_files(str(bundle_path), folder, LocalFileSystem(), store)
    fetches = [*list_fetches()]
    assert len(fetches) == 1
    for number, (text, out) in enumerate(fetches):
        there = tmp_path / f"{number}/deep/bundle"
        mended = text.replace("s3://shardline/runs/train/bundle", stored).replace(out, str(there))
        subprocess.run([sys.executable, "-c", mended], check=True, timeout=120)
        assert sorted(path.name for path in there.rglob("*")) == sorted(path.name for path in bundle_path.rglob("*"))


def test_endpoint_of_the_store_has_its_bundle_and_keys_from_there() -> None:
    (service,) = pick("s3", "RayService")
    assert read_serve_config(service["spec"]["serveConfigV2"])[1].bundle == "s3://shardline/runs/train/bundle"
    containers = [container for name, _, container in list_containers("s3") if name.startswith("RayService")]
    assert len(containers) == 2
    for container in containers:
        assert container["envFrom"] == [{"secretRef": {"name": "shardline-s3"}}]
        assert container.get("volumeMounts", []) == []
