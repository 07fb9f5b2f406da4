"""Back ends: each gives the bundle's logits, and serving takes the one that was chosen, or says why not."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from cluster.serve.__main__ import main
from cluster.serve.options import read_options
from shards.cli.ending import run_command
from shards.cli.table import load_builder
from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_file
from trainer.contract.bundle import Bundle, read_versions
from trainer.contract.compute import openvino_backend
from trainer.contract.compute.backends import explain_missing, make_backend
from trainer.contract.compute.choice import Choice, Measured, choose, load_with_backend, read_cpu, record_choice
from trainer.contract.compute.exported import default_path
from trainer.contract.compute.parity import Parity, compare, require_parity
from trainer.contract.model.names import BACKENDS, BackendName
from trainer.predict import __main__ as predict

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
SLOW = ("compiled", "compiled-bf16")
"""A compiler takes minutes."""
ROWS = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in BACKENDS]
EXACT = Parity(pictures=8, max_dp=0, top1_agreement=1, max_logit=0)


@pytest.fixture(scope="module")
def bundle(exported_path: Path) -> Bundle:
    return Bundle.load(exported_path)


@pytest.fixture(scope="module")
def images(bundle: Bundle, pictures: Path) -> torch.Tensor:
    return torch.stack([bundle.prepare(path.read_bytes()) for path in sorted((pictures / "test").glob("*/*"))])


@pytest.fixture
def copy(exported_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_path, tmp_path / "bundle"))


def choice_of(name: BackendName, cpu: str | None = None) -> Choice:
    measured = Measured(backend=name, start_s=1, images_per_s={8: 100}, parity=EXACT)
    return Choice(
        cpu=cpu or read_cpu(), threads=1, date="2026-11-25", versions=read_versions(), chosen=name, measured=[measured]
    )


def check(name: BackendName, exported_path: Path, bundle: Bundle, images: torch.Tensor) -> None:
    file = default_path(exported_path, "onnx") if BACKENDS[name].of_a_file else None
    backend = make_backend(name, bundle.model, CPU, file)
    expected = bundle.compute_logits(images)
    eager_logits, eager_features = make_backend("eager", bundle.model, CPU).compute(images)
    assert torch.equal(eager_logits, expected)
    for batch in (1, 3, len(images)):
        with torch.inference_mode(batch == 3):  # as a caller likes
            logits, features = backend.compute(images[:batch])
        assert logits.dtype == features.dtype == torch.float32
        # 16 bits have 8 or 11 of precision, and weights that were not trained make the most of its errors.
        tolerance = 0.1 if BACKENDS[name].half else 1e-4
        assert compare(logits, expected[:batch]).max_logit < tolerance
        assert float((features - eager_features[:batch]).abs().max()) < tolerance * float(eager_features.abs().max())


@pytest.mark.parametrize("name", ROWS)
def test_every_back_end_gives_logits_and_features_of_the_bundle_where_the_machine_can(
    name: str, exported_path: Path, bundle: Bundle, images: torch.Tensor
) -> None:
    """What is added to the table is tested here; a library that is missing, and not a CPU's ability, is a failure."""
    row = BACKENDS[name]
    reason = load_builder(row.missing)(CPU) if row.missing else None
    if reason is None:
        assert explain_missing(name, CPU) is None
        check(name, exported_path, bundle, images)
    else:
        assert reason.startswith("needs ")
        assert explain_missing(name, CPU) == f"back end {name} {reason}"


def test_openvino_names_what_a_cpu_without_bf16_computes_in() -> None:
    reason = explain_missing("openvino-bf16", CPU)
    assert reason is None or "needs a CPU that computes in bf16; OpenVINO finds FP32" in reason


def test_openvino_tells_nobody_that_it_was_imported() -> None:
    openvino_backend.find_no_bf16(CPU)
    assert sys.modules["openvino"]
    assert sys.modules["openvino_telemetry"] is None
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.parametrize(("library", "name"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_missing_library_is_one_sentence(
    library: str, name: BackendName, exported_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    sentence = f"back end {name} needs {library}, which is not installed: pip install 'shardline[{name}]'"
    assert explain_missing(name, CPU) == sentence
    with pytest.raises(UsageError) as caught:
        load_with_backend(exported_path, backend=name)
    assert str(caught.value) == sentence


def test_a_gpu_has_no_back_ends_of_files() -> None:
    others = [name for name, row in BACKENDS.items() if not row.of_a_file]
    assert explain_missing("onnx", torch.device("cuda")) == (
        f"back end onnx computes on the CPU, not on cuda; use {', '.join(others[:-1])} or {others[-1]} there"
    )


def test_an_unknown_back_end_is_refused_with_a_near_one_by_all_that_take_a_name(exported_path: Path) -> None:
    names = ", ".join(BACKENDS)
    sentence = f"the back ends are auto, {names}, got 'onxn'; did you mean 'onnx'?"
    with pytest.raises(UsageError) as caught:
        load_with_backend(exported_path, backend="onxn")
    assert str(caught.value) == sentence
    with pytest.raises(UsageError) as caught:
        read_options({"bundle": "/b", "backend": "onxn"})
    assert str(caught.value) == f"option 'backend': {sentence}"
    with pytest.raises(ValidationError, match=f"the back ends are {names}, got 'auto'"):
        choice_of("auto")


@pytest.mark.parametrize("name", [name for name, row in BACKENDS.items() if row.library])
def test_library_of_a_back_end_is_in_its_extra_and_in_that_of_the_tests(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    row = BACKENDS[name]
    assert row.library in extras[row.extra]
    assert row.library in extras["dev"]


def test_the_fastest_that_keeps_parity_and_starts_in_time_is_chosen() -> None:
    eager = Measured(backend="eager", start_s=99, images_per_s={1: 10, 8: 10}, parity=EXACT)
    even = Measured(backend="onnx", start_s=1, images_per_s={1: 20, 8: 30}, parity=EXACT)
    uneven = Measured(backend="openvino", start_s=1, images_per_s={1: 5, 8: 100}, parity=EXACT)
    wrong = Measured(backend="bf16", start_s=1, images_per_s={1: 500, 8: 500}, parity=None)
    late = Measured(backend="compiled", start_s=21, images_per_s={1: 500, 8: 500}, parity=EXACT)
    assert choose([eager, even, uneven, wrong, late]) is even
    assert choose([eager, wrong, late]) is eager


def test_without_a_choice_eager_computes_and_a_sentence_says_how_to_choose(exported_path: Path) -> None:
    bundle, why = load_with_backend(exported_path)
    assert bundle.backend is None
    assert why == (
        f"computes with eager: no choice is recorded for {read_cpu()}; "
        f"python -m trainer.bench {exported_path} --choose measures and records one"
    )


def test_the_choice_for_this_cpu_computes(copy: Path, images: torch.Tensor) -> None:
    page = Bundle.load(copy).page
    record_choice(copy, page, choice_of("openvino", cpu="another"))
    record_choice(copy, page, choice_of("bf16"))
    record_choice(copy, page, choice_of("onnx"))  # in place of bf16
    bundle, why = load_with_backend(copy)
    assert bundle.backend is not None
    assert bundle.backend.name == "onnx"
    assert why == f"computes with onnx, the fastest on {read_cpu()} when measured on 2026-11-25"
    eager, why = load_with_backend(copy, backend="eager")
    assert (eager.backend, why) == (None, "computes with eager, as requested")
    assert not torch.equal(bundle.compute_logits(images), eager.compute_logits(images))  # it is another program
    require_parity(bundle.compute_logits(images), eager.compute_logits(images), 1e-4, "onnx")
    assert len(json.loads((copy / "exports" / "backends.json").read_bytes())["choices"]) == 2


def test_a_choice_for_another_cpu_is_not_taken(copy: Path) -> None:
    record_choice(copy, Bundle.load(copy).page, choice_of("onnx", cpu="another"))
    bundle, why = load_with_backend(copy)
    assert bundle.backend is None
    assert "no choice is recorded for" in why


def test_a_choice_that_cannot_be_taken_is_told_and_eager_computes(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record_choice(copy, Bundle.load(copy).page, choice_of("onnx"))
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "onnxruntime", None)
        bundle, why = load_with_backend(copy)
    assert bundle.backend is None
    assert why.startswith("computes with eager: back end onnx needs onnxruntime, which is not installed")
    default_path(copy, "onnx").unlink()
    bundle, why = load_with_backend(copy)
    assert bundle.backend is None
    assert "sha256 differs from model.onnx.json" in why
    assert [record.getMessage() for record in caplog.records][1] == why


def test_a_back_end_that_gives_other_logits_on_the_probes_is_refused(copy: Path, exported_path: Path) -> None:
    # The bundle's weights change, and its pages are made to fit: only computing shows that the ONNX file is of others.
    tensors = load_file(copy / "weights.safetensors")
    tensors["backbone.fc.bias"] += torch.tensor([3.0, -3.0, 0.0])
    save_file(tensors, copy / "weights.safetensors")
    probes = load_file(copy / "probes" / "probes.safetensors")
    probes["logits"] += torch.tensor([3.0, -3.0, 0.0])
    save_file(probes, copy / "probes" / "probes.safetensors")
    for path in (copy / "bundle.json", copy / "exports" / "model.onnx.json"):
        page = json.loads(path.read_bytes())
        path.write_text(json.dumps({**page, "weights_sha256": fingerprint_file(copy / "weights.safetensors")}))
    with pytest.raises(ShardError, match=r"back end onnx on the probes differs from the bundle: max \|dp\|"):
        load_with_backend(copy, backend="onnx")
    record_choice(copy, Bundle.load(copy).page, choice_of("onnx"))
    assert "back end onnx on the probes differs" in load_with_backend(copy)[1]


def test_a_back_end_of_a_file_says_how_to_make_the_file(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match=r"exports has none; make one with python -m trainer.export .* --to onnx"):
        load_with_backend(bundle_path, backend="onnx")
    with pytest.raises(UsageError, match=r"exports has none"):
        main([str(bundle_path), "--backend", "onnx"])  # before anything is started


def test_predict_computes_with_the_back_end_that_is_asked_for(
    exported_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {}
    for name in ("eager", "onnx"):
        arguments = [str(exported_path), str(pictures / "test" / "red"), "--backend", name, "--json"]
        assert run_command(predict.main, arguments) == 0
        rows[name] = [json.loads(line) for line in capsys.readouterr().out.split(os.linesep) if line]
    assert [row["label"] for row in rows["eager"]] == [row["label"] for row in rows["onnx"]]
    probabilities = [[row["probability"] for row in rows[name]] for name in ("eager", "onnx")]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)
    assert probabilities[0] != probabilities[1]
