"""gRPC of the Open Inference Protocol: real endpoints asked by gRPC's own client and by NVIDIA's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import torch
from endpoints import OPTIONS, find_free_port, find_triton, run_http
from test_cluster_serve_v2 import ask_v1, assert_same, pack_files

from cluster.serve.endpoint import check_port
from cluster.serve.gateway.messages import PROTO, REQUESTS, RESPONSES, SERVICE, describe_file
from cluster.serve.gateway.server import run_gateway
from cluster.serve.options import read_options
from shards.errors import UsageError
from trainer.contract.bundle import Bundle

Call = Callable[..., Any]
TYPES = {"FP32": "<f4", "BOOL": "?"}


@contextmanager
def calling(url: str, folder: Path, **options: Any) -> Iterator[Call]:
    """Run a gateway in front of an endpoint; yield a function that calls it by name."""
    port = find_free_port()
    with (
        run_gateway(url, "127.0.0.1", port, read_options({"bundle": folder, **OPTIONS, **options})),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield partial(ask, channel)


def ask(channel: grpc.Channel, name: str, /, metadata: tuple[tuple[str, str], ...] = (), **fields: Any) -> Any:
    """Return the answer to a call by its name."""
    method = channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=REQUESTS[name].SerializeToString,
        response_deserializer=RESPONSES[name].FromString,
    )
    return method(REQUESTS[name](**fields), metadata=metadata, timeout=60)


@pytest.fixture(scope="module")
def url(decided_path: Path) -> Iterator[str]:
    with run_http(decided_path) as address:
        yield address


@pytest.fixture(scope="module")
def call(url: str, decided_path: Path) -> Iterator[Call]:
    with calling(url, decided_path) as calls:
        yield calls


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def files(pictures: Path) -> list[Path]:
    return sorted((pictures / "test").glob("*/*"))[::6]


@pytest.fixture(scope="module")
def prepared(decided_path: Path, files: list[Path]) -> np.ndarray:
    """uint8[N, C, S, S] of `files`."""
    bundle = Bundle.load(decided_path)
    return torch.stack([bundle.prepare(path.read_bytes()) for path in files]).numpy()


def read_outputs(response: Any) -> dict[str, Any]:
    found = {}
    for output, data in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            found[output.name] = list(split(data))
        else:
            found[output.name] = np.frombuffer(data, TYPES[output.datatype]).reshape(list(output.shape)).tolist()
    return found


def split(data: bytes) -> Iterator[str]:
    while data:
        size = int.from_bytes(data[:4], "little")
        yield data[4 : 4 + size].decode()
        data = data[4 + size :]


def describe(name: str, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


def refused(call: Call, name: str = "ModelInfer", /, **fields: Any) -> tuple[grpc.StatusCode, str]:
    """Return the status and the sentence of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(name, **fields)
    return caught.value.code(), caught.value.details()


def test_pictures_and_tensors_in_both_forms_get_the_answers_of_v1(
    call: Call, http: httpx.Client, files: list[Path], prepared: np.ndarray
) -> None:
    expected, data = ask_v1(http, files), [path.read_bytes() for path in files]
    number = len(files)
    images, floats = list(prepared.shape), prepared.astype(np.float32)
    asked = [
        ([describe("picture", "BYTES", [number])], [pack_files(data)]),
        ([describe("picture", "BYTES", [number], contents={"bytes_contents": data})], []),
        ([describe("input", "UINT8", images)], [prepared.tobytes()]),
        ([describe("input", "UINT8", images, contents={"uint_contents": prepared.ravel().tolist()})], []),
        ([describe("input", "FP32", images)], [floats.tobytes()]),
        ([describe("input", "FP32", images, contents={"fp32_contents": floats.ravel().tolist()})], []),
    ]
    for inputs, raw in asked:
        response = call("ModelInfer", model_name="shardline", id="é 7", inputs=inputs, raw_input_contents=raw)
        assert (response.model_name, response.model_version, response.id) == ("shardline", "1", "é 7")
        outputs = read_outputs(response)
        assert list(outputs) == list(expected)
        assert_same(outputs, expected)
    bundle = http.post("/v1/predict", content=data[0]).json()["bundle"]
    assert response.parameters["bundle"].string_param == bundle


def test_selected_outputs_alone_are_given(call: Call, files: list[Path]) -> None:
    inputs = [describe("picture", "BYTES", [1], contents={"bytes_contents": [files[0].read_bytes()]})]
    response = call(
        "ModelInfer", model_name="shardline", inputs=inputs, outputs=[{"name": "logits"}, {"name": "label"}]
    )
    assert [each.name for each in response.outputs] == ["logits", "label"]


def test_server_and_model_are_described_as_over_http(call: Call, http: httpx.Client) -> None:
    assert call("ServerLive").live
    assert call("ServerReady").ready
    asked = [("shardline", ""), ("shardline", "1"), ("shardline", "2"), ("other", "")]
    ready = [call("ModelReady", name=name, version=version).ready for name, version in asked]
    assert ready == [True, True, False, False]
    server, page = call("ServerMetadata"), http.get("/v2").json()
    assert (server.name, server.version, list(server.extensions)) == (page["name"], page["version"], page["extensions"])
    model, page = call("ModelMetadata", name="shardline"), http.get("/v2/models/shardline").json()
    assert (model.name, list(model.versions), model.platform) == (page["name"], page["versions"], page["platform"])
    for tensors, given in ((model.inputs, page["inputs"]), (model.outputs, page["outputs"])):
        found = [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in tensors]
        assert found == [{name: each[name] for name in ("name", "datatype", "shape")} for each in given]


BAD = describe("picture", "BYTES", [1], contents={"bytes_contents": [b"no picture"]})
CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"inputs": [BAD]}, CODE.INVALID_ARGUMENT, "picture[0]: "),
        ({"inputs": []}, CODE.INVALID_ARGUMENT, "'inputs' must have exactly one tensor"),
        ({"inputs": [BAD], "raw_input_contents": [b"", b""]}, CODE.INVALID_ARGUMENT, "1 inputs and 2 raw_input"),
        ({"inputs": [describe("input", "UINT8", [1, 3, 1, 1], contents={"uint_contents": [1, 2, 256]})]},
         CODE.INVALID_ARGUMENT, "input has values that are not of its datatype UINT8"),
        ({"inputs": [describe("input", "INT64", [1], contents={"int64_contents": [1]})]},
         CODE.INVALID_ARGUMENT, "input has datatype 'INT64', but must have UINT8 or FP32"),
        ({"inputs": [BAD], "raw_input_contents": [b""]}, CODE.INVALID_ARGUMENT, "inputs[0] has contents and the"),
        ({"inputs": [BAD], "outputs": [{"name": "x"}]}, CODE.INVALID_ARGUMENT, "the output 'x' is not there"),
        ({"inputs": [BAD], "model_name": "other"}, CODE.NOT_FOUND, "there is no model 'other'"),
        ({"inputs": [BAD], "model_name": ""}, CODE.NOT_FOUND, "there is no model '-'"),
        ({"inputs": [BAD], "model_version": "2"}, CODE.NOT_FOUND, "has no version '2'"),
        ({"inputs": [describe("picture", "BYTES", [1])], "raw_input_contents": [bytes(3 << 20)]},
         CODE.RESOURCE_EXHAUSTED, "larger"),
        ({"inputs": [describe("picture", "BYTES", [1])], "raw_input_contents": [pack_files([bytes(1 << 20)])]},
         CODE.RESOURCE_EXHAUSTED, "over the limit of 524,288"),
    ],
)  # fmt: skip
def test_errors_have_the_protocols_status_and_the_sentence_of_http(
    call: Call, fields: dict[str, Any], code: grpc.StatusCode, said: str
) -> None:
    found, sentence = refused(call, **{"model_name": "shardline", **fields})
    assert (found, said in sentence) == (code, True), sentence


@pytest.mark.parametrize("name", [".", "..", "../health", "a/b", "?x", "#", "x" * 70_000, "a\r\nb: c"])
def test_odd_names_are_not_there(call: Call, name: str) -> None:
    for fields in ({"name": name}, {"name": "shardline", "version": name}):
        assert refused(call, "ModelMetadata", **fields)[0] == CODE.NOT_FOUND
        assert not call("ModelReady", **fields).ready
    for fields in ({"model_name": name}, {"model_name": "shardline", "model_version": name}):
        assert refused(call, inputs=[BAD], **fields)[0] == CODE.NOT_FOUND


def test_a_bundle_of_several_labels_answers(several_run: Path, multi_path: Path, pictures: Path) -> None:
    data = next((pictures / "test").glob("*/*")).read_bytes()
    inputs = [describe("picture", "BYTES", [1], contents={"bytes_contents": [data]})]
    with run_http(several_run / "bundle") as url, calling(url, several_run / "bundle") as call:
        outputs = read_outputs(call("ModelInfer", model_name="shardline", inputs=inputs))
        expected = httpx.post(f"{url}/v1/predict", content=data, timeout=60).json()
    assert outputs["label"] == [";".join(expected["labels"])]
    np.testing.assert_allclose(outputs["probabilities"], [list(expected["probabilities"].values())], rtol=1e-3)


def test_tokens_are_those_of_http(decided_path: Path, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("first\n")
    inputs = [describe("picture", "BYTES", [1], contents={"bytes_contents": [files[0].read_bytes()]})]
    auth, log = f"token:{tmp_path / 'tokens'}", tmp_path / "log"
    with run_http(decided_path, auth=auth, access_log=str(log)) as url, calling(url, decided_path, auth=auth) as call:
        assert call("ServerReady").ready  # open, as over HTTP
        for metadata in ((), (("authorization", "Bearer second"),)):
            code, _ = refused(call, model_name="shardline", inputs=inputs, metadata=metadata)
            assert code == grpc.StatusCode.UNAUTHENTICATED
            assert refused(call, "ModelReady", name="shardline", metadata=metadata)[0] == code
        for metadata in ((("authorization", "Bearer first"),), (("x-api-key", "first"),)):
            assert len(call("ModelInfer", model_name="shardline", inputs=inputs, metadata=metadata).outputs) > 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    outcomes = [each["outcome"] for each in lines if each["page"].endswith("/infer")]
    assert outcomes == ["unauthorized", "unauthorized", "ok", "ok"]  # refused calls are logged and counted, too


def test_without_an_endpoint_calls_are_to_be_sent_again(decided_path: Path) -> None:
    with calling(f"http://127.0.0.1:{find_free_port()}", decided_path) as call:
        code, sentence = refused(call, model_name="shardline", inputs=[BAD])
        assert code == grpc.StatusCode.UNAVAILABLE
        assert sentence == "the endpoint does not answer (ConnectError); send this request again"


def test_a_busy_endpoint_says_so(decided_path: Path, files: list[Path]) -> None:
    data = [path.read_bytes() for path in files[:2]]
    inputs = [describe("picture", "BYTES", [2], contents={"bytes_contents": data})]
    with run_http(decided_path, max_waiting=2, max_pictures=2, batch_wait_ms=1000, max_batch_size=64) as url:
        statuses, waits = set(), []
        with calling(url, decided_path) as call, ExitStack() as stack:

            def try_once() -> None:
                try:
                    call("ModelInfer", model_name="shardline", inputs=inputs)
                    statuses.add("answered")
                except grpc.RpcError as err:
                    statuses.add(err.code())
                    waits.append(dict(err.trailing_metadata()))

            for _ in range(12):
                thread = threading.Thread(target=try_once)
                thread.start()
                stack.callback(thread.join)
    assert statuses == {"answered", grpc.StatusCode.UNAVAILABLE}
    assert {"retry-after": "1"} in waits


def test_calls_that_stall_stop_nobody_and_are_ended_at_the_limit(decided_path: Path, files: list[Path]) -> None:
    """They send their headers, and no message."""
    inputs = [describe("picture", "BYTES", [1], contents={"bytes_contents": [files[0].read_bytes()]})]
    is_over = threading.Event()

    def say_nothing() -> Iterator[bytes]:
        is_over.wait(60)
        yield from ()

    port = find_free_port()
    options = read_options({"bundle": decided_path, **OPTIONS, "max_upload_s": 2})
    with (
        run_http(decided_path) as url,
        run_gateway(url, "127.0.0.1", port, options),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stalled = [channel.stream_unary(f"/{SERVICE}/ModelInfer").future(say_nothing()) for _ in range(100)]
        for _ in range(5):
            assert ask(channel, "ModelInfer", model_name="shardline", inputs=inputs).outputs
        assert {each.code() for each in stalled} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert stalled[0].details() == "the request did not arrive within 2 s; send it again"
        is_over.set()


def test_bytes_that_are_no_message_are_refused(url: str, decided_path: Path) -> None:
    port = find_free_port()
    with (
        run_gateway(url, "127.0.0.1", port, read_options({"bundle": decided_path, **OPTIONS})),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(f"/{SERVICE}/ModelInfer")(b"\xff\xff", timeout=30)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("the message is not a ModelInferRequest (")


def test_a_port_in_use_is_refused(url: str, decided_path: Path) -> None:
    port = int(url.rpartition(":")[2])
    with (
        pytest.raises(
            UsageError, match=f"gRPC cannot listen on 127.0.0.1:{port}; choose another port with --grpc-port"
        ),
        run_gateway(url, "127.0.0.1", port, read_options({"bundle": decided_path})),
    ):
        pass
    with pytest.raises(UsageError, match=f"port {port} .* in use by another program; .* another with --grpc-port"):
        check_port("127.0.0.1", port, "--grpc-port")


def test_nvidias_client_gets_the_answers_of_v1(
    url: str, http: httpx.Client, decided_path: Path, files: list[Path], prepared: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "prepared.npy", prepared)
    script, port = str(Path(__file__).parent / "ask_triton.py"), find_free_port()
    with run_gateway(url, "127.0.0.1", port, read_options({"bundle": decided_path, **OPTIONS})):
        asked = ["grpc", f"127.0.0.1:{port}", str(tmp_path / "prepared.npy"), *map(str, files)]
        done = subprocess.run([*find_triton(), script, *asked], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said, expected = json.loads(done.stdout), ask_v1(http, files)
    ready = [said[name] for name in ("live", "ready", "model_ready", "version_ready", "other_ready")]
    assert ready == [True, True, True, True, False]
    assert said["server"]["name"] == "shardline"
    assert [each["name"] for each in said["model"]["outputs"]] == list(expected)
    for name, outputs in (("files", list(expected)), ("images", ["logits", "label"]), ("floats", ["probabilities"])):
        assert list(said[name]["outputs"]) == outputs
        assert_same(said[name]["outputs"], expected)
    assert said["files"]["id"] == "a 1"
    assert said["error"]["status"] == "StatusCode.INVALID_ARGUMENT"
    assert said["error"]["message"].startswith("picture[0]: ")


def test_our_reader_of_the_proto_file_agrees_with_protoc(tmp_path: Path) -> None:
    """protoc comes with grpcio-tools, which needs an environment of its own."""
    script = (
        "import sys\nfrom grpc_tools import protoc\n"
        "sys.exit(protoc.main(['protoc', '-I', sys.argv[1], '--descriptor_set_out=' + sys.argv[2], 'inference.proto']))"
    )
    command = [sys.executable, "-m", "uv", "run", "--no-project", "--with", "grpcio-tools", "python", "-c", script]
    done = subprocess.run(
        [*command, str(PROTO.parent), str(tmp_path / "out")], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        pytest.skip(f"grpcio-tools cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    theirs = FileDescriptorSet.FromString((tmp_path / "out").read_bytes()).file[0]
    both = []
    for each in (theirs, describe_file(PROTO.read_text(encoding="utf-8"))):
        pool = DescriptorPool()
        pool.Add(each)
        both.append(list_fields(pool.FindFileByName("inference.proto").message_types_by_name.values()))
    assert both[0] == both[1]
    assert len(both[0]) > 50


def list_fields(messages: Any) -> set[tuple[Any, ...]]:
    """Return all fields of messages and of those within them, by what goes over the wire."""
    found = set()
    for message in messages:
        for each in message.fields:
            kind = each.message_type.full_name if each.message_type else ""
            oneof = each.containing_oneof.name if each.containing_oneof else ""
            found.add((each.full_name, each.number, each.type, each.is_repeated, kind, oneof))
        found |= list_fields(message.nested_types)
    return found


@pytest.mark.slow
def test_the_command_answers_grpc_beside_http(decided_path: Path, files: list[Path], tmp_path: Path) -> None:
    from test_cluster_serve import without_cluster

    shutil.copytree(decided_path, tmp_path / "bundle")
    port, grpc_port = find_free_port(), find_free_port()
    command = [sys.executable, "-m", "cluster.serve", str(tmp_path / "bundle"), "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--grpc-port", str(grpc_port)], env=without_cluster(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(7)]
        assert f"  gRPC   127.0.0.1:{grpc_port}\n" in lines
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            inputs = [describe("picture", "BYTES", [1], contents={"bytes_contents": [files[0].read_bytes()]})]
            response = ask(channel, "ModelInfer", model_name="shardline", inputs=inputs)
            assert read_outputs(response)["label"]
    finally:
        server.terminate()
        out, _ = server.communicate(timeout=60)
    assert out.endswith("stopped\n")
