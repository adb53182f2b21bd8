"""Rankings that a server runs: kills, stops and cancels at their steps, bad wishes, and the same end as elsewhere."""

from __future__ import annotations

import html
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import polars as pl
import pytest

import gristmill
from gristmill.scoring.jobs.job import JobStatus, RankForm, ScoreForm, ScoreJob
from gristmill.scoring.jobs.job_store import JobStore
from gristmill.scoring.jobs.rank_summary import RankSummary, Step
from gristmill.scoring.rank.wish import RankWish
from gristmill.storage.scope import EVERYTHING, Scope
from server_process import ServerProcess

pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' to run this")

ROWS = 600
FORM = {
    "want": "best", "rubric": "Score the miller.", "scale": "0..10", "id": "id", "columns": ["worth"],
    "model": "simulated", "method": "", "top": "60", "cut": "", "recall": "0.6", "confidence": "0.95",
    "precision": "", "assume": "", "proxy": "column:near", "truth": "", "budget": "", "seed": "3",
}  # fmt: skip
#: As fast as it can, and so slow that a step can be met.
FAST = ("-O", "scored_by=worth:")
SLOW, SLOWER = ((*FAST, "-O", f"latency={latency}", "-O", "slots=8") for latency in (0.05, 0.3))


def frame() -> pl.DataFrame:
    draw = random.Random(5)
    worth = [draw.random() for _ in range(ROWS)]
    near = [each + draw.gauss(0, 0.05) for each in worth]
    return pl.DataFrame({"id": [f"r{n}" for n in range(ROWS)], "worth": worth, "near": near}).cast(pl.String)


@pytest.fixture(scope="module")
def expected() -> gristmill.Best:
    """What comes of FORM where nobody disturbs it, from Python."""
    options = gristmill.ScoreOptions(id_column="id", columns=["worth"])
    here = gristmill.EngineSettings("simulated", options={"scored_by": "worth:"})
    wish = {"top": 60, "recall": 0.6, "proxy": "near", "seed": 3}
    return gristmill.rank(frame(), "Score the miller.", range(11), **wish, options=options, on=here)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with ServerProcess(tmp_path_factory.mktemp("data"), *FAST) as server, visiting(server) as site:
        yield site


@pytest.fixture(scope="module")
def draft(fast: httpx.Client) -> str:
    return uploaded(fast)


def visiting(server: ServerProcess) -> httpx.Client:
    return httpx.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60)


def uploaded(site: httpx.Client, data: bytes | None = None) -> str:
    data = frame().write_csv().encode() if data is None else data
    answer = site.post("/scoring/new", files={"table": ("t.csv", data)}, headers={"accept": "text/html"})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def begin(site: httpx.Client, address: str, **changes: str) -> None:
    answer = site.post(address, data=FORM | changes)
    assert answer.status_code == 303, said(answer.text)


def said(page: str) -> str:
    found = re.search('class="error">(.*?)</p>', page, re.DOTALL)
    return html.unescape(found[1]) if found else ""


def status(page: str) -> str:
    found = re.search('role="status">(.*?)</p>', page)
    return found[1] if found else ""


def until(site: httpx.Client, address: str, *words: str) -> str:
    while (now := status(page := site.get(address).text)) not in words:
        assert now == "Running.", (now, said(page))
        time.sleep(0.1)
    return page


def batches_of(server: ServerProcess) -> list:
    return server.client().batches.list(limit=100).data


def until_asked(server: ServerProcess, site: httpx.Client, address: str, rows: int, batch: int) -> None:
    """That many rows of the job's batch with that number have been answered."""
    while True:
        found = sorted(batches_of(server), key=lambda each: each.created_at)
        if len(found) > batch or (len(found) == batch and found[-1].request_counts.completed >= rows):
            return
        assert status(page := site.get(address).text) == "Running.", said(page)
        time.sleep(0.02)


def check_same(site: httpx.Client, address: str, expected: gristmill.Best) -> dict:
    """The list and the certificate are those of a ranking that nobody disturbed; the certificate."""
    found = pl.read_csv(site.get(f"{address}/best.csv").content, infer_schema=False)
    known = pl.read_csv(expected.frame.write_csv().encode(), infer_schema=False)
    assert found.equals(known)
    told = site.get(f"{address}/certificate.json").json()
    for name in set(expected.certificate) - {"cost", "asked", "judge", "not_promised"}:
        assert told[name] == expected.certificate[name], name
    return told


def test_the_best_rows_are_those_of_the_command_and_a_look_at_the_cost_comes_first(
    fast: httpx.Client, expected: gristmill.Best
):
    address = uploaded(fast)
    begin(fast, address, look="1")
    planned = until(fast, address, "Waiting for you.")
    assert "judge what the proxy puts first" in planned and "every row instead" in planned
    assert "About " in planned and "of 600 rows would be judged" in planned
    assert fast.get(f"{address}/best.csv").status_code == 404
    assert fast.post(f"{address}/go-on", data={"budget": ""}).status_code == 303
    page = html.unescape(until(fast, address, "Done."))
    told = check_same(fast, address, expected)
    assert told["certified"] and all(each in page for each in (*told["promised"], *told["assumed"]))
    assert told["receipt"]["table"]["file"] == "t.csv" and told["receipt"]["judge"][0]["engine"] == "simulated"
    assert told["headline"] in html.unescape(fast.get(f"{address}/report.html").text)
    # The first of the list, by its own name.
    assert f">{expected.frame['id'][0]}<" in page


def workers(server: ServerProcess) -> list[int]:
    """Processes of the server that work on a table."""
    found = []
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and b"gristmill.scoring.jobs.worker" in (each / "cmdline").read_bytes():
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
                found += [int(each.name)] * (parent == server.pid)
        except OSError:
            continue
    return found


def test_whatever_ends_at_any_step_a_ranking_goes_on_to_the_same_certificate(tmp_path: Path, expected: gristmill.Best):
    with ServerProcess(tmp_path / "data", *SLOW) as server:
        with visiting(server) as site:
            address = uploaded(site)
            begin(site, address, look="1")
            until_asked(server, site, address, 20, 1)
        server.kill()
        server.start()
        with visiting(server) as site:
            until(site, address, "Waiting for you.")
        server.kill()
        # So slow that what is met is still there to be ended.
        server._options = SLOWER
        server.start()
        with visiting(server) as site:
            assert status(site.get(address).text) == "Waiting for you."
            assert site.post(f"{address}/go-on", data={"budget": ""}).status_code == 303
            pilot = len(batches_of(server))
            until_asked(server, site, address, 5, pilot + 1)
            # What works on the table is started again, as it got further.
            (worker,) = workers(server)
            os.kill(worker, signal.SIGKILL)
            # A batch that ends as it should not is told, and asked for again.
            until_asked(server, site, address, 5, pilot + 2)
            (running,) = [each for each in batches_of(server) if each.status == "in_progress"]
            server.client().batches.cancel(running.id)
            while "is cancelled" not in (page := site.get(address).text):
                assert status(page) == "Running.", page
                time.sleep(0.1)
            # In the place of what the page of the running one follows.
            (state,) = re.findall('<section id="state">(.*?)</section>', page, re.DOTALL)
            assert f"{address}/go-on" in state and "Go on from there" in state and running.id in said(state)
            assert f'href="{address}?want=best#anew"' in state
            assert site.post(f"{address}/go-on", data={"budget": ""}).status_code == 303
            until_asked(server, site, address, 5, pilot + 3)
        server.stop()
        server.start()
        with visiting(server) as site:
            until(site, address, "Done.")
            told = check_same(site, address, expected)
            # And no batch twice, but for that one.
            asked = sum(each.request_counts.total for each in batches_of(server) if each.id != running.id)
            assert asked == told["judged"]


def test_cancelled_it_ends_with_its_batches_and_what_it_kept(tmp_path: Path):
    with ServerProcess(tmp_path / "data", *SLOW) as server, visiting(server) as site:
        address = uploaded(site)
        begin(site, address)
        until_asked(server, site, address, 5, 1)
        assert site.post(f"{address}/cancel").status_code == 303
        assert status(site.get(address).text) == "Cancelled."
        while {each.status for each in batches_of(server)} != {"cancelled"}:
            time.sleep(0.1)
        assert not list((tmp_path / "data" / "scoring").glob("*/work")) and workers(server) == []
        assert site.post(f"{address}/go-on", data={"budget": ""}).status_code == 303
        assert status(site.get(address).text) == "Cancelled."


def test_what_a_budget_does_not_do_is_told_and_gone_on_from_with_a_larger_one(
    fast: httpx.Client, expected: gristmill.Best
):
    address = uploaded(fast)
    begin(fast, address, budget="300")
    page = until(fast, address, "Done.")
    assert "Not certified." in page and "Go on with this" in page
    assert fast.get(f"{address}/certificate.json").json()["certified"] is False
    answer = fast.post(f"{address}/go-on", data={"budget": "many"})
    assert answer.status_code == 400 and "whole number, not 'many'" in said(answer.text)
    assert fast.post(f"{address}/go-on", data={"budget": ""}).status_code == 303
    assert "Not certified" not in until(fast, address, "Done.")
    told = fast.get(f"{address}/certificate.json").json()
    assert told["certified"] and told["judged"] == expected.certificate["judged"]


def test_past_a_budget_below_the_pilot_it_goes_on_where_that_is_wanted(fast: httpx.Client, expected: gristmill.Best):
    address = uploaded(fast)
    begin(fast, address, budget="10", or_all="1", look="1")
    page = html.unescape(until(fast, address, "Waiting for you."))
    assert "more than the budget of 10: it would go on past it, as is wanted" in page
    answer = fast.post(f"{address}/go-on", data={"budget": "10"})
    assert answer.status_code == 400 and "less than the pilot" in said(answer.text)
    assert fast.post(f"{address}/go-on", data={"budget": "10", "or_all": "1"}).status_code == 303
    until(fast, address, "Done.")
    assert check_same(fast, address, expected)["certified"]


def test_columns_whose_names_end_with_spaces_are_chosen_as_they_are(fast: httpx.Client, expected: gristmill.Best):
    named = {"id": " id", "near": " near ", "truth": "right "}
    table = frame().with_columns(truth="worth").rename(named)
    address = uploaded(fast, table.write_csv().encode())
    begin(fast, address, id=" id", proxy="column: near ", truth="right ")
    until(fast, address, "Done.")
    found = pl.read_csv(fast.get(f"{address}/best.csv").content, infer_schema=False)
    assert found[" id"].to_list() == expected.frame["id"].to_list()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top": ""}, "one of the two"),
        ({"cut": "score >= 8"}, "one of the two"),
        ({"top": "600"}, "The best 600 of 600 rows are all of them"),
        ({"top": "9" * 5_000}, "has to be a whole number"),
        ({"top": "a few"}, "has to be a whole number, not 'a few'"),
        ({"top": "-1"}, "ask for at least one"),
        ({"top": "", "cut": "the best"}, "cannot be read: write it like 'score >= 8'"),
        ({"top": "", "cut": "score >= 11"}, "takes no row"),
        ({"top": "", "cut": "near >= 1"}, "is about 'near'"),
        ({"recall": "2"}, "A recall of 2 cannot be promised"),
        ({"recall": "nan"}, "A recall of nan cannot be promised"),
        ({"confidence": "1e999"}, "A confidence of inf cannot be promised"),
        ({"precision": "0.9"}, "goes with a cut"),
        ({"recall": "<script>"}, "has to be a share, such as 0.95, not '<script>'"),
        ({"budget": "0", "or_all": "1"}, "judges none"),
        ({"budget": "10"}, "less than the pilot, which judges 256"),
        ({"assume": "luck"}, "no assumption 'luck'"),
        ({"seed": "-1"}, "negative"),
        ({"proxy": "column:nobody"}, "Neither the table nor the server has"),
        ({"proxy": "column:id"}, "not a number"),
        ({"proxy": "model:simulated"}, "nothing would be saved"),
        ({"truth": "nobody"}, "no column 'nobody'"),
        ({"rubric": ""}, "Write the rubric"),
    ],
)
def test_what_cannot_be_promised_is_one_sentence_before_anything_runs(fast: httpx.Client, changes: dict, message: str):
    address = uploaded(fast)
    answer = fast.post(address, data=FORM | changes)
    assert answer.status_code == 400 and message in said(answer.text), said(answer.text)
    assert len(said(answer.text)) < 500 and "<script>'" not in answer.text
    assert fast.post(f"{address}/delete").status_code == 303


def test_a_rankings_job_is_kept_as_it_is_and_a_scorings_of_an_earlier_version_is_read(tmp_path: Path):
    store = JobStore(tmp_path)
    job = store.new(Scope(), 5)
    job.status, job.form = JobStatus.PLANNED, RankForm(ScoreForm("r", "0..1", "m"), RankWish(top=5))
    job.step = Step("One.", 5, 5)
    store.save(job)
    again = store.get(job.id, EVERYTHING)
    assert again == job and again is not None and again.can_go_on
    old = store.new(Scope(), 5)
    note = msgspec.to_builtins(old) | {"form": {"rubric": "r", "scale": "0..1", "model": "m"}, "status": "running"}
    for name in ("step", "plan", "best"):
        note.pop(name)
    (store.folder(old) / "job.json").write_bytes(msgspec.json.encode(note))
    read = store.get(old.id, EVERYTHING)
    assert read is not None and read.form == ScoreForm("r", "0..1", "m")


def test_only_what_a_ranking_can_use_is_kept():
    form = RankForm(ScoreForm("r", "0..1", "m"), RankWish(top=5))
    job = ScoreJob("j", 5, Scope(), "t.csv", "table.csv", form=form, step=Step("One.", 5, 5))
    best = RankSummary(False, "Not certified", [], [], [], [], [], 0, [])
    kept = {
        status: [
            msgspec.structs.replace(job, status=status, best=found).can_go_on
            for found in (None, best, msgspec.structs.replace(best, certified=True))
        ]
        for status in JobStatus
    }
    assert kept == {
        JobStatus.DRAFT: [False] * 3, JobStatus.RUNNING: [False] * 3, JobStatus.CANCELLED: [False] * 3,
        JobStatus.PLANNED: [True] * 3, JobStatus.FAILED: [True] * 3, JobStatus.COMPLETED: [False, True, False],
    }  # fmt: skip
