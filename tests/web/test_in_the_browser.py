"""The dashboard in Chromium, as people use it: upload, watch, look for errors, download, score a table."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch
from visit import HOSTILE, Visit, chromium

from requests_jsonl import chat_line, jsonl
from server_process import ServerProcess


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def busy(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose rows fail where they ask for the impossible. After the browser: without one, nothing starts."""
    # Four hundred tokens a second: a row is as slow as it is long.
    options = ("-O", "decode_speed=400", "-O", "fail_on=impossible", "-O", "failure_kind=invalid_request")
    with ServerProcess(tmp_path_factory.mktemp("data"), *options) as running:
        yield running


@pytest.fixture
def visit(browser: Any, busy: ServerProcess) -> Iterator[Visit]:
    visiting = Visit(browser, busy.base_url.removesuffix("/v1"))
    yield visiting
    try:
        visiting.check()
    finally:
        visiting.close()


@pytest.fixture(scope="module")
def client(busy: ServerProcess) -> openai.OpenAI:
    return busy.client()


@pytest.fixture(scope="module")
def hostile(client: openai.OpenAI) -> str:
    """The id of a batch with hostile texts wherever its owner may put one, once it has ended."""
    lines = [chat_line(f"row-{n}{HOSTILE if n % 7 == 0 else ''}", f"Candidate {n} {HOSTILE}") for n in range(60)]
    lines += [chat_line(f"bad-{n}", f"impossible {HOSTILE}") for n in range(3)]
    # An answer that is hostile, and an error.
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [HOSTILE]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    lines.append(chat_line("answer", response_format=form, max_tokens=200))
    lines.append(chat_line("error", **{HOSTILE: 1}))
    return ended(client, jsonl(lines), "/v1/chat/completions")


@pytest.fixture(scope="module")
def scored(client: openai.OpenAI) -> str:
    body = {"model": "simulated", "labels": ["no", "maybe", HOSTILE], "items": ["x"]}
    ask = {"method": "POST", "url": "/v1/score"}
    lines = [ask | {"custom_id": f"s{n}", "body": body | {"query": f"q {n}"}} for n in range(30)]
    return ended(client, jsonl(lines), "/v1/score")


def ended(client: openai.OpenAI, data: bytes, endpoint: Any) -> str:
    file = client.files.create(file=(f"{HOSTILE[:200]}.jsonl", data), purpose="batch")
    metadata = {"name": HOSTILE, HOSTILE[:60]: HOSTILE}
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata=metadata)
    completed(client, batch.id)
    return batch.id


def completed(client: openai.OpenAI, batch_id: str) -> Batch:
    while (batch := client.batches.retrieve(batch_id)).status != "completed":
        assert batch.status in ("validating", "in_progress", "finalizing"), batch
        time.sleep(0.1)
    return batch


def test_a_file_is_dropped_its_batch_watched_and_its_results_downloaded(visit: Visit, client: openai.OpenAI):
    page = visit.page
    visit.look("/")
    page.get_by_role("link", name="New batch").click()
    data = jsonl([chat_line(f"c{n}", "impossible" if n % 10 == 0 else f"Candidate {n}") for n in range(200)])
    dropping = """(zone, text) => {
        const carried = new DataTransfer();
        carried.items.add(new File([text], "dropped.jsonl"));
        zone.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
    }"""
    page.locator(".drop").evaluate(dropping, data.decode())
    page.get_by_role("button", name="Start the batch").click()
    page.wait_for_url("**/batches/batch_*")
    batch_id = page.url.rsplit("/", 1)[1]
    # The page tells of the end by itself.
    page.get_by_text("200 of 200 rows").wait_for()
    page.locator("#live .state.completed").wait_for()
    created = client.batches.retrieve(batch_id)
    assert (created.endpoint, created.metadata, created.request_counts.failed) == (
        "/v1/chat/completions", {"name": "dropped.jsonl"}, 20,
    )  # fmt: skip
    with page.expect_download() as download:
        page.get_by_role("link", name="Download ").first.click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 180
    visit.follow(page.get_by_role("link", name="Rows and results"))
    # By what went wrong.
    visit.follow(page.get_by_role("link", name="20 rows that failed because"))
    assert page.locator("tbody tr td.outcome").all_inner_texts() == ["failed"] * 20
    # By name.
    page.goto(f"/batches/{batch_id}/results")
    page.get_by_label("custom_id").fill("c19")
    page.get_by_label("match").select_option("prefix")
    visit.follow(page.get_by_role("button", name="Show"))
    assert page.locator("#rows tbody th a").all_inner_texts() == ["c19", *(f"c{n}" for n in range(191, 200)), "c190"]
    visit.follow(page.get_by_role("link", name="c199"))
    assert "Candidate 199" in page.locator("pre").last.inner_text()


def test_a_batch_is_paused_resumed_and_cancelled_on_its_page(visit: Visit, client: openai.OpenAI):
    page = visit.page
    lines = [chat_line(f"slow-{n}", f"Candidate {n}", max_tokens=400) for n in range(2_000)]
    file = client.files.create(file=("slow.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"name": "slow"}
    )
    visit.look(f"/batches/{batch.id}")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    assert client.batches.retrieve(batch.id).to_dict()["gristmill"]["paused_at"] is not None
    visit.audit()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_text("Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel the batch").click()
    page.locator("#live .state.cancelled").wait_for()
    # What never ran is with the failures, and can be asked again.
    visit.follow(page.get_by_role("link", name="Rows and results"))
    page.get_by_label("outcome").select_option("failed")
    visit.follow(page.get_by_role("button", name="Show"))
    assert set(page.locator("#rows td.outcome").all_inner_texts()) == {"never ran"}


def test_failed_rows_are_retried_on_the_page_of_their_batch(visit: Visit, client: openai.OpenAI, hostile: str):
    page = visit.page
    visit.look(f"/batches/{hostile}")
    page.get_by_role("button", name="Retry the rows without an answer").click()
    page.wait_for_url(lambda url: hostile not in url)
    page.get_by_text("4 of 4 rows").wait_for()
    retried = client.batches.retrieve(page.url.rsplit("/", 1)[1])
    assert retried.request_counts.total == 4


def test_a_key_logs_in_and_nothing_is_shown_without(browser: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with ServerProcess(tmp_path / "data", "--keys") as server:
        key = next(word for word in capfd.readouterr().out.split() if word.startswith("sk-gristmill-"))
        visit = Visit(browser, server.base_url.removesuffix("/v1"))
        page = visit.page
        for path in ("/", "/new", "/scoring", "/scoring/new", "/batches/batch_x/results"):
            page.goto(path)
            assert page.get_by_role("button", name="Log in").count() == 1, path
        page.goto("/new")
        visit.audit()
        page.get_by_label("Key").fill(HOSTILE)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("alert").get_by_text("not a key").wait_for()
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Start the batch").wait_for()
        assert page.url.endswith("/new")
        page.get_by_role("link", name="Access").click()
        visit.audit()
        page.get_by_role("button", name="Log out").click()
        page.goto("/")
        assert page.get_by_role("button", name="Log in").count() == 1
        visit.check()
        visit.close()


def test_pages_of_results_follow_one_another(visit: Visit, hostile: str):
    visit.look(f"/batches/{hostile}/results")
    seen = visit.page.locator("#rows tbody th a").all_inner_texts()
    while visit.page.get_by_role("link", name="Next page").count():
        visit.follow(visit.page.get_by_role("link", name="Next page"))
        seen += visit.page.locator("#rows tbody th a").all_inner_texts()
    assert len(seen) == len(set(seen)) == 65


def test_what_is_no_batch_input_is_refused_in_a_sentence_and_nothing_is_kept(
    visit: Visit, client: openai.OpenAI, tmp_path: Path
):
    before = len(client.files.list().data), len(client.batches.list().data)
    visit.look("/new")
    for name, data, said in (
        ("table.csv", b"a,b\n1,2\n", "Must be .jsonl"),
        ("empty.jsonl", b"", "Must be .jsonl"),
        ("no-url.jsonl", b'{"custom_id": "a", "body": {}}\n', "does not say which endpoint"),
        ("other.jsonl", b'\n\n{"custom_id": "a", "url": "/v1/images/edits"}\n', "Supported values are: '/v1/chat"),
        (f"{HOSTILE.replace('/', '')}.jsonl", b'{"url": "<img src=x onerror=alert(1)>"}\n', "Invalid value: '<img"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        visit.page.get_by_label("JSONL file").set_input_files(path)
        visit.page.get_by_role("button", name="Start the batch").click()
        problem = visit.page.get_by_role("alert")
        problem.get_by_text(said).wait_for()
        assert visit.page.url.endswith("/new")
    assert (len(client.files.list().data), len(client.batches.list().data)) == before


def test_a_batch_is_started_with_the_keyboard_alone(visit: Visit, tmp_path: Path):
    path = tmp_path / "keys.jsonl"
    path.write_bytes(jsonl([chat_line("a")]))
    visit.look("/new")
    # What a file dialog does, which is the system's.
    visit.page.get_by_label("JSONL file").set_input_files(path)
    reached = []
    focused = "document.activeElement.name || document.activeElement.textContent.trim()"
    while "Start the batch" not in reached:
        visit.page.keyboard.press("Tab")
        reached.append(visit.page.evaluate(focused))
        assert len(reached) < 20, reached
    assert reached[0] == "Skip to the content"
    assert reached[-6:] == ["file", "name", "window", "priority", "model", "Start the batch"]
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url("**/batches/batch_*")


def test_without_scripts_a_file_is_uploaded_as_well(browser: Any, busy: ServerProcess, tmp_path: Path):
    visit = Visit(browser, busy.base_url.removesuffix("/v1"), java_script_enabled=False)
    path = tmp_path / "plain.jsonl"
    path.write_bytes(jsonl([chat_line("a")]))
    visit.look("/new")
    visit.page.get_by_label("JSONL file").set_input_files(path)
    visit.page.get_by_label("Priority").select_option("higher")
    visit.page.get_by_role("button", name="Start the batch").click()
    assert "/batches/batch_" in visit.page.url
    assert visit.faults == []
    visit.close()


def test_a_table_and_a_rubric_become_scores(visit: Visit, tmp_path: Path):
    page = visit.page
    table = tmp_path / "candidates <b>.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", HOSTILE])
        writer.writerows([f"=row{n}", f"Candidate {n}", HOSTILE] for n in range(40))
    visit.look("/scoring/new")
    page.get_by_label("Table (CSV").set_input_files(table)
    page.get_by_role("button", name="Look at the table").click()
    page.wait_for_url("**/scoring/scoring_*")
    assert "40 rows, 3 columns." in page.locator("main").inner_text()
    visit.audit()
    page.get_by_label("Rubric").fill("How well would they work in a mill?")
    page.get_by_label("Scale").fill("5..1")
    page.get_by_label("Column that names").select_option("id")
    page.get_by_role("button", name="Score 40 rows").click()
    page.get_by_role("alert").get_by_text("scale").wait_for()
    # What was written is still there.
    assert page.get_by_label("Rubric").input_value() == "How well would they work in a mill?"
    page.get_by_label("Scale").fill("0..3")
    page.get_by_role("button", name="Score 40 rows").click()
    page.get_by_text("Download the scores").wait_for(timeout=60_000)
    # The page has followed it.
    assert page.get_by_role("button", name="Cancel").count() == 0
    visit.audit()
    with page.expect_download() as download:
        page.get_by_text("Download the scores").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert len(rows) == 40
    assert all(0 <= float(row["score"]) <= 3 for row in rows)
    # A spreadsheet would compute a cell that begins so.
    assert {row["id"][:2] for row in rows} == {"'="}
    visit.follow(page.get_by_role("link", name="The report"))
    assert (
        "How well would they work in a mill?" in page.locator("main, body").first.inner_text()
        or page.locator("pre").count()
    )
    visit.check()
    visit.look("/scoring")
    assert page.get_by_role("link", name="candidates <b>.csv").count() == 1
    visit.follow(page.get_by_role("link", name="candidates <b>.csv"))
    visit.follow(page.get_by_role("button", name="Delete the table"))
    assert page.get_by_role("link", name="candidates <b>.csv").count() == 0


def test_the_best_rows_of_a_table_are_found_after_a_look_at_the_cost(visit: Visit, tmp_path: Path):
    pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' to run this")
    page = visit.page
    table = tmp_path / "many <b>.csv"
    rows = [f"r{n},Candidate {n},{n % 17}" for n in range(400)]
    table.write_text("\n".join(["id,text,points", *rows]) + "\n")
    visit.look("/scoring/new")
    page.get_by_label("Table (CSV").set_input_files(table)
    page.get_by_role("button", name="Look at the table").click()
    page.wait_for_url("**/scoring/scoring_*")
    visit.follow(page.get_by_role("link", name="Find the best rows"))
    visit.audit()
    page.get_by_label("Rubric").fill("How well would they work in a mill?")
    page.get_by_label("The best, so many").fill("40")
    page.get_by_label("Recall").fill("2")
    page.get_by_label("What guesses").select_option("column:points")
    page.get_by_role("button", name="Find the best of 400 rows").click()
    page.get_by_role("alert").get_by_text("A recall of 2 cannot be promised").wait_for()
    assert page.get_by_label("What guesses").input_value() == "column:points"
    page.get_by_label("Recall").fill("0.5")
    page.get_by_role("button", name="Find the best of 400 rows").click()
    # The page tells by itself that somebody is waited for, and lets one go on.
    page.get_by_role("button", name="Judge the rest").wait_for(timeout=120_000)
    assert "of 400 rows would be judged" in page.locator(".sentences").inner_text()
    visit.audit()
    page.get_by_role("button", name="Judge the rest").click()
    page.get_by_role("link", name="Download the list").wait_for(timeout=120_000)
    assert "Whether the judge is right is another question" in page.locator("main").inner_text()
    assert page.get_by_text("Whether the judge is right").bounding_box()["x"] >= 0
    visit.audit()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the list").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 41


def test_what_is_no_table_is_refused_in_a_sentence(visit: Visit, tmp_path: Path):
    (tmp_path / "latin.csv").write_bytes("a,b\ncafé,1\n".encode("latin-1"))
    visit.look("/scoring/new")
    visit.page.get_by_label("Table (CSV").set_input_files(tmp_path / "latin.csv")
    visit.page.get_by_role("button", name="Look at the table").click()
    visit.page.get_by_role("alert").get_by_text("not UTF-8: its line 2").wait_for()


def test_axe_finds_nothing_and_no_hostile_text_does_anything(visit: Visit, hostile: str, scored: str):
    rows = f"/batches/{hostile}/rows"
    pages = [
        "/", f"/batches/{hostile}", f"/batches/{hostile}/results", f"/batches/{hostile}/results?outcome=failed",
        f"/batches/{hostile}/results?name=nobody", f"{rows}/l1", f"{rows}/l61", f"{rows}/l64", f"{rows}/l65",
        f"/batches/{scored}/results",
        f"/batches/{scored}/scores", f"/batches/{scored}/rows/l3", "/new", "/scoring", "/scoring/new", "/login",
    ]  # fmt: skip
    for path in pages:
        visit.look(path)
        visit.audit()
        visit.check()
    visit.look(f"{rows}/l1")
    assert HOSTILE in visit.page.locator("h1").inner_text()
    assert HOSTILE[:50] in visit.page.title()
    visit.look(f"/batches/{scored}/results")
    assert "%, maybe " in visit.page.locator("#rows").inner_text()
    visit.look(f"{rows}/l64")
    assert "evil.example" in visit.page.locator("pre").first.inner_text()
    visit.look(f"{rows}/l65")
    assert "evil.example" in visit.page.locator("pre").first.inner_text()
    visit.look(f"/batches/{hostile}/rows/l999", 404)
    visit.look(f"/batches/{hostile}/rows/{'<b>'}", 404)
    visit.look(f"/batches/{hostile}/results?from=x", 400)
