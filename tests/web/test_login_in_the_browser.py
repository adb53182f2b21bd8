"""Logging in, working and logging out in Chromium, on a server that asks for keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from visit import Visit, chromium

from requests_jsonl import chat_file
from server_process import ServerProcess


class Guarded(NamedTuple):
    root: str
    key: str


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def guarded(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """After the browser: without one, nothing starts."""
    folder = tmp_path_factory.mktemp("guarded")
    running = ServerProcess(folder / "data", "--keys")
    with (folder / "out").open("w") as output:
        running.spawn(output)
        running.wait_until_ready()
    printed = (folder / "out").read_text().splitlines()
    yield Guarded(running.base_url.removesuffix("/v1"), next(line.strip() for line in printed if "    sk-" in line))
    running.kill()


def test_log_in_start_a_batch_watch_it_and_log_out(browser: Any, guarded: Guarded, tmp_path: Path) -> None:
    visit = Visit(browser, guarded.root)
    page = visit.page
    visit.look("/?after=")
    assert page.url.endswith("/login?next=/%3Fafter%3D") and page.evaluate("document.activeElement.id") == "key"
    visit.audit()
    page.keyboard.type("sk-wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    visit.audit()
    page.get_by_label("Key").fill(guarded.key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/?after=")
    # No script can read it.
    assert page.evaluate("document.cookie") == ""

    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(chat_file(3))
    visit.look("/new")
    page.locator("input[type=file]").set_input_files(rows)
    with page.expect_navigation(url="**/batches/batch_*"):
        page.get_by_role("button", name="Start").first.click()
    page.get_by_text("completed").first.wait_for()

    visit.look("/login")
    assert page.get_by_text("admin (admin)").is_visible()
    visit.audit()
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Key").wait_for()
    visit.look("/")
    assert "/login" in page.url
    visit.check()
    visit.close()
