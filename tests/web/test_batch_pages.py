"""The pages of batches on a real server: what they say, what can be done from them, and that no text becomes markup."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator

import httpx
import msgspec
import openai
import pytest

from gristmill.wire.batch import Batch
from server_process import ServerProcess

HOSTILE = "<script>alert(1)</script>\r\n\r\ndata: x\x1b[2J\u202e'\"><b>"
#: A name as RFC 7578 lets one come, quoted.
FILE_NAME = "candidates of march.jsonl"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("-O", "latency=0.05", "-O", "slots=4", "-O", "fail_on=Candidate 7", "-O", "failure_kind=invalid_request")
    with ServerProcess(tmp_path_factory.mktemp("data"), *options) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with server.client() as found:
        yield found


@pytest.fixture(scope="module")
def site(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60) as found:
        yield found


def submit(client: openai.OpenAI, rows: int, name: str = "row", metadata: dict[str, str] | None = None) -> str:
    rubric = "Score each candidate for the mill. " * 60
    lines = []
    for number in range(rows):
        kind = "Be strict. " * 60 if number % 3 else "Be kind. " * 60
        messages = [{"role": "system", "content": rubric + kind}, {"role": "user", "content": f"Candidate {number}"}]
        body = {"model": "simulated", "messages": messages, "max_tokens": 4}
        row = {"custom_id": f"{name}-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(row).encode())
    file = client.files.create(file=(FILE_NAME, b"\n".join(lines)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata=metadata
    ).id


def follow(site: httpx.Client, path: str, until: Callable[[str], bool]) -> str:
    """The state of a page in which ``until`` holds, from its event stream."""
    with site.stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines: list[str] = []
        for line in answer.iter_lines():
            if line.startswith("data: "):
                lines.append(line.removeprefix("data: "))
            elif not line and lines:
                text, lines = "\n".join(lines), []
                if until(text):
                    return text
    raise AssertionError("the stream ended")


@pytest.fixture(scope="module")
def ended(client: openai.OpenAI, site: httpx.Client) -> str:
    """A batch that has ended, with rows that failed."""
    batch_id = submit(client, 60)
    # Why rows failed is counted beside the page.
    follow(site, f"/batches/{batch_id}/events", lambda text: ">completed</span>" in text and "A simulated fail" in text)
    return batch_id


def test_a_batch_is_followed_to_its_end_by_one_stream(client: openai.OpenAI, site: httpx.Client):
    batch_id = submit(client, 120)
    seen: list[str] = []

    def done(text: str) -> bool:
        seen.append(text)
        return ">completed</span>" in text

    last = follow(site, f"/batches/{batch_id}/events", done)
    told = [found[1] for text in seen if (found := re.search(r'<p role="status" class="told">(.*?)</p>', text))]
    assert "120 of 120 rows" in last and "100 %" in last
    assert told[0] == "" and told[-1] == f"{FILE_NAME}: completed."
    # Milestones, and not a word for each update.
    assert len(set(told)) <= 7


def test_the_page_of_a_batch_has_its_tree_its_failures_and_its_files(site: httpx.Client, ended: str):
    text = site.get(f"/batches/{ended}").text
    assert FILE_NAME in text
    assert "all 60 rows" in text and re.search(r"60 rows share [0-9]+ tokens", text)
    assert "A simulated failure" in text and "row-7" in text
    assert f'action="/batches/{ended}/retry"' in text
    for address in re.findall(r'href="(/v1/files/[^"]+)"', text):
        assert site.get(address).status_code == 200
    assert len(re.findall(r"/v1/files/", text)) == 3


def test_the_overview_names_batches_and_why_rows_failed(site: httpx.Client, ended: str):
    text = site.get("/").text
    assert f'href="/batches/{ended}"' in text and FILE_NAME in text
    assert "Why rows failed" in text and "A simulated failure" in text
    assert "simulated" in text and "free on its disk" in text


def test_a_copy_needs_nothing_else(site: httpx.Client, ended: str):
    answer = site.get(f"/batches/{ended}/copy")
    assert answer.headers["content-disposition"] == f'attachment; filename="{ended}.html"'
    assert "sandbox" in answer.headers["content-security-policy"]
    links = re.findall(r'(?:src|href|action)="([^"]*)"', answer.text)
    assert links == ["data:,"]
    assert "<script" not in answer.text and not re.search(r"url\(|@import|https?:", answer.text)
    assert "all 60 rows" in answer.text and "A simulated failure" in answer.text


def status(client: openai.OpenAI, batch_id: str) -> Batch:
    raw = client.batches.with_raw_response.retrieve(batch_id).content
    return msgspec.json.decode(raw, type=Batch)


def test_forms_work_without_scripts(client: openai.OpenAI, site: httpx.Client):
    batch_id = submit(client, 2_000)
    page = f"/batches/{batch_id}"
    follow(site, f"{page}/events", lambda text: "running" in text)

    def post(action: str) -> httpx.Response:
        text = site.get(page).text
        assert f'action="{page}/{action}"' in text
        for address in re.findall(r'href="(/v1/batches/[^"]+/results[^"]*)"', text):
            assert site.get(html.unescape(address)).text.startswith('{"id"')
        return site.post(f"{page}/{action}", headers={"origin": str(site.base_url).rstrip("/")})

    for action, paused in (("pause", True), ("resume", False), ("pause", True)):
        answer = post(action)
        assert (answer.status_code, answer.headers["location"]) == (303, page)
        progress = status(client, batch_id).gristmill
        assert progress is not None and (progress.paused_at is not None) == paused
    assert post("cancel").status_code == 303
    follow(site, f"{page}/events", lambda text: ">cancelled</span>" in text)
    again = post("retry")
    assert again.status_code == 303 and again.headers["location"] not in ("", page)
    site.post(again.headers["location"] + "/cancel")
    refused = site.post(f"{page}/pause", headers={"accept": "text/html"})
    assert refused.status_code == 409 and "<h1>" in refused.text


def test_forms_of_other_pages_are_refused(site: httpx.Client, ended: str):
    answer = site.post(f"/batches/{ended}/retry", headers={"origin": "https://elsewhere.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize("part", ["", "/events", "/throughput", "/copy"])
def test_a_batch_that_is_not_there_is_nowhere(site: httpx.Client, part: str):
    assert site.get(f"/batches/batch_unknown{part}").status_code == 404
    for action in ("cancel", "pause", "resume", "retry"):
        assert site.post(f"/batches/batch_unknown/{action}").status_code == 404


def test_no_name_becomes_markup_or_ends_an_event(client: openai.OpenAI, site: httpx.Client):
    batch_id = submit(client, 12, name=HOSTILE, metadata={"name": HOSTILE, HOSTILE[:30]: HOSTILE})
    state = follow(site, f"/batches/{batch_id}/events", lambda text: ">completed</span>" in text)
    pages = [state, *(site.get(path).text for path in ("/", f"/batches/{batch_id}", f"/batches/{batch_id}/copy"))]
    pages.append(follow(site, "/events", lambda text: batch_id in text))
    for text in pages:
        assert "&lt;script&gt;alert(1)" in text
        assert "<script>alert" not in text and "<b>\r" not in text
        assert "x\x1b" not in text or "<" not in text.split("x\x1b")[1][:4]


def test_figures_for_the_curves_have_one_length(site: httpx.Client, ended: str):
    for path in ("/throughput", f"/batches/{ended}/throughput"):
        times, rows, tokens = site.get(path).json()
        assert len(times) == len(rows) == len(tokens)


def test_streams_end_with_the_server(tmp_path_factory: pytest.TempPathFactory):
    with ServerProcess(tmp_path_factory.mktemp("data")) as running:
        base_url = running.base_url.removesuffix("/v1")
        with httpx.Client(base_url=base_url, timeout=60) as found, found.stream("GET", "/events") as answer:
            pieces = answer.iter_raw()
            assert next(pieces).startswith(b"data: ")
            assert running.stop() == 0
            # To its end: a stream that is cut off raises.
            assert all(piece for piece in pieces)
        assert not any("error" in line.lower() for line in running.log)
