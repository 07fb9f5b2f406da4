"""The table of the endpoint's pages: routes, /openapi.json, refusals and docs/serving.md say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
from endpoints import fill_path
from fastapi.testclient import TestClient

from cluster.serve import v1
from cluster.serve.api import PAGES, build_api
from cluster.serve.page import Endpoint, Page
from cluster.serve.v2 import pages as v2
from cluster.serve.web import pages as web

SERVING = (Path(__file__).parent.parent / "docs/serving.md").read_text(encoding="utf-8")
MODULES = (v1, v2, web)
LISTED = [page for page in PAGES if not page.is_part]
PAGE_CASES = [pytest.param(page, id=page.path) for page in LISTED]


def find_unnamed(source: str) -> list[str]:
    """Return the functions that answer a request, and that no row of PAGES names."""
    tree = ast.parse(source)
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return [
        each.name
        for each in tree.body
        if isinstance(each, ast.AsyncFunctionDef) and len(each.args.args) == 2 and each.name not in named
    ]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_function_that_answers_a_request_has_its_page(module: ModuleType) -> None:
    unnamed = find_unnamed(Path(module.__file__ or "").read_text(encoding="utf-8"))
    assert not unnamed, f"no row of PAGES names {unnamed[0]} in {module.__file__}; add one"


def test_planted_function_without_a_page_is_found() -> None:
    source = "async def f(endpoint, request): ...\nasync def g(endpoint, request): ...\nPAGES = (Page(f),)"
    assert find_unnamed(source) == ["g"]


@pytest.fixture
def client() -> TestClient:
    return TestClient(build_api(cast(Endpoint, SimpleNamespace(start_requests=lambda *_: None))))  # no page is answered


@pytest.mark.parametrize("page", PAGE_CASES)
def test_refusals_name_the_page(page: Page, client: TestClient) -> None:
    wrong = "POST" if page.method == "GET" else "GET"
    for response, status in ((client.get("/predict"), 404), (client.request(wrong, fill_path(page.path)), 405)):
        assert response.status_code == status
        said = response.json()
        assert f"{page.method} {page.path}" in said.get("detail", said.get("error"))  # /v2 has errors of its own form


def test_openapi_has_the_pages_of_the_table_and_no_other(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    said = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert said == {(page.method, page.path) for page in LISTED}
    for page in LISTED:
        operation = paths[page.path][page.method.lower()]
        assert ("requestBody" in operation) == bool(page.takes)
        parts = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
        assert parts == re.findall(r"{(\w+)}", page.path)


@pytest.mark.parametrize("page", PAGE_CASES)
def test_docs_name_the_page(page: Page) -> None:
    assert re.search(rf":8000{fill_path(page.path)}(?![\w/])", SERVING), (
        f"docs/serving.md does not name {page.method} {page.path}; add it to its block of commands"
    )


def test_docs_name_no_page_that_there_is_not() -> None:
    assert set(re.findall(r":8000(/[\w/]+)", SERVING)) <= {fill_path(page.path) for page in PAGES}
