"""What all pages have: the headers that keep strangers' scripts out, assets that are what they say, errors as pages."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import gristmill
from server_process import ServerProcess

VENDOR = Path(gristmill.__file__).parent / "web" / "assets" / "vendor"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def site(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60) as client:
        yield client


def test_nothing_inline_or_from_elsewhere_is_allowed_or_there(site: httpx.Client):
    page = site.get("/")
    policy = dict(each.split(" ", 1) for each in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert {value for name, value in policy.items() if name.endswith("-src")} == {"'none'", "'self'"}
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "same-origin"
    assert not re.search(r"<style|style=|<script(?! src=)| on\w+=|https?:", page.text)


def test_assets_of_a_page_may_be_kept_for_ever_and_others_are_looked_at_again(site: httpx.Client):
    named = re.findall(r'(?:src|href)="(/assets/[^"]+)"', site.get("/").text)
    assert len(named) >= 7
    for address in named:
        assert "immutable" in site.get(address).headers["cache-control"], address
    changed = site.get(named[0].partition("?")[0], params={"v": "of-yesterday"})
    assert (changed.status_code, changed.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "path", ["nothing.js", "..%2fpage.py", "%2e%2e/page.py", "versions.json", "vendor/htmx.min.js"]
)
def test_only_assets_are_served(site: httpx.Client, path: str):
    assert site.get(f"/assets/{path}").status_code == 404


def test_scripts_of_others_are_the_recorded_ones():
    recorded = json.loads((VENDOR / "versions.json").read_text())
    assert {each["file"] for each in recorded} == {each.name for each in VENDOR.iterdir() if ".min." in each.name}
    for each in recorded:
        assert hashlib.sha256((VENDOR / each["file"]).read_bytes()).hexdigest() == each["sha256"], each["file"]
        assert each["licence"] and each["version"]


@pytest.mark.parametrize("path", ["/nothing", "/batches/batch_<b>unknown</b>"])
def test_what_is_not_there_is_a_page_for_browsers_and_json_for_programs(site: httpx.Client, path: str):
    page = site.get(path, headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "<b>" not in page.text and "content-security-policy" in page.headers
    assert site.get(path).json()["error"]["message"]
    assert site.get("/v1/batches/x", headers=BROWSER).json()["error"]["message"]
