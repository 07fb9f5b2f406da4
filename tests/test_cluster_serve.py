"""The endpoint, over real HTTP through Ray Serve."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from endpoints import MAX_MIB, OPTIONS, fill_path, find_free_port, stall
from PIL import Image

from cluster.client import Client
from cluster.serve import v1
from cluster.serve.__main__ import main
from cluster.serve.answer import Timings, Wishes, describe_answer
from cluster.serve.api import PAGES, build_api
from cluster.serve.app import build
from cluster.serve.compute import compute_each
from cluster.serve.options import read_options
from cluster.serve.page import Page
from cluster.serve.predictor import Predictor
from cluster.serve.problem import TITLES
from cluster.serve.rollout import Rollout
from cluster.serve.v2 import pages as v2
from shards.cli.ending import run_command
from shards.errors import UsageError
from shards.workers.ray_cluster import join_or_start
from trainer.contract.bundle import Bundle
from trainer.contract.compute.exported import default_path, script_path
from trainer.contract.model.cam import explain

MAX_BYTES = MAX_MIB * 2**20


@pytest.fixture(scope="module")
def url(endpoint_url: str) -> str:
    return endpoint_url


@pytest.fixture(scope="module")
def bundle(decided_path: Path) -> Bundle:
    return Bundle.load(decided_path)


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def files(pictures: Path) -> list[Path]:
    return sorted((pictures / "test").glob("*/*"))


def copy_bundle(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copy"))


def assert_equal_answer(answer: dict[str, Any], bundle: Bundle, data: bytes) -> None:
    expected = bundle.compute(bundle.prepare(data)[None])[0]
    torch.testing.assert_close(
        torch.tensor(answer["logits"]), expected.logits, rtol=0, atol=1e-4 * float(expected.logits.abs().max())
    )
    assert expected.ood_score is not None
    assert answer["ood_score"] == pytest.approx(expected.ood_score, rel=1e-3)
    said = bundle.answer(*expected).model_dump()
    for name in ("label", "decision", "abstain", "set"):
        assert answer[name] == said[name]


def read_error(response: httpx.Response) -> str:
    """Return the sentence of a problem, whose other members must be those of its kind."""
    page = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert page["status"] == response.status_code
    assert (page["type"], page["title"]) == next(
        (f"urn:shardline:{kind}", title) for kind, (_, title) in TITLES.items() if page["type"].endswith(f":{kind}")
    )
    assert page["request_id"] == response.headers.get("x-request-id", page["request_id"])
    return str(page["detail"])


def test_the_logits_tell_a_picture_from_its_mirror_image(bundle: Bundle, files: list[Path]) -> None:
    for path in files[::4]:  # or the comparisons below could not fail
        image = bundle.prepare(path.read_bytes())
        logits, mirrored = bundle.compute_logits(torch.stack([image, image.flip(-1)]))
        assert float((logits - mirrored).abs().max()) > 1e-2 * float(logits.abs().max())


def test_http_gives_the_logits_of_the_bundle_for_raw_bodies(
    http: httpx.Client, bundle: Bundle, files: list[Path]
) -> None:
    for path in files[::4]:
        data = path.read_bytes()
        kind = {".png": "image/png", ".jpg": "image/jpeg"}[path.suffix]
        curl = "application/x-www-form-urlencoded"  # of `curl --data-binary`
        for headers in (
            {"content-type": kind},
            *({"content-type": it} for it in ("application/octet-stream", curl)),
            {},
        ):
            response = http.post("/v1/predict", content=data, headers=headers)
            assert response.status_code == 200, response.text
            assert_equal_answer(response.json(), bundle, data)


def test_http_gives_the_logits_of_the_bundle_for_multipart_bodies(
    http: httpx.Client, bundle: Bundle, files: list[Path]
) -> None:
    for path in files[1::6]:
        data = path.read_bytes()
        answer = http.post("/v1/predict", files={"file": (path.name, data)}).json()
        assert_equal_answer(answer, bundle, data)
        assert answer["probability"] == answer["probabilities"][answer["label"]]
        assert answer["bundle"] == bundle.page.fingerprint()


def test_a_broken_picture_is_refused_and_the_others_of_its_burst_are_answered_in_batches(
    http: httpx.Client, url: str, bundle: Bundle, files: list[Path]
) -> None:
    before = http.get("/v1/stats").json()
    good = [path.read_bytes() for path in files[:15]]
    bodies = [*good[:7], good[0][: len(good[0]) // 2], *good[7:]]

    async def send_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            return await asyncio.gather(*(client.post("/v1/predict", content=body) for body in bodies))

    responses = asyncio.run(send_all())
    refused = responses.pop(7)
    assert refused.status_code == 422
    assert "cannot be decoded" in read_error(refused)
    for data, response in zip(good, responses, strict=True):
        assert response.status_code == 200, response.text
        assert_equal_answer(response.json(), bundle, data)
    after = http.get("/v1/stats").json()
    assert after["pictures"] - before["pictures"] == 15  # the broken one entered no batch
    assert after["batches"] - before["batches"] < 15
    assert 2 <= after["largest_batch"] <= OPTIONS["max_batch_size"]


def test_a_bundle_of_several_labels_answers_with_all_that_are_there(
    bundle_path: Path, bundle: Bundle, files: list[Path], tmp_path: Path
) -> None:
    """The replica and its pages as Ray Serve runs them, but for its proxy."""
    page = copy_bundle(bundle_path, tmp_path) / "bundle.json"
    text = page.read_text().replace('"argmax"', '"each"').replace('"single-label"', '"multi-label"')
    page.write_text(text)

    async def ask() -> list[httpx.Response]:
        predictor = Predictor(read_options({"bundle": page.parent, **OPTIONS}))
        await predictor.follow(Rollout(bundle=str(page.parent)))
        transport = httpx.ASGITransport(build_api(predictor))
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            bodies = [path.read_bytes() for path in files[::8]]
            return [await client.get("/v1/model"), *[await client.post("/v1/predict", content=body) for body in bodies]]

    model, *answers = asyncio.run(ask())
    assert (model.json()["task"], model.json()["decision"]["rule"]) == ("multi-label", "each")
    for path, response in zip(files[::8], answers, strict=True):
        said = response.json()
        logits = bundle.compute_logits(bundle.prepare(path.read_bytes())[None])[0]
        p = torch.sigmoid(logits.double()).tolist()
        assert list(said["probabilities"].values()) == pytest.approx(p, rel=1e-3)
        assert said["labels"] == [name for name, each in zip(bundle.page.classes, p, strict=True) if each >= 0.5]
        assert said["label"] == (bundle.page.classes[int(logits.argmax())] if said["labels"] else None)
        assert said["probability"] == max(said["probabilities"].values())


def test_an_exception_in_a_batch_stays_with_its_own_picture(bundle: Bundle, files: list[Path]) -> None:
    images = [bundle.prepare(path.read_bytes()) for path in files[:5]]
    images[3] = images[3][:2]  # two channels: neither stacks nor fits the model
    results = compute_each(bundle, images)
    assert isinstance(results[3], Exception)
    for image, result in zip(images[:3] + images[4:], results[:3] + results[4:], strict=True):
        assert not isinstance(result, Exception)
        torch.testing.assert_close(result.logits, bundle.compute_logits(image[None])[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("headers", [{}, {"content-type": "image/jpeg"}])
def test_an_empty_body_is_refused(http: httpx.Client, headers: dict[str, str]) -> None:
    response = http.post("/v1/predict", content=b"", headers=headers)
    assert (response.status_code, read_error(response)) == (422, "the picture is empty (0 bytes)")


def test_a_picture_over_the_limit_is_refused_by_its_announced_and_by_its_real_size(http: httpx.Client) -> None:
    data = bytes(int(MAX_BYTES) + 200_000)

    def stream() -> Iterator[bytes]:  # httpx announces no length for it
        yield from (data[start : start + 65536] for start in range(0, len(data), 65536))

    for body in ({"content": data}, {"content": stream()}, {"files": {"file": data}}):
        response = http.post("/v1/predict", **body)  # type: ignore[arg-type]
        assert response.status_code == 413
        assert "over the limit of 524,288" in read_error(response)


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ({"files": {"image": b"x"}}, "got 'image';"),
        ({"files": {"file": b"x"}, "data": {"label": "cat"}}, "got 'label' (text), 'file';"),
        ({"headers": {"content-type": "multipart/form-data; boundary=b"}, "content": b"--b--\r\n"}, "got none;"),
        ({"headers": {"content-type": "multipart/form-data"}, "content": b"x"}, "Missing boundary"),
        ({"headers": {"content-type": "multipart/form-data; boundary=b"}, "content": b"nonsense"}, "cannot be read"),
    ],
)
def test_a_form_without_files_alone_is_refused(http: httpx.Client, form: dict[str, Any], found: str) -> None:
    response = http.post("/v1/predict", **form)
    assert response.status_code == 422
    assert found in read_error(response)


def test_another_content_type_is_refused_with_those_that_are_taken(http: httpx.Client) -> None:
    response = http.post("/v1/predict", content="<picture/>", headers={"content-type": "text/xml"})
    assert response.status_code == 415
    assert "text/xml is not supported; send a picture as image/*" in read_error(response)


def test_stalled_clients_stop_nobody_and_are_ended_at_the_limit(url: str, files: list[Path]) -> None:
    port, data = int(url.rpartition(":")[2]), files[0].read_bytes()
    with ExitStack() as stack:
        stalled = stall(port, 200, stack)
        began = time.monotonic()
        answered = 0
        with Client(url, retries=0) as client:
            while not select.select(stalled, [], [], 0)[0]:  # until the least rate of an upload ends the first
                assert client.predict(data)["label"]
                answered += 1
        assert answered > 1
        for connection in stalled:
            assert connection.recv(12) == b"HTTP/1.1 408"
        assert 4.5 < time.monotonic() - began < 30


def test_more_pictures_than_may_wait_are_turned_away_and_a_patient_client_is_answered(
    url: str, files: list[Path]
) -> None:
    data = files[0].read_bytes()
    form = [("file", data)] * 4

    async def send_many() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            return await asyncio.gather(*(client.post("/v1/predict", files=form) for _ in range(40)))

    responses = asyncio.run(send_many())
    busy = [response for response in responses if response.status_code == 503]
    assert busy
    assert {response.status_code for response in responses} == {200, 503}
    for response in busy:
        assert response.headers["retry-after"] == "1"
        assert "already works on" in read_error(response)
        assert response.json()["limit"] == {"name": "max_waiting", "value": 48}
    assert all(len(response.json()) == 4 for response in responses if response.status_code == 200)


def test_many_pictures_are_answered_in_order_and_a_broken_one_spoils_no_other(
    http: httpx.Client, bundle: Bundle, files: list[Path]
) -> None:
    good = [path.read_bytes() for path in files[:3]]
    sent = [good[0], good[1][:99], good[1], good[2]]
    encoded = [base64.b64encode(data).decode() for data in sent]
    for body in ({"files": [("file", data) for data in sent]}, {"json": {"images": encoded}}):
        response = http.post("/v1/predict", **body)  # type: ignore[arg-type]
        first, broken, *others = response.json()
        assert response.status_code == 200
        for answer, data in zip([first, *others], good, strict=True):
            assert_equal_answer(answer, bundle, data)
        assert (broken["status"], broken["type"]) == (422, "urn:shardline:picture-refused")
        assert "cannot be decoded" in broken["detail"]
    alone = http.post("/v1/predict", json={"image": encoded[0]}).json()
    assert_equal_answer(alone, bundle, good[0])
    assert isinstance(http.post("/v1/predict", json={"images": encoded[:1]}).json(), list)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"json": {"url": "http://127.0.0.1:1/picture.jpg"}}, 422, "the JSON has 'url'; send {"),
        ({"json": {"image": "no base64!"}}, 422, "'image' is not base64"),
        ({"json": {"images": []}}, 422, "'images' is not a list with pictures"),
        ({"json": {"images": ["aGk=", 7]}}, 422, "'images[1]' is not base64"),
        ({"json": ["aGk="]}, 422, "the JSON has a list"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "the body is not JSON"),
        ({"json": {"images": ["aGk="] * 5}}, 413, "the request has 5 pictures, over the limit of 4"),
        ({"files": [("file", b"x")] * 5}, 413, "5 pictures, over the limit of 4"),
        ({"files": [("file", b"x")] * 9}, 422, "it has more than 4 files"),
        ({"json": {"image": "A" * 3_000_000}}, 413, "the request has"),
    ],
)
def test_bodies_of_another_form_are_refused(body: dict[str, Any], status: int, said: str, http: httpx.Client) -> None:
    response = http.post("/v1/predict", **body)
    assert said in read_error(response)
    assert response.status_code == status


def test_a_picture_of_too_many_pixels_is_refused_by_the_endpoints_own_limit(http: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("L", (2500, 2000)).save(file, "PNG")
    response = http.post("/v1/predict", content=file.getvalue())
    assert (response.status_code, response.json()["limit"]) == (413, {"name": "max_megapixels", "value": 4})
    assert "2,500 x 2,000 pixels, over the limit of 4,000,000" in read_error(response)


def test_the_most_probable_classes_can_be_asked_for_alone(http: httpx.Client, files: list[Path]) -> None:
    data = files[0].read_bytes()
    whole = http.post("/v1/predict", content=data).json()
    ranked = sorted(whole["probabilities"].items(), key=lambda pair: -pair[1])
    for k in (1, 2, 9):
        answer = http.post(f"/v1/predict?top_k={k}", content=data).json()
        assert [(each["label"], pytest.approx(each["probability"])) for each in answer["top_k"]] == ranked[:k]
        assert not answer.keys() & {"probabilities", "logits"}
        assert answer["label"] == whole["label"]


def test_a_threshold_moves_the_decision_for_the_positive_class(http: httpx.Client, files: list[Path]) -> None:
    for path in files[::5]:
        data = path.read_bytes()
        p = http.post("/v1/predict", content=data).json()["probabilities"]["red"]
        for threshold, label in ((p - 1e-6, "red"), (p + 1e-6, None)):
            answer = http.post(f"/v1/predict?threshold={threshold}", content=data).json()
            assert (answer["label"] == "red") == (label == "red")


def test_the_explanation_is_the_map_of_the_decided_class(http: httpx.Client, bundle: Bundle, files: list[Path]) -> None:
    data = files[1].read_bytes()
    answer = http.post("/v1/predict?explain=true", content=data).json()
    said = answer["explanation"]
    assert said["label"] == answer["label"]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(said["png"]))))
    number = bundle.page.classes.index(said["label"])
    expected = explain(bundle.model, bundle.prepare(data)[None], torch.tensor([number]))[0]
    assert drawn.shape == expected.shape
    assert np.abs(drawn / 255 - expected.numpy()).max() < 0.02


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("top_k=0", "option 'top_k': input should be greater than or equal to 1, got '0'"),
        ("threshold=2", "option 'threshold': input should be less than or equal to 1"),
        ("explain=maybe", "option 'explain'"),
        ("topk=1", "there is no option 'topk'; /v1/predict takes top_k, explain, threshold"),
    ],
)
def test_options_of_a_request_are_checked(query: str, said: str, http: httpx.Client, files: list[Path]) -> None:
    response = http.post(f"/v1/predict?{query}", content=files[0].read_bytes())
    assert response.status_code == 422
    assert said in read_error(response)


def test_timings_are_of_this_picture(http: httpx.Client, files: list[Path]) -> None:
    began = time.perf_counter()
    timings = http.post("/v1/predict", content=files[0].read_bytes()).json()["timings"]
    whole_ms = 1e3 * (time.perf_counter() - began)
    assert list(timings) == ["queue_ms", "decode_ms", "model_ms"]
    assert all(value > 0 for value in timings.values())
    assert sum(timings.values()) < whole_ms
    assert timings["queue_ms"] < 40  # a lone picture waits for no other, though a batch may wait for 50 ms


def test_head_and_options_are_answered(http: httpx.Client) -> None:
    for page in PAGES:
        if page.method == "GET":
            assert http.head(fill_path(page.path)).status_code == 200
        asked = http.options(fill_path(page.path))
        assert (asked.status_code, asked.content) == (204, b"")
        assert page.method in asked.headers["allow"]


def test_unknown_pages_and_methods_are_answered_in_json(http: httpx.Client) -> None:
    unknown, wrong = http.get("/v1/predictions"), http.get("/v1/predict")
    assert (unknown.status_code, wrong.status_code, wrong.headers["allow"]) == (404, 405, "POST")
    assert read_error(unknown).startswith("there is no page /v1/predictions; the endpoint has POST /v1/predict")
    assert read_error(wrong).startswith("GET is not possible at /v1/predict; the endpoint has")


@pytest.mark.parametrize("page", [*v1.PAGES, *v2.PAGES], ids=lambda page: page.path)
def test_every_page_of_programs_answers_in_json(page: Page, http: httpx.Client) -> None:
    response = http.request(page.method, fill_path(page.path))
    assert isinstance(response.json(), dict)
    # What takes a picture got none.
    assert response.status_code in ({400, 422} if page.takes else {200})


def test_an_answer_without_a_decision_has_no_words_for_one(bundle_path: Path, files: list[Path]) -> None:
    plain = Bundle.load(bundle_path)

    said = plain.answer(*plain.compute(plain.prepare(files[0].read_bytes())[None])[0])
    timings = Timings(queue_ms=0, decode_ms=1, model_ms=2)
    page = describe_answer(said, Wishes(), bundle="0", timings=timings).describe()
    assert list(page) == ["label", "labels", "probability", "probabilities", "logits", "bundle", "timings"]


def test_health_and_model_pages_say_what_is_served(http: httpx.Client, bundle: Bundle, decided_path: Path) -> None:
    health = http.get("/healthz")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    page, recorded = http.get("/v1/model").json(), json.loads((decided_path / "bundle.json").read_bytes())
    assert recorded["decision"]["point"]["positive"] == "red"
    for name in ("model", "preprocess", "classes", "display_names", "metrics"):
        assert page[name] == recorded[name]
    assert page["decision"] == {**recorded["decision"], "rule": "threshold"}  # what is done; bundles keep argmax there
    assert page["fingerprints"] == {"bundle": bundle.page.fingerprint(), "dataset": "0" * 64, "recipe": "0" * 64}
    assert page["versions"]["endpoint"]["torch"] == torch.__version__.partition("+")[0]
    assert (page["device"], page["options"]["max_batch_size"]) == ("cpu", 8)
    assert page["backend"].startswith("computes with eager: no choice is recorded for ")


def test_an_unknown_option_is_refused_with_a_suggestion(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no option 'bundel': did you mean 'bundle'\?"):
        build({"bundle": bundle_path, "bundel": bundle_path})
    with pytest.raises(UsageError, match=r"option 'replicas': .* greater than or equal to 1, got '0'"):
        build({"bundle": bundle_path, "replicas": "0"})
    with pytest.raises(UsageError, match=r"min_replicas=2 is not below replicas=2, .* or leave min_replicas out"):
        build({"bundle": bundle_path, "replicas": 2, "min_replicas": 2})
    with pytest.raises(UsageError, match=r"option 'bundle' is missing"):
        build({"replicas": 2})


@pytest.mark.parametrize("place", ["", "bundle", "best/bundle"])
def test_folder_of_a_run_or_a_sweep_stands_for_its_bundle(place: str, bundle_path: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_path, tmp_path / "x" / place, dirs_exist_ok=True)
    assert read_options({"bundle": str(tmp_path / "x")}).bundle == str(tmp_path / "x" / place)


def test_the_command_refuses_a_folder_that_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, [str(tmp_path)]) == 2
    assert "is not a bundle (it has no bundle.json)" in capsys.readouterr().err


def test_the_command_refuses_a_bundle_of_another_version(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = copy_bundle(bundle_path, tmp_path) / "bundle.json"
    page.write_text(json.dumps({**json.loads(page.read_bytes()), "version": 7}))
    assert run_command(main, [str(page.parent)]) == 3
    assert "bundle.json is of version 7, this program reads version 1" in capsys.readouterr().err


def test_the_command_refuses_damaged_weights(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = copy_bundle(bundle_path, tmp_path) / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert run_command(main, [str(weights.parent)]) == 3
    assert "sha256 differs from bundle.json" in capsys.readouterr().err


def test_the_command_joins_the_cluster_and_respects_who_serves_there(
    url: str, http: httpx.Client, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = int(url.rpartition(":")[2])
    assert join_or_start() is False
    assert run_command(main, [str(bundle_path), "--port", str(find_free_port())]) == 2
    assert f"Ray Serve already listens on port {port}" in capsys.readouterr().err
    assert run_command(main, [str(bundle_path), "--port", str(port)]) == 2
    assert "already has the application 'tested' at the same pages; delete that one first" in capsys.readouterr().err
    assert http.get("/healthz").status_code == 200


def test_a_cluster_that_does_not_answer_is_named_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-c", "from shards.workers.ray_cluster import join_or_start; join_or_start()"],
        env=os.environ | {"RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"ConnectionError: no Ray cluster answers at RAY_ADDRESS={address} (" in done.stderr


def test_the_command_refuses_a_busy_port_before_ray_starts(bundle_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "cluster.serve", str(bundle_path), "--port", str(port)],
            env=without_cluster(),
            capture_output=True,
            text=True,
            timeout=120,
        )
    sentence = (
        f"error: port {port} of 127.0.0.1 is in use by another program; stop that, or choose another with --port\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


def test_the_command_serves_until_ctrl_c_and_leaves_no_process(bundle_path: Path, files: list[Path]) -> None:
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "cluster.serve", str(bundle_path), "--port", str(port)],
        env=without_cluster(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == f"ready: {bundle_path}\n"
        client = [sys.executable, "-m", "cluster.client", url, str(files[0])]
        done = subprocess.run(client, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{files[0]}  ")
        family = find_family(server.pid)
        assert len(family) > 5  # the command, Ray's own processes, Serve's and the replica
        listening = find_listening("haproxy", family)
        assert listening == {("127.0.0.1", port)}  # Ray's template opens two more on every interface
        (config,) = Path("/tmp").glob(f"shl-{server.pid}-*/*/haproxy.cfg")
        assert config.read_text().count("set-var(proc.closed_until)") == 1  # the template still has our line's place
        with ExitStack() as stack:
            stall(port, 200, stack)
            with Client(url, retries=0) as asking:
                assert asking.predict(files[0])["label"]
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
    finally:
        server.kill()
        server.wait()
    assert (server.returncode, out.splitlines()[-1]) == (0, "stopped")
    assert err.splitlines()[1:] == ["", "stopping ..."]  # not a word of Ray's
    wait_until_gone(family)


@pytest.mark.slow
def test_nothing_outlives_a_command_that_was_killed(bundle_path: Path) -> None:
    port = find_free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "cluster.serve", str(bundle_path), "--port", str(port)],
        env=without_cluster(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("ready")
        family = find_family(server.pid)
        assert any(psutil.Process(pid).name() == "haproxy" for pid, _ in family)
    finally:
        server.kill()
        server.wait()
    wait_until_gone(family, 120)  # Ray's agents look for its control store for a minute


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_bundle_that_is_removed_under_a_running_endpoint_is_named_once_it_is_needed_and_both_remedies_help(
    bundle_path: Path, exported_path: Path, files: list[Path], tmp_path: Path
) -> None:
    bundle, port = Path(shutil.copytree(bundle_path, tmp_path / "bundle")), find_free_port()
    url, said = f"http://127.0.0.1:{port}", tmp_path / "said"
    with open(said, "w") as err:
        server = subprocess.Popen(
            [sys.executable, "-m", "cluster.serve", str(bundle), "--port", str(port)],
            env=without_cluster(), stdout=subprocess.PIPE, stderr=err, text=True,
        )  # fmt: skip

    def lose_replica() -> None:
        (replica,) = [each for each in psutil.Process(server.pid).children(recursive=True) if "Replica" in each.name()]
        replica.kill()

    def wait_for(text: str, times: int) -> None:
        until = time.monotonic() + 90
        while said.read_text().count(text) < times:
            assert time.monotonic() < until, said.read_text()
            time.sleep(0.2)

    def ask() -> str:
        with Client(url, retries=6) as client:
            return str(client.predict(files[0])["bundle"])

    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("ready")
        raylet = next(each for each in psutil.Process(server.pid).children(recursive=True) if each.name() == "raylet")
        address = next(word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--gcs-address="))
        bundle.rename(tmp_path / "away")
        assert ask() == Bundle.load(bundle_path).page.fingerprint()  # from memory
        trouble = f"error: a replica has ended, and none can start: {bundle} does not exist"
        lose_replica()
        wait_for(trouble, 1)
        (tmp_path / "away").rename(bundle)
        wait_for("replicas start again", 1)
        assert ask() == Bundle.load(bundle_path).page.fingerprint()
        bundle.rename(tmp_path / "away")
        lose_replica()
        wait_for(trouble, 2)
        promote = [sys.executable, "-m", "cluster.promote", str(exported_path), "--address", address]
        call = partial(subprocess.run, env=without_cluster(), capture_output=True, text=True, timeout=120)
        done = call(promote)
        assert (done.returncode, "promote it with --force" in done.stderr) == (2, True), done.stderr
        done = call([*promote, "--force"])
        assert done.returncode == 0, done.stderr
        wait_for("replicas start again", 2)
        assert ask() == Bundle.load(exported_path).page.fingerprint()
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a file system of its own")
def test_a_full_shared_memory_stops_no_endpoint(bundle_path: Path, files: list[Path]) -> None:
    """Ray then keeps its object store on disk; `cluster.doctor` says so."""
    port = find_free_port()
    fill = "mount -t tmpfs -o size=2m tmpfs /dev/shm && head -c 2000000 /dev/zero > /dev/shm/full && exec "
    words = [sys.executable, "-m", "cluster.serve", str(bundle_path), "--port", str(port)]
    server = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", fill + shlex.join(words)],
        env=without_cluster(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("ready")
        with Client(f"http://127.0.0.1:{port}") as client:
            assert client.predict(files[0])["label"]
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.mark.slow
def test_the_endpoint_computes_with_the_back_end_that_is_asked_for(exported_path: Path, files: list[Path]) -> None:
    port = find_free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "cluster.serve", str(exported_path), "--port", str(port), "--backend", "onnx"],
        env=without_cluster(),
        stdout=subprocess.PIPE,
        text=True,
    )
    bundle = Bundle.load(exported_path)
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("ready")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            assert http.get("/v1/model").json()["backend"] == "computes with onnx, as requested"
            for path in files[::4]:
                answer = http.post("/v1/predict", content=path.read_bytes()).json()
                expected = bundle.compute_logits(bundle.prepare(path.read_bytes())[None])[0]
                limit = 1e-3 * float(expected.abs().max())
                assert answer["logits"] == pytest.approx(expected.tolist(), rel=0, abs=limit)
            program = [sys.executable, str(script_path(default_path(exported_path, "onnx"))), *map(str, files[::4])]
            done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=True)
            for path, line in zip(files[::4], done.stdout.splitlines(), strict=True):
                asked = http.post("/v1/predict", content=path.read_bytes()).json()
                for name, share in json.loads(line)["probabilities"].items():
                    assert share == pytest.approx(asked["probabilities"][name], rel=0, abs=1e-3)
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()
        server.wait()


def without_cluster() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def read_processes() -> dict[tuple[int, int], int]:
    """Return the parent of each living process, by its id and start time, which together are never used again."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, *rest = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if state != "Z":
            parents[int(path.parent.name), int(rest[17])] = int(parent)
    return parents


def find_family(pid: int) -> set[tuple[int, int]]:
    """Return the process `pid` and all that descend from it."""
    parents, family = read_processes(), {pid}
    for _ in range(8):  # generations
        family |= {child for (child, _), parent in parents.items() if parent in family}
    return {process for process in parents if process[0] in family}


def find_listening(name: str, family: set[tuple[int, int]]) -> set[tuple[str, int]]:
    """Return the addresses at which processes of this name listen."""
    processes = [psutil.Process(pid) for pid, _ in family]
    connections = [each for process in processes if process.name() == name for each in process.net_connections()]
    return {(each.laddr.ip, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}


def wait_until_gone(family: set[tuple[int, int]], seconds: float = 15) -> None:
    until = time.monotonic() + seconds  # Ray's workers end when they see that their raylet has
    while left := family & read_processes().keys():
        assert time.monotonic() < until, left
        time.sleep(0.2)
