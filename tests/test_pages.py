"""The pages that people look at: on a phone and on a screen, without anything from elsewhere, and true."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from browser import chromium, sideways
from gristmill.cli.main import app

#: A word without a place to break it, and markup, wherever a user's text may come.
HOSTILE = "<script>alert(1)</script>" + "x" * 300
PROMPT = "Score each candidate for the mill. " * 40


@pytest.fixture(autouse=True)
def log_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in this process, and must not configure the log for all tests that follow."""
    monkeypatch.setattr("gristmill.telemetry.log.configure", lambda level: None)


def gristmill(*arguments: str | Path) -> None:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output


def rows_file(folder: Path, model: str = "simulated") -> Path:
    lines = []
    for i in range(120):
        system = PROMPT + ("Be strict. " * 30 if i % 3 else HOSTILE * 3)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": f"Candidate {i}"}]
        body = {"model": model, "messages": messages, "max_tokens": 8}
        lines.append({"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body})
    path = folder / f"rows {'y' * 100}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def plan_page(folder: Path) -> str:
    page = folder / "plan.html"
    pilot = ("--pilot", "10", "--engine", "simulated", "-O", "latency=0.01")
    prices = ("--prompt-price", "15", "--output-price", "60", "--currency", "EUR")
    gristmill("plan", rows_file(folder), "--html", page, *pilot, *prices)
    return page.read_text()


def bench_page(folder: Path) -> str:
    options = ("--engine", "simulated", "-O", "fail_on=Candidate 3", "-O", "failure_kind=invalid_request")
    gristmill("bench", rows_file(folder), "-o", folder / "out", "--labels", "0..10", "--rounds", "1", *options)
    return (folder / "out" / "bench.html").read_text()


def report_page(folder: Path) -> str:
    pytest.importorskip("scipy", reason="pip install 'gristmill[score]' runs this")
    ids = [HOSTILE, *(f"candidate-{i:03}" for i in range(99))]
    texts = [f"Candidate {i}: {'a mill ' * (i % 9)}{HOSTILE if i % 7 == 0 else ''}" for i in range(100)]
    pl.DataFrame({"id": ids, "text": texts, "right": [i % 11 for i in range(100)]}).write_csv(folder / "table.csv")
    (folder / "rubric.txt").write_text("Score the miller. " + HOSTILE)
    gristmill(
        "score", folder / "table.csv", "--rubric", folder / "rubric.txt", "--id", "id", "--scale", "0..10", "--reason",
        "--truth", "right", "-o", folder / "out.csv", "--report", folder / "report.html", "--engine", "simulated",
        "--prompt-price", "15", "--output-price", "60",
    )  # fmt: skip
    return (folder / "report.html").read_text()


def rank_page(folder: Path) -> str:
    pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' runs this")
    ids = [HOSTILE, *(f"candidate-{i:03}" for i in range(399))]
    worth = [i / 400 for i in range(400)]
    texts = [f"Candidate {i}: {HOSTILE}" for i in range(400)]
    pl.DataFrame({"id": ids, "text": texts, "worth": worth, "right": worth}).write_csv(folder / "table.csv")
    (folder / "rubric.txt").write_text("Score the miller. " + HOSTILE)
    gristmill(
        "rank", folder / "table.csv", "--rubric", folder / "rubric.txt", "--id", "id", "--scale", "0..10",
        "--top", "20", "--recall", "0.6", "--assume", "thinning", "--proxy", "worth", "--truth", "right",
        "-o", folder / "out.csv", "--report", folder / "rank.html", "--engine", "simulated",
        "-O", "scored_by=worth:", "--prompt-price", "15",
    )  # fmt: skip
    return (folder / "rank.html").read_text()


def comparison_page(folder: Path) -> str:
    pytest.importorskip("scipy", reason="pip install 'gristmill[score]' runs this")
    ids = [HOSTILE, *(f"candidate-{i:03}" for i in range(39))]
    worth = [i / 40 for i in range(40)]
    pl.DataFrame({"id": ids, "first": worth, "second": worth[::-1]}).write_csv(folder / "table.csv")
    (folder / "rubric.txt").write_text("Score the miller. " + HOSTILE)
    gristmill(
        "score", folder / "table.csv", "--rubric", folder / "rubric.txt", "--id", "id", "--scale", "0..10",
        "--compare", f"{HOSTILE},scored_by=first:", "small,scored_by=second:", "--cut", "5",
        "--report", folder / "compared.html", "--engine", "simulated",
    )  # fmt: skip
    return (folder / "compared.html").read_text()


PAGES = {
    "plan": plan_page, "bench": bench_page, "report": report_page, "rank": rank_page, "comparison": comparison_page
}  # fmt: skip


_made: dict[str, str] = {}


def page_of(name: str, folder: Path) -> str:
    """Made once for all tests."""
    if name not in _made:
        _made[name] = PAGES[name](folder)
    return _made[name]


#: What a printed page lacks: texts that are folded, bars that are drawn as a background, what lies beyond the paper.
ON_PAPER = """() => {
  const told = [];
  for (const each of document.querySelectorAll("details > :not(summary)"))
    if (!each.checkVisibility({ contentVisibilityAuto: true }) || !each.getBoundingClientRect().height)
      told.push("folded");
  for (const each of document.querySelectorAll(".histogram span, .bar span"))
    if (getComputedStyle(each).printColorAdjust !== "exact") told.push("a bar that is not printed");
  for (const each of document.querySelectorAll("body *:not(details:not([open]) *)"))
    if (each.getBoundingClientRect().right > innerWidth + 1) told.push("cut off: " + each.outerHTML.slice(0, 100));
  for (const each of document.querySelectorAll("table:has(th:not([scope=row]))"))
    if (!each.tHead) told.push("titles of columns on the first page only");
  return told;
}"""


@pytest.mark.parametrize("name", ["report", "rank", "comparison"])
def test_on_paper_nothing_is_folded_left_out_or_cut_off(tmp_path: Path, name: str):
    (tmp_path / "page.html").write_text(page_of(name, tmp_path), encoding="utf-8")
    with chromium() as browser:
        # A4 with margins of 15 mm.
        page = browser.new_page(viewport={"width": 680, "height": 1000})
        page.goto((tmp_path / "page.html").as_uri())
        assert "folded" in page.evaluate(ON_PAPER)
        page.emulate_media(media="print")
        # What the screen hid stays hidden until the next picture is made.
        page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        assert page.evaluate(ON_PAPER) == []


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways_on_a_phone_or_a_screen(tmp_path: Path, name: str):
    found = sideways(page_of(name, tmp_path), [320, 390, 700, 1280], tmp_path)
    assert {width: wide for width, wide in found.items() if wide > width} == {}


@pytest.mark.parametrize("name", PAGES)
def test_nothing_becomes_markup_and_nothing_comes_from_elsewhere(tmp_path: Path, name: str):
    text = page_of(name, tmp_path)
    tags = _Tags()
    tags.feed(text)
    assert "script" not in {tag for tag, _ in tags.found}
    links = [value for _, attributes in tags.found for name, value in attributes.items() if name in ("src", "href")]
    assert links == ["data:,"]
    assert not re.search(r"url\(|@import|https?:", text)


SAYS = {
    "comparison": ["scored_by=second:", "rank correlation", "same side of 5", "Changed most", "What it took"],
    "plan": ["120 rows", "EUR 0.", "EUR 15 a million prompt tokens", "the simulated engine", "90 % interval"],
    "bench": ["simulated", "failed", "Not measured", "at least 256 rows", "cores"],
    "report": [
        "Score the miller.", "a whole number from 0 to 10", "simulated engine", "text: Candidate ", "Highest", "Lowest",
        "USD 0.", "rank correlation (Spearman)", "as the model wrote it",
    ],
    "rank": [
        "The best 20 of table.csv", "What is promised", "What it rests on", "What is not promised", "Against the truth",
        "the assumption that was chosen (thinning)", "at least 12 are in this list", "the column &#39;worth&#39;",
        "USD 0.",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_a_reader_needs(tmp_path: Path, name: str):
    text = page_of(name, tmp_path)
    for expected in (*SAYS[name], "Made by Gristmill 0.", " UTC"):
        assert expected in text, expected
    words = re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)
    for jargon in ("None", "undefined", "nan", "inf ", "prefix tree", "top_logprobs", "off_scale"):
        assert jargon not in words, jargon
