"""Tiny real data, one bundle and one small Ray cluster, shared by all tests of a session."""

from __future__ import annotations

import os
import signal

# Before anything imports ray or torch: they read these once. Tiny models: a team of threads costs more than it brings.
os.environ.update(
    OMP_NUM_THREADS="1",
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    RAY_raylet_start_wait_time_s="120",
    RAY_SERVE_SLOW_STARTUP_WARNING_S="600",
    RAY_metrics_report_interval_ms="1000",
    WANDB_SILENT="true",
    # The keys of the tests' own object store: worker processes inherit what the first of them was started with.
    AWS_ACCESS_KEY_ID="test-key",
    AWS_SECRET_ACCESS_KEY="test-secret",
    AWS_EC2_METADATA_DISABLED="true",
)
os.environ.pop("RAY_ADDRESS", None)

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from endpoints import OPTIONS, find_free_port
from hypothesis import HealthCheck, settings
from object_stores import SeaweedFS, run_gcs, run_seaweedfs
from PIL import Image
from several_labels import write_shapes
from xdist.scheduler import LoadScopeScheduling

from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.contract.bundle import save_bundle
from trainer.contract.decision.decision import Decision
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.preprocess import PreprocessSpec, prepare
from trainer.contract.probes import synthesise_pictures

# A shell ignores Ctrl-C for what it starts in the background, and so would every command that a test stops by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no reason to fail: speed lives in tests/bench. `make test-slow` takes the thorough ones.
for name, examples in (("quick", 24), ("thorough", 200)):
    settings.register_profile(name, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quick")

COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (200, 50, 40)}
PER_SPLIT = {"train": 24, "val": 8, "test": 8}


def make_pictures(root: Path, per_split: dict[str, int] = PER_SPLIT, size: int = 48) -> Path:
    """Write split/class folders of noisy one-colour pictures, PNG and JPEG; a class is its colour."""
    rng = np.random.default_rng(0)
    for split, count in per_split.items():
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = (int(side) for side in rng.integers(size * 3 // 4, size * 5 // 4, 2))
                pixels = rng.normal(colour, 45, (height, width, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}.{number}.{'png' if number % 2 else 'jpg'}")
    return root


class ByModule(LoadScopeScheduling):
    """Keeps the tests of a module, and all modules that use the Ray cluster, in one of the processes of `make test`."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        text = (self.config.rootpath / module).read_text(encoding="utf-8")
        return "ray" if "ray_cluster" in text or "endpoint_url" in text else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    return ByModule(config, log)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder train|val|test / blue|green|red with 24, 8 and 8 pictures a class."""
    return make_pictures(tmp_path_factory.mktemp("pictures") / "colours")


@pytest.fixture(scope="session")
def dataset_path(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pictures`, packed into several shards a split."""
    out = tmp_path_factory.mktemp("dataset") / "colours"
    pack(find_sources(pictures), out, PackOptions(shard_bytes=40_000))
    return out


@pytest.fixture(scope="session")
def multi_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-label dataset of bars, discs and squares with 112, 56 and 56 pictures, each set of them equally often."""
    root = tmp_path_factory.mktemp("multi")
    listed = write_shapes(root / "shapes", {"train": 16, "val": 8, "test": 8})
    pack(find_sources(listed), root / "shards", PackOptions(shard_bytes=40_000))
    return root / "shards"


def train_smoke(data: Path, root: Path, *options: str) -> Path:
    """Train one epoch of the smoke recipe in this process and return the run's folder."""
    from trainer.recipes.file import load_recipe
    from trainer.run.launch import launch

    named = [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", "epochs=1", "name=run"]
    return launch(load_recipe("smoke", [*named, *options])).path


@pytest.fixture(scope="session")
def named_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose classes and files have Chinese names and signs of HTML; the dataset's source is `named`, beside it.

    A third of its test pictures lie in the wrong class.
    """
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("named")
    classes = {"新冠肺炎": (200, 60, 60), "<i>x & 'y'": (60, 60, 200)}
    for split, count in {"train": 18, "val": 6, "test": 12}.items():
        for name, other in zip(classes, reversed(classes), strict=True):
            (root / "named" / split / name).mkdir(parents=True)
            for number in range(count):
                colour = classes[other if split == "test" and number % 3 == 0 else name]
                pixels = rng.normal(colour, 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / "named" / split / name / f"病人<i>x{number}.png")
    pack(find_sources(root / "named"), root / "shards", PackOptions())
    return train_smoke(root / "shards", root / "runs")


@pytest.fixture(scope="session")
def several_run(multi_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures of several labels."""
    return train_smoke(multi_path, tmp_path_factory.mktemp("several"), "loss.name=bce")


def make_bundle(folder: Path, pictures: Path, name: str, preprocess: PreprocessSpec, seed: int = 0) -> Path:
    """Save a bundle of a small untrained model with three classes, its BatchNorm settled on the training pictures.

    With the statistics of a new model the signal dies out layer by layer: a mirrored picture gets the same logits
    as the picture itself, and no comparison of logits could fail.
    """
    torch.manual_seed(seed)
    model = Classifier(ModelSpec(name=name, num_classes=3, in_channels=preprocess.channels))
    images = torch.stack([prepare(path.read_bytes(), preprocess) for path in sorted((pictures / "train").glob("*/*"))])
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # plain average
    with torch.no_grad():
        model.train()(images)
    save_bundle(
        folder,
        model,
        synthesise_pictures(),
        preprocess=preprocess,
        classes=list(COLOURS),
        display_names=list(COLOURS),
        decision=Decision(),
        probes="synthetic",
        dataset="0" * 64,
        recipe="0" * 64,
        metrics={},
    )
    return folder


@pytest.fixture(scope="session")
def bundle_path(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `make_bundle`."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    return make_bundle(folder, pictures, "shufflenet_v2_x0_5", PreprocessSpec(size=64))


@pytest.fixture(scope="session")
def exported_path(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose `exports` hold it as an ONNX file; its pictures are cropped. To be copied by who changes it."""
    from trainer.contract.compute.exported import default_path
    from trainer.export.export import export_bundle

    preprocess = PreprocessSpec(size=40, policy="crop", resize=48, rounding="down", interpolation="bicubic")
    folder = make_bundle(tmp_path_factory.mktemp("exported") / "bundle", pictures, "timm/test_resnet", preprocess)
    export_bundle(folder, "onnx", default_path(folder, "onnx"))
    return folder


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A real store that speaks S3 and HTTP; the keys are in the environment."""
    keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    with run_seaweedfs(tmp_path_factory.mktemp("s3"), *keys) as store:
        yield store


@pytest.fixture(scope="session")
def s3(seaweedfs: SeaweedFS) -> str:
    """A format string for URIs in the store: `s3.format(path="a/b")`."""
    return seaweedfs.s3


@pytest.fixture(scope="session")
def http_shards(seaweedfs: SeaweedFS) -> str:
    """The same for http://, to be read only; what is written to the s3:// URI of a path is at the http:// URL of it."""
    return seaweedfs.http


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same for gs://."""
    with run_gcs(tmp_path_factory.mktemp("gcs")) as uri:
        yield uri


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of one small local Ray cluster; commands that tests start join it through RAY_ADDRESS."""
    import ray

    context = ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
    )
    address = context.address_info["address"]
    os.environ["RAY_ADDRESS"] = address
    yield address
    _ENDPOINT.close()
    os.environ.pop("RAY_ADDRESS")
    ray.shutdown()


@pytest.fixture(scope="session")
def decided_path(bundle_path: Path, dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with all that a decision can have but a temperature, which its untrained model does not give."""
    from shards.cli.ending import run_command
    from trainer.decide.__main__ import main

    out = tmp_path_factory.mktemp("decided") / "bundle"
    wish = ["--no-temperature", "--point", "recall>=0.5", "--positive", "red", "--conformal", "0.8", "--ood", "0.9"]
    assert run_command(main, [str(bundle_path), str(dataset_path), *wish, "--out", str(out)]) == 0
    return out


class _Endpoint:
    """The session's endpoint: it stays up as long as modules that use it follow each other, then its CPU is free."""

    url: str | None = None

    def open(self, bundle: Path) -> str:
        from cluster.serve import endpoint
        from cluster.serve.options import read_options

        if self.url is None:
            port = find_free_port()
            endpoint.deploy(read_options({"bundle": bundle, **OPTIONS}), "127.0.0.1", port, name="tested")
            self.url = f"http://127.0.0.1:{port}"
        return self.url

    def close(self) -> None:
        if self.url is not None:
            from ray import serve

            from cluster.serve import endpoint

            endpoint.remove(everything=False, name="tested")
            serve.shutdown()
            self.url = None


_ENDPOINT = _Endpoint()


def pytest_runtest_setup(item: Any) -> None:
    """Take the endpoint down before a test that uses the cluster without it."""
    if "ray_cluster" in item.fixturenames and "endpoint_url" not in item.fixturenames:
        _ENDPOINT.close()


@pytest.fixture(scope="module")
def endpoint_url(ray_cluster: str, decided_path: Path) -> str:
    """The address of an endpoint in the session's cluster, behind Ray Serve's proxy in Python."""
    return _ENDPOINT.open(decided_path)
