"""A real browser for tests of pages: what one sees of them, measured in Chromium."""

from __future__ import annotations

import contextlib
import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def sideways(page: str, widths: list[int], folder: Path) -> dict[int, int]:
    """How many pixels wide ``page`` is in windows of so many; more than its window would scroll sideways. A frame
    stands for each window, because Chromium's own cannot be as narrow as a phone. Skips where there is no Chromium;
    fails where the page logs an error or asks for something from elsewhere."""
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(page)}"></iframe>'
        for width in widths
    )
    measure = "Array.from(frames, each => each.document.documentElement.scrollWidth).join()"
    source = folder / "frames.html"
    source.write_text(
        f"<!doctype html>{frames}<script>onload = () => {{ document.title = {measure} }}</script>", encoding="utf-8"
    )
    dom, console = opened(source.as_uri(), folder)
    assert not console, console
    title = re.search("<title>([0-9,]+)</title>", dom)
    assert title is not None, dom[-2000:]
    return dict(zip(widths, map(int, title[1].split(",")), strict=True))


def opened(url: str, folder: Path) -> tuple[str, list[str]]:
    """The document at ``url`` once it has been loaded, and what the page logged. Only this machine can be reached.
    Skips where there is no Chromium."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        pytest.skip("Chromium is not installed: apt-get install chromium runs this")
    seen = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder / 'profile'}", "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert seen.returncode == 0, seen.stderr
    return seen.stdout, [line for line in seen.stderr.splitlines() if ":CONSOLE" in line]


def api() -> Any:
    """Playwright's, of calls that wait."""
    return pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Skips where Playwright's package or Chromium is not installed. Nothing is downloaded."""
    playwright_api = api()
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("Chromium is not installed: scripts/install-test-tools.sh runs this")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        yield browser
        browser.close()
