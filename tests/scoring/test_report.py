"""The report page, also in a real browser where there is one."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gristmill.scoring.job import Scores
from gristmill.scoring.outcome import Outcome, of_probabilities
from gristmill.scoring.report import Prices, page, score_reports
from gristmill.scoring.scale import parse_scale
from gristmill.wire.batch import Batch, BatchUsage, InputTokensDetails, OutputTokensDetails, RequestCounts

pytest.importorskip("scipy", reason="the extra 'score' is not installed")
TEN = parse_scale("0..10")
NASTY = "<script>alert(1)</script>\"'&"


def example() -> str:
    outcomes = []
    for row in range(200):
        shares = [0.0] * 11
        shares[row % 11], shares[(row + 1) % 11] = 0.7, 0.25
        outcomes.append([of_probabilities(shares, TEN)])
    outcomes.append([Outcome("generate", 10.0, "10", reason=f"a reason {NASTY}")])
    outcomes.append([Outcome("labels", error=f"an error {NASTY}")])
    ids = [*(f"candidate {row}" for row in range(200)), NASTY, "the last one"]
    usage = BatchUsage(1_000_000, InputTokensDetails(900_000), 5_000, OutputTokensDetails(), 1_005_000)
    batch = Batch(
        "b", "/v1/score", "f", "24h", "completed", 0,
        completed_at=3600, usage=usage, request_counts=RequestCounts(202, 201, 1),
    )  # fmt: skip
    truths = [float(row % 11) for row in range(202)]
    reports = score_reports(ids, Scores(outcomes, [batch]), ["score"], TEN, truths)
    return page(f"table {NASTY}", "a model", reports, [batch], Prices(0.15, 0.6))


@pytest.mark.parametrize("labels", ["no=0,unknown=0,yes=1", "no=-1e9,yes=1e9", "low=0,high=1e-300"])
def test_whatever_scale_is_taken_can_be_drawn(labels: str):
    scale = parse_scale(labels)
    outcomes = [[Outcome("generate", value, label)] for label, value in zip(*scale, strict=True)]
    reports = score_reports(
        range(len(outcomes)), Scores(outcomes, []), ["score"], scale, [0.0, 1.0, 1.0][: len(outcomes)]
    )
    assert "Histogram" in page("t", "m", reports, [], Prices(0, 0))


def test_the_median_of_two_scores_is_between_them():
    outcomes = [[Outcome("generate", value, f"{value:.0f}")] for value in (0.0, 10.0)]
    (report,) = score_reports("ab", Scores(outcomes, []), ["score"], TEN, None)
    assert "median<b>5</b>" in page("t", "m", [report], [], Prices(0, 0))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def test_it_says_what_came_out_and_what_it_took():
    text = example()
    for expected in ("202", "1.0 hour", "1,000,000", "900,000", "0.15", "Spearman", "candidate 10", "a reason"):
        assert expected in text, expected


def test_nothing_in_a_table_becomes_markup_and_nothing_comes_from_elsewhere():
    text = example()
    tags = Tags()
    tags.feed(text)
    assert "script" not in {tag for tag, _ in tags.found}
    links = [value for _, attributes in tags.found for name, value in attributes.items() if name in ("src", "href")]
    assert links == ["data:,"]
    assert "url(" not in text and "@import" not in text


@pytest.mark.parametrize("width", [375, 1200])
def test_a_browser_draws_it_without_errors_or_requests(tmp_path: Path, width: int):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium here")
    # The page itself, and after it what it looks like to a script: wider than the window?
    source = tmp_path / "report.html"
    source.write_text(example())
    probe = "<script>document.title = document.documentElement.scrollWidth + ' ' + innerWidth</script></body>"
    (tmp_path / "probe.html").write_text(example().replace("</body>", probe))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},2000"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    shot = [*options, f"--screenshot={tmp_path / 'shot.png'}", source.as_uri()]
    drawn = subprocess.run([browser, *shot], capture_output=True, text=True, timeout=120)
    assert drawn.returncode == 0, drawn.stderr
    assert ":CONSOLE" not in drawn.stderr, drawn.stderr
    assert (tmp_path / "shot.png").stat().st_size > 10_000
    seen = subprocess.run(
        [browser, *options, "--dump-dom", (tmp_path / "probe.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    wide, window = map(int, seen.stdout.partition("<title>")[2].partition("</title>")[0].split())
    assert wide <= window
