"""The Open Inference Protocol v2: a real endpoint asked by httpx and by NVIDIA's client, and hostile bodies."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from endpoints import OPTIONS, fill_path, find_triton
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cluster.serve.api import build_api
from cluster.serve.compute import Job, compute_jobs
from cluster.serve.models import Served
from cluster.serve.options import read_options
from cluster.serve.predictor import Predictor
from cluster.serve.rollout import Rollout
from cluster.serve.v2.pages import PAGES
from shards.errors import UsageError
from trainer.contract.bundle import Bundle
from trainer.contract.compute.backends import Backend

Ask = Callable[..., httpx.Response]
HEADER = "inference-header-content-length"
INFER = "/v2/models/shardline/infer"
SIZES = [3, 64, 64]
PIXELS = math.prod(SIZES)
SERVING = (Path(__file__).parents[1] / "docs/serving.md").read_text(encoding="utf-8")
TYPES = {"FP32": "<f4", "BOOL": "?"}


@pytest.fixture(scope="module")
def bundle(decided_path: Path) -> Bundle:
    return Bundle.load(decided_path)


@pytest.fixture(scope="module")
def files(pictures: Path) -> list[Path]:
    return sorted((pictures / "test").glob("*/*"))[::6]


@pytest.fixture(scope="module")
def prepared(bundle: Bundle, files: list[Path]) -> np.ndarray:
    """uint8[N, C, S, S] of `files`."""
    return torch.stack([bundle.prepare(path.read_bytes()) for path in files]).numpy()


@pytest.fixture
def http(endpoint_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=endpoint_url, timeout=30) as client:
        yield client


@contextmanager
def run_replica(folder: Path, **options: Any) -> Iterator[tuple[Ask, Predictor]]:
    """Yield a function that asks a replica in this process; there is no Ray."""

    async def start() -> Predictor:
        predictor = Predictor(read_options({"bundle": folder, **OPTIONS, **options}))
        await predictor.follow(Rollout(bundle=str(folder)))
        return predictor

    with asyncio.Runner() as runner:
        predictor = runner.run(start())
        transport = httpx.ASGITransport(build_api(predictor))
        client = httpx.AsyncClient(transport=transport, base_url="http://replica")
        yield lambda method, path, **more: runner.run(client.request(method, path, **more)), predictor


@pytest.fixture(scope="module")
def ask(decided_path: Path) -> Iterator[Ask]:
    with run_replica(decided_path) as (asking, _):
        yield asking


def describe_files(files: list[bytes]) -> dict[str, Any]:
    texts = [base64.b64encode(data).decode() for data in files]
    return {"name": "picture", "datatype": "BYTES", "shape": [len(files)], "data": texts}


def pack_files(files: list[bytes]) -> bytes:
    return b"".join(len(data).to_bytes(4, "little") + data for data in files)


def make_binary(tensor: dict[str, Any], data: bytes, **more: Any) -> dict[str, Any]:
    """Return the arguments of httpx for a request with a binary tensor."""
    page = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}], **more}
    text = json.dumps(page).encode()
    return {"content": text + data, "headers": {HEADER: str(len(text))}}


def binary_files(files: list[bytes], **more: Any) -> dict[str, Any]:
    return make_binary({"name": "picture", "datatype": "BYTES", "shape": [len(files)]}, pack_files(files), **more)


def binary_images(images: np.ndarray, datatype: str, **more: Any) -> dict[str, Any]:
    tensor = {"name": "input", "datatype": datatype, "shape": list(images.shape)}
    return make_binary(tensor, images.tobytes(), **more)


def read_outputs(response: httpx.Response) -> dict[str, Any]:
    """Return the outputs by name as lists, from either form; every byte of a binary body must be of one."""
    assert response.status_code == 200, response.text
    size = int(response.headers.get(HEADER, len(response.content)))
    page, rest, outputs = json.loads(response.content[:size]), response.content[size:], {}
    for said in page["outputs"]:
        count = said.get("parameters", {}).get("binary_data_size")
        if count is None:
            outputs[said["name"]] = np.array(said["data"]).reshape(said["shape"]).tolist()
            continue
        data, rest = rest[:count], rest[count:]
        if said["datatype"] == "BYTES":
            texts = []
            while data:
                end = 4 + int.from_bytes(data[:4], "little")
                texts, data = [*texts, data[4:end].decode()], data[end:]
            outputs[said["name"]] = texts
        else:
            outputs[said["name"]] = np.frombuffer(data, TYPES[said["datatype"]]).reshape(said["shape"]).tolist()
    assert not rest
    return outputs


def ask_v1(http: httpx.Client, files: list[Path]) -> dict[str, Any]:
    """Return what /v1/predict says about the same pictures, as the outputs of v2."""
    answers = [http.post("/v1/predict", content=path.read_bytes()).json() for path in files]
    return {
        "label": [each["label"] for each in answers],
        "probabilities": [list(each["probabilities"].values()) for each in answers],
        "logits": [each["logits"] for each in answers],
        "abstain": [each["abstain"] for each in answers],
        "ood_score": [each["ood_score"] for each in answers],
    }


def assert_same(outputs: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, values in outputs.items():
        if name in ("label", "abstain"):
            assert values == expected[name]
        else:
            np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-4 * np.abs(expected[name]).max())


def read_error(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    return str(response.json()["error"])


# A real endpoint


def test_the_server_and_its_model_say_what_they_are(http: httpx.Client, bundle: Bundle) -> None:
    server = http.get("/v2").json()
    assert (server["name"], server["extensions"]) == ("shardline", ["binary_tensor_data"])
    for path in ("/v2/models/shardline", "/v2/models/shardline/versions/1"):
        model = http.get(path).json()
        assert (model["name"], model["versions"], model["platform"]) == ("shardline", ["1"], "pytorch_shardline")
        assert model["inputs"] == [
            {"name": "picture", "datatype": "BYTES", "shape": [-1]},
            {"name": "input", "datatype": "UINT8", "shape": [-1, *SIZES]},
        ]
        outputs = {each["name"]: (each["datatype"], each["shape"]) for each in model["outputs"]}
        assert outputs == {
            "label": ("BYTES", [-1]),
            "probabilities": ("FP32", [-1, 3]),
            "logits": ("FP32", [-1, 3]),
            "abstain": ("BOOL", [-1]),
            "ood_score": ("FP32", [-1]),
        }
        assert json.loads(model["outputs"][1]["parameters"]["classes"]) == bundle.page.classes


def test_all_is_live_and_ready(http: httpx.Client) -> None:
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/shardline/ready", "/v2/models/shardline/versions/1/ready"):
        assert http.get(path).json() == {"name": "shardline", "ready": True}


def test_every_form_of_the_same_pictures_gives_the_answers_of_v1(
    http: httpx.Client, files: list[Path], prepared: np.ndarray, bundle: Bundle
) -> None:
    expected, data = ask_v1(http, files), [path.read_bytes() for path in files]
    pixels = {"name": "input", "datatype": "UINT8", "shape": [1, *SIZES]}
    forms = [
        {"json": {"inputs": [describe_files(data)]}},
        binary_files(data),
        binary_images(prepared, "UINT8"),
        binary_images(prepared.astype("<f4"), "FP32"),
        {"json": {"inputs": [{**pixels, "data": prepared[:1].ravel().tolist()}]}},
        {"json": {"inputs": [{**pixels, "data": prepared[:1].tolist()}]}},
        {"json": {"inputs": [{**pixels, "datatype": "FP32", "data": prepared[:1].ravel().tolist()}]}},
    ]
    for place, form in enumerate(forms):
        for path in (INFER, "/v2/models/shardline/versions/1/infer"):
            response = http.post(path, **form)  # type: ignore[arg-type]
            outputs = read_outputs(response)
            assert list(outputs) == list(expected)
            assert_same(outputs, {name: values[:1] if place > 3 else values for name, values in expected.items()})
            assert response.json()["parameters"] == {"bundle": bundle.page.fingerprint()}


def test_outputs_are_selected_in_the_form_that_is_asked_for(http: httpx.Client, files: list[Path]) -> None:
    expected, data = ask_v1(http, files), [path.read_bytes() for path in files]
    for default in (False, True):
        asked = [
            {"name": "abstain", "parameters": {"binary_data": True}},
            {"name": "logits", "parameters": {"binary_data": False}},
            {"name": "label"},
        ]
        request = {"id": "é 7", "outputs": asked, "parameters": {"binary_data_output": default, "priority": 1}}
        response = http.post(INFER, **binary_files(data, **request))
        outputs = read_outputs(response)
        assert response.headers["content-type"] == "application/octet-stream"
        assert list(outputs) == ["abstain", "logits", "label"]
        assert_same(outputs, expected)
        page = json.loads(response.content[: int(response.headers[HEADER])])
        assert (page["id"], page["model_name"], page["model_version"]) == ("é 7", "shardline", "1")
        assert ["data" in each for each in page["outputs"]] == [False, True, not default]
    every = http.post(INFER, json={"inputs": [describe_files(data)], "parameters": {"binary_data_output": True}})
    outputs = read_outputs(every)
    assert list(outputs) == list(expected)
    assert_same(outputs, expected)
    assert "id" not in json.loads(every.content[: int(every.headers[HEADER])])


def test_nvidias_client_gets_the_answers_of_v1(
    endpoint_url: str, http: httpx.Client, files: list[Path], prepared: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "prepared.npy", prepared)
    script = str(Path(__file__).parent / "ask_triton.py")
    address = endpoint_url.removeprefix("http://")
    command = [*find_triton(), script, "http", address, str(tmp_path / "prepared.npy"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said, expected = json.loads(done.stdout), ask_v1(http, files)
    ready = [said[name] for name in ("live", "ready", "model_ready", "version_ready", "other_ready")]
    assert ready == [True, True, True, True, False]
    assert said["server"] == http.get("/v2").json()
    assert said["model"] == http.get("/v2/models/shardline").json()
    for name, outputs in (("files", list(expected)), ("images", ["logits", "label"]), ("floats", ["probabilities"])):
        assert list(said[name]["outputs"]) == outputs
        assert_same(said[name]["outputs"], expected)
    assert said["files"]["id"] == "a 1"
    assert said["files"]["types"] == {
        "label": "object",
        "probabilities": "float32",
        "logits": "float32",
        "abstain": "bool",
        "ood_score": "float32",
    }
    assert said["error"]["status"] == "422"
    assert said["error"]["message"].startswith("picture[0]: ")


def test_the_example_of_the_docs_runs(endpoint_url: str, http: httpx.Client, files: list[Path], tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", SERVING, re.DOTALL)
    (tmp_path / "example.py").write_text(code.replace("127.0.0.1:8000", endpoint_url.removeprefix("http://")))
    shutil.copy(files[0], tmp_path / "cell.png")
    command = [*find_triton(), "example.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"[b'{ask_v1(http, files[:1])['label'][0]}'] [[")


def test_the_commands_of_the_docs_are_answered(endpoint_url: str, files: list[Path], tmp_path: Path) -> None:
    commands = [line for line in SERVING.splitlines() if line.startswith("curl ") and ":8000/v2" in line]
    assert len(commands) == len(PAGES)
    shutil.copy(files[0], tmp_path / "cell.png")
    for command in commands:
        typed = command.replace("http://127.0.0.1:8000", endpoint_url).replace("curl", "curl -sf", 1)
        done = subprocess.run(["bash", "-c", typed], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, command
        assert "error" not in json.loads(done.stdout)


# A replica in this process


def test_other_names_and_versions_are_not_there(ask: Ask) -> None:
    for page in PAGES:
        if "{name}" not in page.path:
            continue
        other = ask(page.method, page.path.format(name="mine", version="1"))
        assert (other.status_code, read_error(other)) == (
            404,
            "there is no model 'mine'; the endpoint has 'shardline'",
        )
        if "{version}" in page.path:
            other = ask(page.method, page.path.format(name="shardline", version="2"))
            assert (other.status_code, read_error(other)) == (
                404,
                "the model shardline has no version '2'; it has '1' alone",
            )


def test_unknown_pages_of_the_protocol_are_answered_in_its_form(ask: Ask) -> None:
    for method, path, status in (("GET", "/v2/repository/index", 404), ("GET", INFER, 405), ("POST", "/v2", 405)):
        response = ask(method, path)
        assert response.status_code == status
        assert "the endpoint has POST /v1/predict" in read_error(response)
    assert ask("GET", "/v20").json()["type"] == "urn:shardline:no-such-page"


def test_the_model_has_the_name_that_it_is_given(decided_path: Path, files: list[Path]) -> None:
    with run_replica(decided_path, model_name="cells-2") as (asking, _):
        assert asking("GET", "/v2/models/cells-2").json()["name"] == "cells-2"
        assert asking("GET", "/v2/models/shardline").status_code == 404
        answer = asking("POST", "/v2/models/cells-2/infer", json={"inputs": [describe_files([files[0].read_bytes()])]})
        assert answer.json()["model_name"] == "cells-2"
    for wrong in ("a/b", "", "a b"):
        with pytest.raises(UsageError, match="option 'model_name'"):
            read_options({"bundle": decided_path, "model_name": wrong})


def test_a_replica_without_a_model_is_live_and_not_ready(decided_path: Path) -> None:
    predictor = Predictor(read_options({"bundle": decided_path, **OPTIONS}))

    async def ask_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(build_api(predictor))
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            return [await client.request(page.method, fill_path(page.path)) for page in PAGES]

    for page, response in zip(PAGES, asyncio.run(ask_all()), strict=True):
        waits = page.path not in ("/v2", "/v2/health/live")
        assert response.status_code == (503 if waits else 200)
        if waits:
            assert read_error(response) == "the model is not loaded yet; ask again"


def test_several_labels_are_joined(bundle_path: Path, files: list[Path], tmp_path: Path) -> None:
    page = Path(shutil.copytree(bundle_path, tmp_path / "copy")) / "bundle.json"
    page.write_text(page.read_text().replace('"argmax"', '"each"').replace('"single-label"', '"multi-label"'))
    plain = Bundle.load(bundle_path)
    with run_replica(page.parent) as (asking, _):
        data = [path.read_bytes() for path in files]
        outputs = read_outputs(asking("POST", INFER, **binary_files(data)))
        assert list(outputs) == ["label", "probabilities", "logits"]  # no decision was fitted
        for place, each in enumerate(data):
            p = torch.sigmoid(plain.compute_logits(plain.prepare(each)[None])[0].double()).tolist()
            assert outputs["probabilities"][place] == pytest.approx(p, rel=1e-3)
            wanted = [name for name, share in zip(plain.page.classes, p, strict=True) if share >= 0.5]
            assert outputs["label"][place] == ";".join(wanted)
        assert any(";" in each for each in outputs["label"]), "the comparison says nothing of several labels"
        asked = {"inputs": [describe_files(data[:1])], "outputs": [{"name": "abstain"}]}
        response = asking("POST", INFER, json=asked)
        assert response.status_code == 400
        assert read_error(response).startswith("this bundle does not have the output abstain; it has label,")
        assert [each["name"] for each in asking("GET", "/v2/models/shardline").json()["outputs"]] == list(outputs)


def compute_sevens(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what no model computes, like a back end that takes bytes alone."""
    assert images.dtype == torch.uint8
    return torch.full((len(images), 3), 7.0), torch.zeros(len(images), 1024)


def test_floats_are_not_rounded_and_pass_by_a_back_end_that_takes_none(
    bundle: Bundle, prepared: np.ndarray, decided_path: Path
) -> None:
    images = np.clip(prepared.astype("<f4") + np.float32(0.4), 0, 255)
    expected = bundle.compute_logits(torch.from_numpy(images))
    assert float((expected - bundle.compute_logits(torch.from_numpy(prepared))).abs().max()) > 1e-3
    with run_replica(decided_path) as (asking, predictor):
        active = predictor._models.active
        active.bundle.backend = Backend("onnx", compute_sevens)
        floats = read_outputs(asking("POST", INFER, **binary_images(images, "FP32")))
        whole = read_outputs(asking("POST", INFER, **binary_images(prepared.astype("<f4"), "FP32")))
    np.testing.assert_allclose(floats["logits"], expected, rtol=1e-3, atol=1e-3)
    assert whole["logits"] == [[7.0] * 3] * len(prepared)


def test_a_float_picture_keeps_no_other_of_its_batch_from_the_back_end(
    bundle: Bundle, prepared: np.ndarray, decided_path: Path
) -> None:
    other = Bundle.load(decided_path)
    other.backend = Backend("onnx", compute_sevens)
    served = Served("folder", other, "", "0")
    images = [torch.from_numpy(each) for each in prepared]
    first, middle, last = compute_jobs([Job(each, served) for each in (images[0], images[1].float() + 0.4, images[1])])
    for result in (first, last):
        assert not isinstance(result.output, Exception)
        assert result.output.logits.tolist() == [7.0] * 3
    assert not isinstance(middle.output, Exception)
    expected = bundle.compute_logits(images[1].float()[None] + 0.4)[0]
    torch.testing.assert_close(middle.output.logits, expected, rtol=1e-3, atol=1e-4)


def test_one_bad_picture_fails_its_request_and_is_named(ask: Ask, files: list[Path]) -> None:
    good = files[0].read_bytes()
    file = io.BytesIO()
    Image.new("L", (2500, 2000)).save(file, "PNG")
    for bad, status, said in (
        (good[:99], 422, "cannot be decoded"),
        (b"", 422, "picture[1]: the picture is empty (0 bytes)"),
        (file.getvalue(), 413, "2,500 x 2,000 pixels, over the limit of 4,000,000"),
    ):
        for form in ({"json": {"inputs": [describe_files([good, bad, good])]}}, binary_files([good, bad, good])):
            response = ask("POST", INFER, **form)
            assert response.status_code == status
            assert read_error(response).startswith("picture[1]: ")
            assert said in read_error(response)


def test_the_limits_are_those_of_v1(ask: Ask) -> None:
    pixel = np.zeros((1, 1, 1, 1), np.uint8)
    for form, said in (
        (binary_files([b"x"] * 5), "the request has 5 pictures, over the limit of 4"),
        ({"json": {"inputs": [describe_files([b"x"] * 5)]}}, "the request has 5 pictures, over the limit of 4"),
        (binary_images(pixel.repeat(5, 0), "UINT8"), "the request has 5 pictures, over the limit of 4"),
        (binary_files([b"x", bytes(600_000)]), "picture[1] has 600,000 bytes, over the limit of 524,288"),
        (binary_files([bytes(600_000)]), "the picture has 600,000 bytes, over the limit of 524,288"),
        ({"content": bytes(3_000_000)}, "the request has 3,000,000 bytes, over the limit of 2,097,152"),
        ({"content": iterate(3_000_000)}, "the request has at least"),
    ):
        response = ask("POST", INFER, **form)
        assert response.status_code == 413
        assert said in read_error(response)


async def iterate(size: int) -> Any:
    """Yield a body whose size httpx does not announce."""
    for _ in range(size // 50_000):
        yield bytes(50_000)


def test_json_of_too_many_values_is_refused_before_it_is_parsed(decided_path: Path) -> None:
    with run_replica(decided_path, max_request_mib=32) as (asking, _):
        for path, status in ((INFER, 413), ("/v1/predict", 413)):
            for value in (b"[],", b"{},", b"0,"):
                body = b'{"images":[' + value * 4_000_001 + b"0]}"
                response = asking("POST", path, content=body, headers={"content-type": "application/json"})
                assert response.status_code == status
                assert "the JSON has more than 4,000,000 values" in response.text


FILE = {"name": "picture", "datatype": "BYTES", "shape": [1], "data": ["aGk="]}
IMAGE = {"name": "input", "datatype": "UINT8", "shape": [1, *SIZES], "data": [0] * PIXELS}
HUGE = 10**4000
DEEP = "[" * 100_000 + "]" * 100_000


def alter(tensor: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"json": {"inputs": [{**tensor, **fields}]}}


def without(tensor: dict[str, Any], name: str) -> dict[str, Any]:
    return {"json": {"inputs": [{key: value for key, value in tensor.items() if key != name}]}}


def with_header(value: str, body: bytes = b'{"inputs": []}') -> dict[str, Any]:
    return {"content": body, "headers": {HEADER: value}}


def with_size(tensor: dict[str, Any], size: Any, rest: bytes) -> dict[str, Any]:
    sent = {key: value for key, value in tensor.items() if key != "data"}
    text = json.dumps({"inputs": [{**sent, "parameters": {"binary_data_size": size}}]}).encode()
    return {"content": text + rest, "headers": {HEADER: str(len(text))}}


def with_rest(tensor: dict[str, Any], rest: bytes) -> dict[str, Any]:
    return with_size(tensor, len(rest), rest)


MALFORMED = {
    "nothing": ({}, "the body is not JSON"),
    "no JSON": ({"content": b"{"}, "the body is not JSON"),
    "no text": ({"content": b"\xff\xfe\xfd"}, "the body is not JSON"),
    "deep": ({"content": DEEP.encode()}, "the body is not JSON (maximum recursion depth"),
    "deep field": ({"content": f'{{"inputs": {DEEP}}}'.encode()}, "the body is not JSON (maximum recursion depth"),
    "a list": ({"json": [1]}, "the JSON is a list; send {"),
    "null": ({"content": b"null"}, "the JSON is null; send {"),
    "no inputs": ({"json": {}}, "'inputs' of the request is not there, but must be a list"),
    "inputs no list": ({"json": {"inputs": FILE}}, "'inputs' of the request is an object, but must be a list"),
    "no input": ({"json": {"inputs": []}}, "'inputs' must have exactly one tensor, picture or input, and has 0"),
    "both inputs": ({"json": {"inputs": [FILE, IMAGE]}}, "exactly one tensor, picture or input, and has 2"),
    "input no object": ({"json": {"inputs": ["x"]}}, "'inputs' must have exactly one tensor"),
    "no name": (without(FILE, "name"), "'name' of inputs[0] is not there, but must be a string"),
    "name no text": (alter(FILE, name=[[]]), "'name' of inputs[0] is a list, but must be a string"),
    "deep name": (
        {"content": f'{{"inputs": [{{"name": {"[" * 900}{"]" * 900}}}]}}'.encode()},
        "'name' of inputs[0] is a list",
    ),
    "other name": (alter(FILE, name="pixels"), "the input 'pixels' is not there; inputs are picture and input"),
    "surrogate name": (
        {"content": b'{"inputs": [{"name": "\\ud800", "datatype": "BYTES"}]}'},
        "the input '\\ud800' is not there",
    ),
    "no datatype": (without(FILE, "datatype"), "'datatype' of inputs[0] is not there"),
    "file of floats": (alter(FILE, datatype="FP32"), "picture has datatype 'FP32', but must have BYTES"),
    "image of doubles": (alter(IMAGE, datatype="FP64"), "input has datatype 'FP64', but must have UINT8 or FP32"),
    "no shape": (without(FILE, "shape"), "'shape' of inputs[0] is not there"),
    "shape no list": (alter(FILE, shape=1), "'shape' of inputs[0] is 1, but must be a list"),
    "shape of text": (alter(FILE, shape=["1"]), "the shape of picture must be a list of whole numbers from 1 to"),
    "shape of floats": (alter(FILE, shape=[1.0]), "the shape of picture must be a list of whole numbers"),
    "shape of flags": (alter(FILE, shape=[True]), "the shape of picture must be a list of whole numbers"),
    "negative shape": (alter(FILE, shape=[-1]), "the shape of picture must be a list of whole numbers"),
    "empty shape": (alter(FILE, shape=[]), "picture has shape [], but must have [N]"),
    "shape of none": (alter(FILE, shape=[0], data=[]), "the shape of picture must be a list of whole numbers from 1"),
    "huge shape": (alter(FILE, shape=[HUGE]), "the shape of picture must be a list of whole numbers from 1 to 2^63"),
    "large shape": (
        alter(IMAGE, shape=[1, *[2**62] * 3]),
        f"'data' has 12,288 values, but the shape [1, {2**62}, {2**62}, {2**62}] needs {2**186:,}",
    ),
    "large binary shape": (
        with_rest({**IMAGE, "shape": [1, *[2**62] * 3]}, bytes(9)),
        f"input has 9 bytes, but UINT8 of shape [1, {2**62}, {2**62}, {2**62}] has {2**186:,}",
    ),
    "long shape": (alter(FILE, shape=[1] * 99), "but must have [N]"),
    "batched file": (alter(FILE, shape=[1, 1]), "picture has shape [1, 1], but must have [N]"),
    "too few files": (alter(FILE, shape=[2]), "'data' has 1 values, but the shape [2] needs 2"),
    "image of three sizes": (alter(IMAGE, shape=SIZES), "input has shape [3, 64, 64], but must have [N, C, S, S]"),
    "image of other sizes": (
        alter(IMAGE, shape=[1, 64, 64, 3]),
        "input[0]: the picture has shape [64, 64, 3], but the model takes [3, 64, 64] (C, S, S)",
    ),
    "no data": (without(FILE, "data"), "either 'data' or the parameter 'binary_data_size', got neither"),
    "data no list": (alter(FILE, data="aGk="), "'data' of inputs[0] is 'aGk=', but must be a list"),
    "no base64": (alter(FILE, data=["a%"]), "'picture[0]' is not base64"),
    "file no text": (alter(FILE, data=[7]), "'picture[0]' is not base64"),
    "file in lists": (alter(FILE, data=[["aGk="]]), "'picture[0]' is not base64"),
    "files in lists": (alter(FILE, shape=[2], data=[["aGk="]]), "the lists in 'data' are not nested as the shape [2]"),
    "no picture": (alter(FILE), "picture[0]: "),
    "ragged": (alter(IMAGE, data=[[[[0]]]]), "the lists in 'data' are not nested as the shape [1, 3, 64, 64] says"),
    "mixed": (alter(IMAGE, shape=[2, 1, 1, 1], data=[[[[0]]], 0]), "the lists in 'data' are not nested"),
    "nested too deeply": (alter(IMAGE, shape=[1] * 4, data=[[[[[0]]]]]), "'data' of input has a list"),
    "text as pixel": (alter(IMAGE, data=["0"] * PIXELS), "'data' of input has a str, but UINT8 takes numbers alone"),
    "flag as pixel": (alter(IMAGE, data=[True] * PIXELS), "'data' of input has a bool"),
    "null as pixel": (alter(IMAGE, data=[None] * PIXELS), "'data' of input has a NoneType"),
    "float as byte": (alter(IMAGE, data=[0.5] * PIXELS), "'data' of input has a float, but UINT8 takes numbers alone"),
    "byte too large": (alter(IMAGE, data=[256] * PIXELS), "input has a value that is not in 0..255"),
    "byte negative": (alter(IMAGE, data=[-1] * PIXELS), "input has a value that is not in 0..255"),
    "byte huge": (alter(IMAGE, shape=[1] * 4, data=[HUGE]), "input has a value that is not in 0..255"),
    "float huge": (
        alter(IMAGE, datatype="FP32", shape=[1] * 4, data=[HUGE]),
        "input has a value that is not in 0..255",
    ),
    "float normal": (
        alter(IMAGE, datatype="FP32", data=[-2.1, 2.6] * (PIXELS // 2)),
        "input has values from -2.1 to 2.6, but must have pixels in 0..255; the model itself normalises them",
    ),
    "NaN": (
        {"content": json.dumps({"inputs": [{**IMAGE, "datatype": "FP32", "data": [math.nan] * PIXELS}]})},
        "input has a value that is not finite",
    ),
    "binary infinity": (
        with_rest({**IMAGE, "datatype": "FP32"}, np.full(PIXELS, np.inf, "<f4").tobytes()),
        "input has a value that is not finite",
    ),
    "short image": (with_rest(IMAGE, bytes(99)), "input has 99 bytes, but UINT8 of shape [1, 3, 64, 64] has 12,288"),
    "bytes as floats": (
        with_rest({**IMAGE, "datatype": "FP32"}, bytes(PIXELS)),
        "input has 12,288 bytes, but FP32 of shape [1, 3, 64, 64] has 49,152",
    ),
    "size without header": (
        {
            "json": {
                "inputs": [{**{k: v for k, v in FILE.items() if k != "data"}, "parameters": {"binary_data_size": 0}}]
            }
        },
        f"inputs[0] is binary, so the header {HEADER} must say how long the JSON is",
    ),
    "size and data": (alter(FILE, parameters={"binary_data_size": 4}), "got both"),
    "size too large": (with_size(FILE, 2**62, b"abc"), f"is {2**62}, but 3 bytes follow the JSON"),
    "size negative": (with_size(FILE, -3, b"abc"), "is -3, but 3 bytes follow the JSON"),
    "size too small": (with_size(FILE, 2, b"abc"), "is 2, but 3 bytes follow the JSON"),
    "size of text": (with_size(FILE, "3", b"abc"), "is '3', but 3 bytes follow the JSON"),
    "size a flag": (with_size(FILE, True, b"a"), "is True, but 1 bytes follow the JSON"),
    "size huge": (with_size(FILE, HUGE, b"abc"), "bytes follow the JSON"),
    "rest without size": (
        with_header("2", b"{}tail"),
        "'inputs' of the request is not there",
    ),
    "rest behind data": (
        with_header(str(len(json.dumps({"inputs": [FILE]}))), json.dumps({"inputs": [FILE]}).encode() + b"tail"),
        "4 bytes follow the JSON, but inputs[0] has no parameter 'binary_data_size'",
    ),
    "header too large": (with_header("15"), f"the header {HEADER} is '15', but must be the bytes of the JSON, from 1"),
    "header zero": (with_header("0"), "is '0', but must be the bytes of the JSON, from 1 to the 14 of the body"),
    "header negative": (with_header("-1"), "is '-1', but must be the bytes of the JSON"),
    "header of text": (with_header("four"), "is 'four', but must be the bytes of the JSON"),
    "header empty": (with_header(""), "is '', but must be the bytes of the JSON"),
    "header huge": (with_header("9" * 5000), "but must be the bytes of the JSON"),
    "header inside of the JSON": (with_header("5"), "the body is not JSON"),
    "length missing": (
        with_rest(FILE, b"abc"),
        "picture has shape [1], but its data ends before the length of picture",
    ),
    "length too large": (
        with_rest(FILE, b"\xff\xff\xff\xffabc"),
        "picture[0] is said to have 4,294,967,295 bytes, but 3 follow",
    ),
    "length too small": (
        with_rest(FILE, b"\x01\0\0\0abc"),
        "picture has shape [1], but 2 bytes follow its last element",
    ),
    "fewer files": (
        with_rest({**FILE, "shape": [2]}, b"\x03\0\0\0abc"),
        "picture has shape [2], but its data ends before the length of picture[1]",
    ),
    "parameters no object": (alter(FILE, parameters=[]), "'parameters' of inputs[0] is a list, but must be an object"),
    "shared memory": (
        alter(FILE, parameters={"shared_memory_region": "x"}),
        "inputs[0] has the parameter 'shared_memory_region', an extension that this endpoint does not have",
    ),
    "request parameters": ({"json": {"inputs": [FILE], "parameters": 1}}, "'parameters' of the request is 1"),
    "binary_data_output": (
        {"json": {"inputs": [FILE], "parameters": {"binary_data_output": 1}}},
        "'binary_data_output' of parameters is 1, but must be true or false",
    ),
    "outputs no list": ({"json": {"inputs": [FILE], "outputs": {}}}, "'outputs' of the request is an object"),
    "output no object": ({"json": {"inputs": [FILE], "outputs": ["label"]}}, "outputs[0] is 'label', but must be an"),
    "output without name": ({"json": {"inputs": [FILE], "outputs": [{}]}}, "'name' of outputs[0] is not there"),
    "other output": (
        {"json": {"inputs": [FILE], "outputs": [{"name": "score"}]}},
        "the output 'score' is not there; outputs are label, probabilities, logits, abstain, ood_score",
    ),
    "output twice": (
        {"json": {"inputs": [FILE], "outputs": [{"name": "label"}] * 2}},
        "the output 'label' is asked for twice",
    ),
    "classification": (
        {"json": {"inputs": [FILE], "outputs": [{"name": "label", "parameters": {"classification": 3}}]}},
        "outputs[0] has the parameter 'classification', an extension that this endpoint does not have",
    ),
    "binary_data": (
        {"json": {"inputs": [FILE], "outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]}},
        "'binary_data' of parameters is 'yes', but must be true or false",
    ),
    "id no text": ({"json": {"inputs": [FILE], "id": 7}}, "'id' of the request is 7, but must be a string"),
    "id no Unicode": (
        {"content": b'{"id": "\\ud800", "inputs": [%b]}' % json.dumps(FILE).encode()},
        "'id' of the request is '\\ud800', which is no Unicode text",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_refused_with_a_sentence(name: str, ask: Ask) -> None:
    form, said = MALFORMED[name]
    response = ask("POST", INFER, **form)
    assert said in read_error(response)
    assert response.status_code == (422 if name == "no picture" else 400)
    assert len(read_error(response)) < 700


def test_a_compressed_body_is_refused(ask: Ask) -> None:
    response = ask("POST", INFER, content=b"x", headers={"content-encoding": "gzip"})
    assert (response.status_code, read_error(response)) == (
        415,
        "content encoding 'gzip' is not supported; send the body without one",
    )


def test_null_stands_for_what_may_be_absent(ask: Ask, files: list[Path]) -> None:
    tensor = {**describe_files([files[0].read_bytes()]), "parameters": None}
    response = ask("POST", INFER, json={"inputs": [tensor], "id": None, "parameters": None, "outputs": None})
    assert "label" in read_outputs(response)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def either(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual, usual, usual, VALUES)


TENSORS = either(
    st.fixed_dictionaries(
        {
            "name": either(st.sampled_from(["picture", "input"])),
            "datatype": either(st.sampled_from(["BYTES", "UINT8", "FP32"])),
            "shape": either(st.lists(either(st.integers(-1, 4) | st.sampled_from([2**31, 2**62])), max_size=5)),
        },
        optional={
            "data": either(st.lists(either(st.integers(0, 255) | st.just("aGk=")), max_size=8)),
            "parameters": either(
                st.fixed_dictionaries({"binary_data_size": either(st.integers(0, 40) | st.just(2**32))})
            ),
        },
    )
)
REQUESTS = either(
    st.fixed_dictionaries(
        {"inputs": either(st.lists(TENSORS, min_size=1, max_size=2))},
        optional={
            "id": VALUES,
            "parameters": either(st.dictionaries(st.just("binary_data_output"), either(st.booleans()))),
            "outputs": either(st.lists(st.fixed_dictionaries({"name": either(st.just("label"))}), max_size=2)),
        },
    )
)


@given(request=REQUESTS, rest=st.binary(max_size=40), shift=st.sampled_from([None, 0, 0, 0, 0, -1, 1, 30]))
@settings(max_examples=400, deadline=None)
def test_no_body_makes_the_endpoint_fail(ask: Ask, request: Any, rest: bytes, shift: int | None) -> None:
    text = json.dumps(request).encode()
    headers = {} if shift is None else {HEADER: str(len(text) + shift)}
    response = ask("POST", INFER, content=text + rest, headers=headers)
    assert response.status_code in (400, 413, 422), response.text
    assert read_error(response)


@given(start=st.binary(max_size=60), lengths=st.lists(st.integers(0, 2**32 - 1), max_size=4), number=st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_no_lengths_of_elements_make_the_endpoint_fail(ask: Ask, start: bytes, lengths: list[int], number: int) -> None:
    rest = start + b"".join(length.to_bytes(4, "little") + bytes(length % 7) for length in lengths)
    response = ask("POST", INFER, **with_rest({**FILE, "shape": [number]}, rest))
    assert response.status_code in (400, 422)
    assert read_error(response)


@given(place=st.integers(0, 5000), value=st.integers(0, 255), cut=st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_a_good_request_with_one_wrong_byte_never_makes_the_endpoint_fail(
    ask: Ask, files: list[Path], place: int, value: int, cut: int
) -> None:
    form = binary_files([files[0].read_bytes()])
    body = bytearray(form["content"])
    body[place % len(body)] = value
    response = ask("POST", INFER, content=bytes(body[: len(body) - max(0, cut - 20)]), headers=form["headers"])
    assert response.status_code in (200, 400, 413, 422), response.text
