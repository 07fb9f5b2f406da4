"""What stands before the pages: tokens, other origins, readiness, the log of requests, and options that contradict."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import time
from pathlib import Path

import httpx
import pytest
import yaml
from endpoints import OPTIONS
from torch import Tensor

from cluster.serve import auth
from cluster.serve.__main__ import main
from cluster.serve.api import PAGES, build_api
from cluster.serve.auth import read_tokens
from cluster.serve.options import Front, read_options
from cluster.serve.predictor import Predictor
from cluster.serve.rollout import Rollout
from shards.cli.ending import run_command
from shards.errors import UsageError
from trainer.contract.preprocess import PreprocessSpec

OPEN = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/docs"}


@pytest.fixture(scope="module")
def predictor(bundle_path: Path) -> Predictor:
    predictor = Predictor(read_options({"bundle": bundle_path, **OPTIONS}))
    asyncio.run(predictor.follow(Rollout(bundle=str(bundle_path))))
    return predictor


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(auth, "_LOOK_S", 0.0)
    path = tmp_path / "tokens"
    path.write_text("# of the clinic\nfirst-token\n\nsecond token with spaces\n")
    return path


def ask(predictor: Predictor, front: Front, path: str, method: str = "GET", **options: object) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(build_api(predictor, front), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            return await client.request(method, path, **options)  # type: ignore[arg-type]

    return asyncio.run(send())


@pytest.mark.parametrize("page", [page for page in PAGES if "{" not in page.path], ids=lambda page: page.path)
def test_every_page_needs_a_token_but_those_that_tell_nothing(page: object, predictor: Predictor, tokens: Path) -> None:
    path, method = page.path, page.method  # type: ignore[attr-defined]
    response = ask(predictor, Front(auth=f"token:{tokens}"), path, method)
    if path in OPEN or path.startswith("/web/"):
        assert response.status_code == 200
    else:
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert "needs a token" in response.text
        assert "first" not in response.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer first-token"}, 200),
        ({"authorization": "bearer second token with spaces"}, 200),
        ({"x-api-key": "first-token"}, 200),
        ({"authorization": "Bearer first-toke"}, 401),
        ({"authorization": "Bearer first-tokenn"}, 401),
        ({"authorization": "Bearer # of the clinic"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Basic first-token"}, 401),
        ({"x-api-key": ""}, 401),
    ],
)
def test_tokens_of_the_file_alone_are_taken(
    headers: dict[str, str], status: int, predictor: Predictor, tokens: Path
) -> None:
    response = ask(predictor, Front(auth=f"token:{tokens}"), "/v1/model", headers=headers)
    assert response.status_code == status


def test_tokens_change_without_a_restart_and_survive_a_file_that_is_gone(predictor: Predictor, tokens: Path) -> None:
    transport = httpx.ASGITransport(build_api(predictor, Front(auth=f"token:{tokens}")))

    async def send(token: str) -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            return (await client.get("/v1/model", headers={"authorization": f"Bearer {token}"})).status_code

    assert (asyncio.run(send("first-token")), asyncio.run(send("new"))) == (200, 401)
    other = tokens.with_name("other")
    other.write_text("new\n")
    os.replace(other, tokens)
    assert (asyncio.run(send("first-token")), asyncio.run(send("new"))) == (401, 200)
    for content in ("", None):
        tokens.write_text(content) if content is not None else tokens.unlink()
        time.sleep(0.01)
        assert (asyncio.run(send("first-token")), asyncio.run(send("new"))) == (401, 200)


def test_a_file_without_tokens_is_refused_before_anything_starts(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# none\n")
    for option, said in (
        (f"token:{empty}", "has no token, so that nobody could ask"),
        (f"token:{tmp_path / 'gone'}", "cannot be read"),
        ("secret", "auth is token:FILE"),
    ):
        assert run_command(main, [str(bundle_path), "--auth", option]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(UsageError, match="has no token"):
        read_tokens(empty)


def test_pages_of_another_origin_may_ask_if_they_are_allowed(predictor: Predictor) -> None:
    headers = {"origin": "https://lab.example", "access-control-request-method": "POST"}
    closed = ask(predictor, Front(), "/v1/predict", "OPTIONS", headers=headers)
    assert "access-control-allow-origin" not in closed.headers
    allowed = Front(allow_origin="https://lab.example")
    asked = ask(predictor, allowed, "/v1/predict", "OPTIONS", headers=headers)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "https://lab.example")
    other = ask(predictor, allowed, "/v1/model", headers={"origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in other.headers


def test_the_address_under_which_a_proxy_shows_it_is_in_openapi(predictor: Predictor) -> None:
    page = ask(predictor, Front(root_path="/cells"), "/openapi.json").json()
    assert page["servers"] == [{"url": "/cells"}]


def test_it_is_ready_once_a_bundle_is_loaded(bundle_path: Path, predictor: Predictor) -> None:
    loading = ask(Predictor(read_options({"bundle": bundle_path})), Front(), "/readyz")
    assert (loading.status_code, loading.headers["retry-after"]) == (503, "1")
    assert ask(predictor, Front(), "/readyz").json() == {"status": "ready"}


def test_the_log_has_one_line_per_request_without_its_content(predictor: Predictor, tmp_path: Path) -> None:
    front = Front(access_log=str(tmp_path / "access.jsonl"))
    ask(predictor, front, "/v1/model", headers={"x-request-id": "seven"})
    ask(predictor, front, "/v1/predict?top_k=0", "POST", files={"file": ("patient-smith.png", b"x" * 500)})
    lines = [json.loads(line) for line in (tmp_path / "access.jsonl").read_text().splitlines()]
    assert [(each["method"], each["page"], each["outcome"]) for each in lines] == [
        ("GET", "/v1/model", "ok"),
        ("POST", "/v1/predict", "invalid-request"),
    ]
    assert lines[0]["request_id"] == "seven"
    assert int(lines[1]["bytes"]) > 500
    assert "smith" not in (tmp_path / "access.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_mib": 100}, "max_mib=100 is above max_request_mib=64"),
        ({"max_pictures": 100}, "max_pictures=100 is above max_waiting=64"),
        ({"max_request_mib": 1000}, "max_request_mib=1000 is above max_held_mib=512"),
    ],
)
def test_limits_that_contradict_are_refused(options: dict[str, int], said: str, bundle_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read_options({"bundle": bundle_path, **options})


def test_the_file_for_serve_deploy_is_what_ray_and_the_endpoint_read() -> None:
    from ray.serve.schema import ServeDeploySchema

    text = (Path(__file__).parent.parent / "infra/serve.yaml").read_text(encoding="utf-8")
    [application] = ServeDeploySchema.model_validate(yaml.safe_load(text)).applications
    module, _, function = str(application.import_path).partition(":")
    built = getattr(importlib.import_module(module), function)(application.args)
    rollout = built._bound_deployment._deployment_config.user_config
    assert rollout["bundle"] == str(Path("runs/demo/bundle").absolute())


def test_an_answer_that_is_not_ready_in_time_is_given_up(bundle_path: Path, pictures: Path) -> None:
    late = Predictor(read_options({"bundle": bundle_path, "max_wait_s": 1e-4}))
    asyncio.run(late.follow(Rollout(bundle=str(bundle_path))))
    data = next((pictures / "test" / "red").iterdir()).read_bytes()
    response = ask(late, Front(), "/v1/predict", "POST", content=data)
    assert response.status_code == 504
    assert response.json()["limit"] == {"name": "max_wait_s", "value": 1e-4}


def test_a_fault_has_an_id_that_the_log_has_and_spoils_no_other_picture(
    bundle_path: Path, pictures: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Predictor(read_options({"bundle": bundle_path}))
    asyncio.run(broken.follow(Rollout(bundle=str(bundle_path))))
    good, bad = (path.read_bytes() for path in sorted((pictures / "test" / "red").iterdir())[:2])
    prepare = broken._prepare

    def fail_on_bad(data: bytes, spec: PreprocessSpec) -> tuple[Tensor, float]:
        if data == bad:
            raise RuntimeError("a secret of the machine")
        return prepare(data, spec)

    monkeypatch.setattr(broken, "_prepare", fail_on_bad)
    response = ask(broken, Front(), "/v1/predict", "POST", content=bad)
    page = response.json()
    assert (response.status_code, page["type"]) == (500, "urn:shardline:fault")
    assert page["request_id"] in caplog.text
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    several = ask(broken, Front(), "/v1/predict", "POST", files=[("file", good), ("file", bad), ("file", good)]).json()
    assert ["label" in each for each in several] == [True, False, True]
    assert several[1]["status"] == 500
