"""Replicas come and go with the load, down to none, and what an operator does meanwhile still works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from endpoints import OPTIONS

from cluster.serve import endpoint
from cluster.serve.options import read_options
from cluster.swap import swap
from cluster.swap.service import Service
from trainer.contract.bundle import Bundle

pytestmark = pytest.mark.slow
NAME = "scaled"
WAIT_S = 90.0


@contextmanager
def serving(endpoint_url: str, bundle: Path, least: int, most: int) -> Iterator[str]:
    """Deploy an endpoint that ends its replicas after a second without a request; yield its address."""
    options = read_options({"bundle": bundle, "replicas": most, "min_replicas": least, "idle_s": 1, **OPTIONS})
    port = int(endpoint_url.rpartition(":")[2])
    try:
        endpoint.deploy(options, "127.0.0.1", port, name=NAME, route="/scaled")
        yield f"{endpoint_url}/scaled"
    finally:
        endpoint.remove(everything=False, name=NAME)


def wait_for_replicas(service: Service, number: int) -> None:
    until = time.monotonic() + WAIT_S
    while len(service.list_replicas()) != number:
        assert time.monotonic() < until, service.list_replicas()
        time.sleep(0.1)


def test_an_endpoint_that_idles_has_no_replica_and_still_answers_and_takes_another_bundle(
    endpoint_url: str, bundle_path: Path, exported_path: Path, pictures: Path
) -> None:
    picture = next((pictures / "test" / "red").iterdir()).read_bytes()

    def ask() -> str:
        return str(httpx.post(f"{url}/v1/predict", content=picture, timeout=WAIT_S).json()["bundle"])

    with serving(endpoint_url, bundle_path, 0, 1) as url:
        service = Service(NAME)
        assert len(service.list_replicas()) == 1  # it is ready only once a replica has checked the bundle
        wait_for_replicas(service, 0)
        assert ask() == Bundle.load(bundle_path).page.fingerprint()
        wait_for_replicas(service, 0)
        swap.promote(service, swap.PromoteOptions(bundle=exported_path, timeout_s=WAIT_S))
        assert ask() == Bundle.load(exported_path).page.fingerprint()


def test_load_starts_a_second_replica_which_ends_after_it(endpoint_url: str, bundle_path: Path, pictures: Path) -> None:
    picture = next((pictures / "test" / "red").iterdir()).read_bytes()
    statuses: set[int] = set()
    is_over = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=WAIT_S) as client:
            while not is_over.is_set():
                statuses.add(client.post(f"{url}/v1/predict", content=picture).status_code)

    with serving(endpoint_url, bundle_path, 1, 2) as url:
        service = Service(NAME)
        threads = [threading.Thread(target=ask) for _ in range(2 * OPTIONS["max_batch_size"])]
        for thread in threads:
            thread.start()
        try:
            wait_for_replicas(service, 2)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        wait_for_replicas(service, 1)
    assert statuses == {200}
