"""Requests that nobody would send: whatever comes, the endpoint answers, never with 500, and answers the next one."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

CHECKS = "not_a_server_error,content_type_conformance,status_code_conformance"
ALLOWED = {200, 400, 408, 413, 415, 422, 503, 504}
TYPES = ["image/jpeg", "image/x", "application/octet-stream", "application/json", "multipart/form-data", "text/x", ""]
RANDOM = random.Random(0)


def run_schemathesis(url: str, examples: int, folder: Path) -> int:
    """Send valid and invalid requests made from /openapi.json to every page; return how many."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", "--no-color"]
    command += ["--checks", CHECKS, "--max-examples", str(examples), "--seed", "1", "--phases", "fuzzing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:]
    found = re.search(r"([\d,]+) generated", done.stdout)
    assert found, done.stdout
    return int(found[1].replace(",", ""))


def mutate(data: bytes) -> bytes:
    """Return a file with some of its bytes changed, removed, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(RANDOM.randint(1, 8)):
        place, length = RANDOM.randrange(len(changed) or 1), RANDOM.randint(1, 64)
        kind = RANDOM.randrange(4)
        if kind == 0:
            changed[place : place + length] = RANDOM.randbytes(length)
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = changed[place : place + length]
        elif RANDOM.random() < 0.2:
            del changed[place:]
    return bytes(changed)


def send_mutations(url: str, files: list[bytes], number: int) -> Counter[int]:
    """Send changed pictures under various content types; return the statuses of the answers."""
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(number):
            data, kind = mutate(RANDOM.choice(files)), RANDOM.choice(TYPES)
            if kind == "multipart/form-data" and RANDOM.random() < 0.5:
                response = client.post("/v1/predict", files={"file": data})
            else:
                response = client.post("/v1/predict", content=data, headers={"content-type": kind} if kind else {})
            assert response.headers["content-type"] in ("application/json", "application/problem+json")
            statuses[response.status_code] += 1
    return statuses


@pytest.fixture(scope="module")
def files(pictures: Path) -> list[bytes]:
    odd = [
        path for path in (Path(__file__).parent / "data").rglob("*") if path.suffix in (".png", ".jpg", ".gif", ".bmp")
    ]
    return [path.read_bytes() for path in [*sorted((pictures / "test").glob("*/*")), *odd]]


def test_requests_made_from_the_schema_get_no_fault(endpoint_url: str, tmp_path: Path) -> None:
    assert run_schemathesis(endpoint_url, 100, tmp_path) > 300


def test_changed_pictures_get_an_answer_or_a_refusal(endpoint_url: str, files: list[bytes]) -> None:
    statuses = send_mutations(endpoint_url, files, 700)
    assert set(statuses) <= ALLOWED
    assert statuses[200] > 5
    assert statuses[422] > 50


@pytest.mark.slow
def test_tens_of_thousands_of_requests_get_no_fault_and_memory_stays_flat(
    endpoint_url: str, files: list[bytes], tmp_path: Path
) -> None:
    send_mutations(endpoint_url, files, 1000)
    before = read_memory()
    assert set(send_mutations(endpoint_url, files, 17_000)) <= ALLOWED
    assert run_schemathesis(endpoint_url, 500, tmp_path) > 3000
    assert read_memory() < before + 100


def read_memory() -> float:
    """Return the resident MB of the replicas of this session's endpoint."""
    import psutil

    found = [
        process for process in psutil.process_iter(["name", "cmdline"]) if "ServeReplica:tested" in str(process.info)
    ]
    assert found
    return max(process.memory_info().rss for process in found) / 1e6
