"""A browser's visit to the dashboard, which notes whatever must not happen: a script of somebody else's, a request to
another host, something that the security policy had to stop, an error in the console, a finding of axe."""

from __future__ import annotations

import contextlib
from typing import Any

from browser import api, chromium

__all__ = ["HOSTILE", "Visit", "chromium"]

#: A text that would run, load or escape wherever it is not taken as text.
HOSTILE = (
    "</title></script><script>window.stolen=1</script><img src=//evil.example/x onerror=window.stolen=1>\"'{{7*7}}"
)
_WATCH = """
addEventListener("securitypolicyviolation", (event) => console.error("policy: " + event.violatedDirective));
"""


class Visit:
    """``page`` is Playwright's; ``faults`` has what must not happen."""

    def __init__(self, browser: Any, root: str, **options: Any) -> None:
        self.root = root
        self.faults: list[str] = []
        self.context = browser.new_context(base_url=root, accept_downloads=True, **options)
        self.context.add_init_script(_WATCH)
        self.context.on("request", self._requested)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda told: self._told(told.type, told.text))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", self._asked)

    def look(self, path: str, status: int = 200) -> None:
        answer = self.page.goto(path)
        assert answer is not None and answer.status == status, (path, answer and answer.status)

    def follow(self, link: Any) -> None:
        """A link, or a button that sends a form, to the page that it leads to."""
        with self.page.expect_navigation():
            link.click()

    def check(self) -> None:
        """Raises AssertionError for what happened and must not."""
        assert self.page.evaluate("window.stolen") is None, self.page.url
        assert self.faults == [], self.page.url

    def audit(self) -> None:
        """What axe-core finds of this page, in light and in dark, and whether it scrolls sideways on a phone."""
        from axe_playwright_python.sync_playwright import Axe

        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            found = Axe().run(self.page).response["violations"]
            told = [
                (each["id"], [(node["html"][:200], node["failureSummary"]) for node in each["nodes"][:3]])
                for each in found
            ]
            assert told == [], (self.page.url, scheme)
        self.page.emulate_media(color_scheme="light")
        wide = self.page.viewport_size
        self.page.set_viewport_size({"width": 360, "height": 800})
        # Curves are drawn anew for the new width.
        fits = "document.documentElement.scrollWidth <= 360"
        with contextlib.suppress(api().TimeoutError):
            self.page.wait_for_function(fits, timeout=5_000)
        assert self.page.evaluate(fits), self.page.url
        self.page.set_viewport_size(wide)

    def close(self) -> None:
        self.context.close()

    def _requested(self, request: Any) -> None:
        if not request.url.startswith((self.root, "data:", "blob:")):
            self.faults.append(f"asked for {request.url}")

    def _told(self, kind: str, text: str) -> None:
        # What a server refuses is told as an error, too.
        if kind == "error" and "the server responded with a status of 4" not in text:
            self.faults.append(text)

    def _asked(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()
