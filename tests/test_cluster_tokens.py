"""An endpoint that wants a token, asked by everything of ours that asks endpoints: client, commands and page."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from endpoints import run_http
from playwright.sync_api import expect, sync_playwright

import cluster.client.__main__ as client_command
import cluster.verify.__main__ as verify_command
from cluster.client import AsyncClient, Client
from cluster.client.problem import RequestRefusedError
from shards.cli.ending import run_command

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
RIGHT, NEXT = "right-token", "next-token"
WAIT_MS = 60_000


@dataclass
class Guarded:
    """An endpoint, the bundle behind it, the file with its tokens, and a picture."""

    url: str
    bundle: Path
    tokens: Path
    picture: Path


@pytest.fixture(scope="module")
def served(decided_path: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"{RIGHT}\n")
    with run_http(decided_path, auth=f"token:{tokens}") as url:
        yield Guarded(url, decided_path, tokens, next((pictures / "test").glob("*/*")))


@pytest.fixture
def guarded(served: Guarded, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    monkeypatch.delenv("SHARDLINE_TOKEN", raising=False)
    served.tokens.write_text(f"{RIGHT}\n")
    with Client(served.url, RIGHT) as client:
        wait_until(client, served, is_taken=True)
    return served


@pytest.mark.parametrize("token", [None, "wrong-token"])
def test_clients_without_the_token_are_refused_in_a_sentence(guarded: Guarded, token: str | None) -> None:
    with Client(guarded.url, token) as client, pytest.raises(RequestRefusedError, match="token"):
        client.predict(guarded.picture)

    async def ask() -> None:
        async with AsyncClient(guarded.url, token) as client:
            await client.predict(guarded.picture)

    with pytest.raises(RequestRefusedError, match="token"):
        asyncio.run(ask())


def test_clients_with_the_token_are_answered_and_it_can_be_exchanged_without_a_restart(guarded: Guarded) -> None:
    async def ask(token: str) -> str:
        async with AsyncClient(guarded.url, token) as client:
            return str((await client.predict(guarded.picture))["label"])

    with Client(guarded.url, RIGHT) as old, Client(guarded.url, NEXT) as new:
        label = old.predict(guarded.picture)["label"]
        assert asyncio.run(ask(RIGHT)) == label
        guarded.tokens.write_text(f"{RIGHT}\n{NEXT}\n")
        wait_until(new, guarded, is_taken=True)
        assert old.predict(guarded.picture)["label"] == label
        guarded.tokens.write_text(f"{NEXT}\n")
        wait_until(old, guarded, is_taken=False)
        assert new.predict(guarded.picture)["label"] == label


def wait_until(client: Client, guarded: Guarded, is_taken: bool) -> None:
    """Ask until a token is taken, or no longer; the endpoint looks at its file every second."""
    until = time.monotonic() + 60
    while True:
        try:
            client.predict(guarded.picture)
            found = True
        except RequestRefusedError:
            found = False
        if found == is_taken:
            return
        assert time.monotonic() < until, f"not {'taken' if is_taken else 'refused'} within a minute"
        time.sleep(0.05)


def test_commands_take_the_token_of_a_file_or_of_the_environment(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask, verify = [guarded.url, str(guarded.picture)], [guarded.url, str(guarded.bundle)]
    assert run_command(client_command.main, ask) != 0
    assert run_command(verify_command.main, verify) != 0
    said = capsys.readouterr().err
    assert said.count("token") >= 2
    assert "Traceback" not in said
    for main, words in ((client_command.main, ask), (verify_command.main, verify)):
        assert run_command(main, [*words, "--token-file", str(guarded.tokens)]) == 0
    monkeypatch.setenv("SHARDLINE_TOKEN", RIGHT)
    for main, words in ((client_command.main, ask), (verify_command.main, verify)):
        assert run_command(main, words) == 0
    said = "".join(capsys.readouterr())
    assert str(guarded.picture) in said
    assert RIGHT not in said


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine; apt-get install chromium brings one")
def test_the_page_asks_for_the_token_and_then_shows_the_answer(guarded: Guarded) -> None:
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        tab = browser.new_page()
        tab.goto(guarded.url)
        dialog = tab.get_by_role("dialog", name="A token is needed")
        for token in ("wrong-token", RIGHT):
            expect(dialog).to_be_visible(timeout=WAIT_MS)
            expect(tab.get_by_label("Token", exact=True)).to_have_value("", timeout=WAIT_MS)
            tab.get_by_label("Token", exact=True).fill(token)
            tab.keyboard.press("Enter")
        expect(tab.locator("#about h2")).to_be_visible(timeout=WAIT_MS)
        tab.set_input_files("#file", guarded.picture)
        expect(tab.locator("#history li")).to_have_count(1, timeout=WAIT_MS)
        with Client(guarded.url, RIGHT) as client:
            label = client.predict(guarded.picture)["label"]
        expect(tab.locator("#history li")).to_contain_text(label, timeout=WAIT_MS)
