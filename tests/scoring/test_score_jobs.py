"""Scorings that a server runs: tables of every kind, a kill in the middle, another's jobs."""

from __future__ import annotations

import asyncio
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import httpx
import msgspec
import polars as pl
import pytest
import structlog
from typer.testing import CliRunner

from gristmill.batches.host import BatchHost, HostSettings
from gristmill.batches.scoped_host import ScopedHost
from gristmill.cli.main import app
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.scoring.computation import computation_of_server
from gristmill.scoring.jobs import keeper, worker_process
from gristmill.scoring.jobs.job import JobStatus, ScoreForm, ScoreJob
from gristmill.scoring.jobs.job_store import JobStore
from gristmill.scoring.jobs.keeper import ScoringJobs
from gristmill.scoring.jobs.messages import FromWorker, Inspect, Refused, Score
from gristmill.scoring.jobs.server_backend import Pipes
from gristmill.scoring.jobs.worker import inspect, work
from gristmill.storage.open import StorageSettings
from gristmill.storage.scope import EVERYTHING, KeyLimits, Scope
from gristmill.telemetry import log
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch
from gristmill.wire.json import encode
from server_process import ServerProcess

FORM = {"rubric": "How good?", "scale": "0..3", "id": "id", "columns": "text", "model": "simulated", "method": ""}
_LOOPS = f"{{% for a in {[*range(300)]} %}}"


def told(path: Path) -> str:
    """What a worker says to a table it cannot take."""
    out = io.BytesIO()
    work(Pipes(io.BytesIO(encode(Inspect(str(path))) + b"\n"), out))
    said = msgspec.json.decode(out.getvalue(), type=FromWorker)
    assert isinstance(said, Refused), said
    assert str(path) not in said.message
    return said.message


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"a,b\n", "has no rows"),
        ("utf16.csv", "a,b\n1,2\n".encode("utf-16"), "is UTF-16"),
        ("latin.tsv", b"a\tb\ncaf\xe9\t1\n", "is not UTF-8: its line 2"),
        ("noise.parquet", bytes(range(256)) * 20, "cannot be read as a table"),
        ("cut.parquet", b"PAR1" + b"\0" * 100 + b"PAR1", "cannot be read as a table"),
        ("list.jsonl", b'{"a": [1, 2]}\n', "write .jsonl or .parquet instead"),
        ("broken.jsonl", b'{"a": \n', "cannot be read as a table"),
        ("wide.csv", ",".join(f"c{n}" for n in range(1_001)).encode() + b"\n" + b"," * 1_000 + b"\n", "1,001 columns"),
    ],
)
def test_what_is_no_table_is_told_without_the_servers_paths(tmp_path: Path, name: str, data: bytes, said: str):
    (tmp_path / name).write_bytes(data)
    assert said in told(tmp_path / name)


def test_a_table_is_told_by_its_columns_its_rows_and_the_first_of_them(tmp_path: Path):
    table = pl.DataFrame({"id": range(1_000), "text": ["x" * 5_000] * 1_000, "none": [None] * 1_000})
    table.write_parquet(tmp_path / "t.parquet")
    facts = inspect(Inspect(str(tmp_path / "t.parquet"))).facts
    assert (facts.columns, facts.rows, len(facts.sample)) == (["id", "text", "none"], 1_000, 5)
    assert facts.sample[3] == ["3", "x" * 200, ""]


def test_a_job_is_there_for_its_owner_and_for_whoever_sees_everything(tmp_path: Path):
    store = JobStore(tmp_path / "scoring")
    mine, other = Scope("key_1"), Scope("key_2")
    job = store.new(mine, 5)
    assert store.get(job.id, mine) is None, "it has not been saved"
    store.save(job)
    found = store.get(job.id, mine)
    assert isinstance(found, ScoreJob) and found.scope == mine
    assert store.get(job.id, other) is None and store.all(other) == []
    assert store.get(job.id, EVERYTHING) is not None and len(store.all(EVERYTHING)) == 1
    for nonsense in ("", "..", "../scoring", job.id + "/..", job.id.upper()):
        assert store.get(nonsense, EVERYTHING) is None


def test_a_key_with_a_limit_has_room_for_what_its_tables_leave(tmp_path: Path):
    store, limited = JobStore(tmp_path), Scope("key_1", limits=KeyLimits(bytes=10_000))
    assert store.room(Scope("key_1")) > 10**9 and store.room(limited) == 10_000
    job = store.new(limited, 5)
    (store.folder(job) / job.file).write_bytes(b"x" * 4_000)
    store.name(job, "t.csv")
    store.save(job)
    assert 5_000 < store.room(limited) < 6_000
    (store.folder(job) / job.file).write_bytes(b"x" * 40_000)
    assert store.room(limited) == 0 and store.room(Scope("key_2", limits=KeyLimits(bytes=7))) == 7


def test_what_was_never_begun_goes_after_a_day_and_what_was_cut_off_at_once(tmp_path: Path):
    store = JobStore(tmp_path)
    old, new, begun = (store.new(Scope(), int(at)) for at in (time.time() - 90_000, time.time(), 5))
    begun.status, begun.form = JobStatus.RUNNING, ScoreForm("r", "0..1", "m")
    for job in (old, new, begun):
        store.save(job)
    cut_off = store.new(Scope(), 5)
    store.tidy()
    assert {job.id for job in store.all(EVERYTHING)} == {new.id, begun.id}
    assert not store.folder(cut_off).exists()


async def test_a_table_that_kills_its_process_is_told_to_be_too_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker_process, "_WORKER", ("-c", "import os; os.kill(os.getpid(), 6)"))
    async with worker_process.started_worker() as worker:
        await worker.say(Inspect("t.csv"))
        with pytest.raises(UserError, match="too little memory"):
            await worker.hear()


@pytest.mark.parametrize("content", [False, True])
async def test_what_a_worker_prints_as_it_dies_is_logged_only_where_content_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], content: bool
):
    monkeypatch.setattr(worker_process, "_WORKER", ("-c", "raise ValueError('CANARY')"))
    log.configure(content=content)
    try:
        async with worker_process.started_worker() as worker:
            await worker.say(Inspect("t.csv"))
            with pytest.raises(UserError, match="exit code 1"):
                await worker.hear()
    finally:
        log.drain()
        structlog.reset_defaults()
    printed = capfd.readouterr().err
    assert "exit code 1" in printed and ("CANARY" in printed) == content


@pytest.mark.parametrize("rubric", [_LOOPS * 6 + "{% endfor %}" * 6, "{{ 9 ** (9 ** 9) }}"], ids=["loops", "power"])
async def test_a_rubric_that_has_no_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rubric: str):
    """Or two of them would hold up the scorings of everybody."""
    hasty = "from gristmill.scoring.jobs import rubric_time, worker; rubric_time._SECONDS = 0.5; worker._main()"
    monkeypatch.setattr(worker_process, "_WORKER", ("-c", hasty))
    (tmp_path / "a.csv").write_text("text\nfine\n")
    async with worker_process.started_worker() as worker:
        form = ScoreForm(f"How good? {rubric}", "0..3", "simulated", columns=["text"])
        await worker.say(Score(str(tmp_path), "a.csv", "a.csv", form, labels=True, attempt=""))
        async with asyncio.timeout(60):
            with pytest.raises(UserError, match="rubric takes too long"):
                await worker.hear()


async def test_scorings_whose_batches_take_long_hold_up_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keeper, "_PATIENCE", 0.2)
    free, really_ended, held = asyncio.Event(), keeper.ended, Scope("key_1")

    async def ended(mine: ScopedHost, batch_id: str) -> Batch:
        if any(batch_id in job.batches for job in jobs.store.all(held)):
            await free.wait()
        return await really_ended(mine, batch_id)

    monkeypatch.setattr(keeper, "ended", ended)
    host = BatchHost(HostSettings(StorageSettings(tmp_path / "data"), EngineSettings("simulated"), stop_grace=0))
    await host.start()
    jobs = ScoringJobs(host)
    try:
        begun = [begun_job(jobs, held) for _ in range(3)]
        other = begun_job(jobs, Scope("key_2"))
        async with asyncio.timeout(120):
            await told_as(jobs, JobStatus.COMPLETED, other)
            # Its own wait for their turn.
            assert [len(jobs.store.get(job.id, held).batches) for job in begun] == [1, 1, 0]  # type: ignore[union-attr]
            free.set()
            await told_as(jobs, JobStatus.COMPLETED, *begun)
        # Gone on with from where they were.
        counted = [batch.request_counts.total for batch in (await host.batches.page(None, 100)).data]
        assert sum(counted) == 4 * 20
    finally:
        await jobs.close()
        await host.stop()


def begun_job(jobs: ScoringJobs, scope: Scope) -> ScoreJob:
    job = jobs.store.new(scope, int(time.time()))
    rows = [{"text": f"Candidate {number}"} for number in range(20)]
    (jobs.store.folder(job) / job.file).write_text("".join(f"{encode(row).decode()}\n" for row in rows))
    jobs.store.name(job, "t.jsonl")
    jobs.begin(job, ScoreForm("How good?", "0..3", "simulated", columns=["text"]))
    return job


async def told_as(jobs: ScoringJobs, status: JobStatus, *asked: ScoreJob) -> None:
    for job in asked:
        while (found := jobs.store.get(job.id, EVERYTHING)) is None or found.status is not status:
            assert found is None or found.error is None, found
            await asyncio.sleep(0.05)


def upload(site: httpx.Client, name: str, data: bytes) -> str:
    """The address of the job."""
    answer = site.post("/scoring/new", files={"table": (name, data)}, headers={"accept": "text/html"})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def until(site: httpx.Client, address: str, *words: str) -> str:
    while True:
        page = site.get(address).text
        said = re.search('role="status">(.*?)</p>', page)
        assert said is not None, page
        if said[1] in words:
            return page
        assert said[1] == "Running.", page
        time.sleep(0.1)


def test_a_scoring_goes_on_after_a_kill_and_asks_no_row_again(tmp_path: Path):
    rows = 300
    data = pl.DataFrame({"id": range(rows), "text": [f"Candidate {n}" for n in range(rows)]}).write_csv().encode()
    with ServerProcess(tmp_path / "data", "-O", "latency=0.05", "-O", "slots=8") as server:
        with httpx.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60) as site:
            address = upload(site, "t.csv", data)
            assert site.post(address, data=FORM).status_code == 303
            client = server.client()
            while not any(each.request_counts.completed for each in client.batches.list().data):
                time.sleep(0.05)
        server.kill()
        server.start()
        with httpx.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60) as site:
            until(site, address, "Done.")
            scores = pl.read_csv(site.get(f"{address}/scores.csv").content)
            assert scores.height == rows and scores["score"].null_count() == 0
            # Two passes, the first few rows and all others, and no batch twice.
            batches = server.client().batches.list().data
            assert sum(each.request_counts.total for each in batches) == rows
            receipt = site.get(f"{address}/receipt.json").json()
            assert len(receipt["computed"]) == 1 and receipt["computed"][0]["options"] == {
                "latency": "0.05",
                "slots": "8",
            }
            assert "sandbox" in site.get(f"{address}/report.html").headers["content-security-policy"]


def test_a_scoring_is_cancelled_with_its_batches_and_refused_with_a_reason(server: ServerProcess):
    with httpx.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60) as site:
        address = upload(site, "t.csv", b"id,text\n1,a\n1,b\n")
        answer = site.post(address, data=FORM)
        assert answer.status_code == 400 and "share an id" in answer.text
        assert site.get(f"{address}/scores.csv").status_code == 404
        assert site.post(address, data=FORM | {"id": ""}).status_code == 303
        until(site, address, "Done.")
        other = upload(site, "t.csv", b"id,text\n1,a\n")
        for field, value, said in (
            ("rubric", " ", "Write the rubric"), ("scale", "5..1", "scale"), ("model", "gpt", "no model"),
            ("columns", "nothing", "at least one column"), ("id", "nothing", "no column"), ("method", "x", "no method"),
            ("truth", "text", "at least one column"), ("cut", "high", "&#39;high&#39; is not a number"),
            ("truth_wanted", "-3", "is not a number of rows"), ("truth", "points", "no column &#39;points&#39;"),
            ("cut", "2", "Name the column of right scores, with --truth"),
            ("confidence", "2", "A confidence of 2 is not from 0.5"),
        ):  # fmt: skip
            answer = site.post(other, data=FORM | {field: value})
            assert answer.status_code == 400 and said in answer.text, field
        assert site.post(f"{other}/cancel").status_code == 303
        assert site.post(f"{other}/delete").status_code == 303
        assert site.get(other).status_code == 404


def test_the_receipt_of_a_servers_scores_is_verified_on_the_command_line(server: ServerProcess, tmp_path: Path):
    data = "id,text\n" + "".join(f"{number},Candidate {number}\n" for number in range(30))
    (tmp_path / "my table.csv").write_text(data)
    with httpx.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60) as site:
        address = upload(site, "my table.csv", data.encode())
        assert site.post(address, data=FORM | {"criteria": "craft, honesty"}).status_code == 303
        assert f"{address}/receipt.json" in until(site, address, "Done.")
        for name in ("scores.csv", "receipt.json"):
            answer = site.get(f"{address}/{name}")
            # As a browser would call it.
            called = unquote(answer.headers["content-disposition"].partition("''")[2])
            (tmp_path / called).write_bytes(answer.content)
    (receipt,) = tmp_path.glob("*.receipt.json")
    assert json.loads(receipt.read_text())["computed"][0]["place"] == "on a Gristmill server (simulated engine)"
    command = [sys.executable, "-m", "gristmill", "score", "--verify", receipt.name, "--rows", "20"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "40 scores of 20 random rows, computed again: identical to the bit." in done.stderr
    assert "differs" not in done.stderr


async def test_a_servers_receipt_keeps_its_operators_addresses_and_files(tmp_path: Path):
    engine = create_engine(EngineSettings("simulated"))
    own = {"fail_on": "x", "journal": str(tmp_path / "journal")}
    settings = EngineSettings("simulated", str(tmp_path / "secret"), "http://10.0.0.7:9", own)
    told = await computation_of_server(engine, settings, "called", False)
    assert (told.source, told.url, told.options) == ("called", None, {"fail_on": "x"})
    shared = await computation_of_server(engine, settings._replace(model="m"), "called", True)
    assert shared.source == "m" and "another may have computed" in (shared.unknown or "")


def test_right_scores_of_some_rows_calibrate_a_servers_scores_as_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("sklearn", reason="pip install 'gristmill[score]' runs this")
    # The command runs in this process, and must not configure the log for all tests that follow.
    monkeypatch.setattr("gristmill.telemetry.log.configure", lambda level: None)
    rows = pl.DataFrame({"id": range(200), "worth": [row % 11 / 10 for row in range(200)], "office": ["a", "b"] * 100})
    table = rows.with_columns(points=pl.when(pl.col("id") < 80).then((pl.col("worth") * 10).round()))
    table.write_csv(tmp_path / "table.csv")
    asked = {"truth": "points", "by": "office", "cut": "7", "confidence": "0.8", "truth_wanted": "30"}
    # The truth's column is ticked, and is not sent.
    seen = {"columns": ["worth", "points"], "scale": "0..10"}
    with (
        ServerProcess(tmp_path / "data", "-O", "scored_by=worth:") as server,
        httpx.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60) as site,
    ):
        address = upload(site, "table.csv", (tmp_path / "table.csv").read_bytes())
        assert site.post(address, data=FORM | seen | asked).status_code == 303
        page = until(site, address, "Done.")
        scores, wanted = (site.get(f"{address}/{name}.csv").content for name in ("scores", "truth-wanted"))
        report = site.get(f"{address}/report.html").text
        receipt = site.get(f"{address}/receipt.json").json()
        few = upload(site, "few.csv", b"id,worth,points\n1,0.3,3\n2,0.4,\n")
        assert site.post(few, data=FORM | seen | {"truth": "points"}).status_code == 303
        assert "1 of 2 rows with a score have a right one: too few for calibrated scores" in until(site, few, "Done.")
        assert site.get(f"{few}/truth-wanted.csv").status_code == 404
    assert receipt["asked"]["columns"] == ["worth"]
    (tmp_path / "rubric.txt").write_text(FORM["rubric"])
    done = CliRunner().invoke(app, [
        "score", str(tmp_path / "table.csv"), "--rubric", str(tmp_path / "rubric.txt"), "--id", "id",
        "--row", "worth: {{ worth }}", "--scale", "0..10", "--truth", "points", "--by", "office", "--cut", "7",
        "--confidence", "0.8", "--truth-wanted", "30", "-o", str(tmp_path / "out.csv"),
        "--engine", "simulated", "-O", "scored_by=worth:",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert scores == (tmp_path / "out.csv").read_bytes()
    assert wanted == (tmp_path / "out-truth-wanted.csv").read_bytes() and pl.read_csv(wanted).height == 30
    for words in ("What the right scores say of all rows", "80 % interval", "the whole table, 200 rows", "b, 100 rows"):
        assert words in page and words in report, words
    assert "Download the 30 rows to find the right score of" in page
