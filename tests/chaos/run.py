"""One schedule, played while a batch runs; and what came of the batch."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from chaos.ledger import Ledger
from chaos.schedule import Step, Timetable, schedule
from chaos.stage import Stage, environment
from postgres_server import PostgresServer, programs
from ray_cluster import ray_cluster
from requests_jsonl import CHAT, chat_line, jsonl
from s3_server import S3Server

#: So long without a row that gets a result is for ever (seconds).
_STUCK_SECONDS = 150.0
#: And so long is too long while something is stopped: it is continued earlier than planned. Nobody connects to a head
#: that is stopped, and with a Ray client that was killed just before, all would wait for rows that nobody asks.
_PATIENCE_SECONDS = 60.0


class Done(msgspec.Struct, frozen=True):
    """A step: due at so many rows with a result, done at so many. ``of`` is who was hit, None where a step ends."""

    what: str
    of: str | None
    due: int
    done: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of rows, all of them."""

    seed: int
    rows: int
    steps: list[Done]
    status: str
    #: Lines of the two files, and of both those whose row is missing, or there more than once.
    succeeded: int
    failed: int
    missing: int
    twice: int
    #: Whether both servers give the same files.
    same_everywhere: bool
    #: Requests that the replicas got; rows that they got more than once; those that had a result by then.
    asked: int
    asked_again: int
    asked_though_stored: int
    #: Leases on the batch, the first among them.
    leases: int
    #: Starts of servers after the first: as many as were killed, and as ended because what they need was not there.
    started_again: int
    #: Looks at the database, and those at which the batch's counts were not the results that were there.
    looks: int
    disagreements: int

    def faults(self) -> dict[str, object]:
        """What is not as it must be."""
        wanted = {
            "status": "completed", "succeeded": self.rows, "failed": 0, "missing": 0, "twice": 0,
            "same_everywhere": True, "asked_though_stored": 0, "disagreements": 0,
        }  # fmt: skip
        return {name: getattr(self, name) for name, value in wanted.items() if getattr(self, name) != value}


def play(seed: int, rows: int, folder: Path, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """Everything is started for it and ended with it; ``folder`` is empty. Raises AssertionError where nothing gets on
    any more."""
    found = programs()
    assert found is not None
    with contextlib.ExitStack() as held:
        with ThreadPoolExecutor() as pool:
            databases, stores = pool.submit(PostgresServer, found), pool.submit(S3Server(folder / "s3").start)
            held.callback(lambda: databases.result().remove())
            held.callback(lambda: stores.result().kill())
            # In the main thread, as Ray asks.
            cluster = held.enter_context(ray_cluster(nodes=3))
        postgres, store = databases.result(), stores.result()
        held.enter_context(environment(store.environment()))
        tell("the database, the S3 server and the cluster are there")
        stage = held.enter_context(Stage(folder, postgres, store, cluster))
        tell("the servers are there")
        ledger = held.enter_context(Ledger(stage.url, stage.journal))
        client = stage.servers[0].client()
        lines = jsonl([chat_line(f"row-{row}", f"Rate row-{row}") for row in range(rows)])
        file = client.files.create(file=("rows.jsonl", lines), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        try:
            steps = _play(schedule(seed, rows), stage, ledger, tell)
            return _outcome(seed, rows, steps, stage, ledger, batch.id)
        finally:
            for number, server in enumerate(stage.servers):
                (folder / f"log-{number}").write_text("".join(server.log))


def _play(steps: list[Step], stage: Stage, ledger: Ledger, tell: Callable[[str], None]) -> list[Done]:
    done: list[Done] = []
    table = Timetable(steps)
    while (step := table.next()) is not None:
        if not _wait_for_rows(stage, ledger, step.at, _PATIENCE_SECONDS):
            early = table.end_before(step)
            if early is None:
                assert _wait_for_rows(stage, ledger, step.at, _STUCK_SECONDS), (
                    f"nothing gets on at {ledger.counted} rows"
                )
            else:
                step = early
        assert not _ended(ledger) or step.what not in {each.what for each in steps}, f"the batch ended before: {step}"
        while not ledger.look():
            time.sleep(0.05)
        before = ledger.counted
        of = stage.take(step)
        table.done(step, before)
        done.append(Done(step.what, of, step.at, before))
        tell(f"at {before} rows (due at {step.at}): {step.what} {of or ''}; now {ledger.counted}")
    assert _wait_for_rows(stage, ledger, None, _STUCK_SECONDS), f"nothing gets on at {ledger.counted} rows"
    return done


def _ended(ledger: Ledger) -> bool:
    return ledger.status in ("completed", "failed", "expired", "cancelled")


def _wait_for_rows(stage: Stage, ledger: Ledger, goal: int | None, patience: float) -> bool:
    """For so many rows with a result, or for the batch's end; False where nothing gets on for ``patience`` seconds."""
    counted, since = ledger.counted, time.monotonic()
    while not _ended(ledger) and (goal is None or ledger.counted < goal):
        if ledger.counted != counted:
            counted, since = ledger.counted, time.monotonic()
        if time.monotonic() > since + patience:
            return False
        stage.mend()
        time.sleep(0.02)
    return True


def _outcome(seed: int, rows: int, steps: list[Done], stage: Stage, ledger: Ledger, batch_id: str) -> Outcome:
    names: list[Counter[str]] = []
    contents = []
    for server in stage.servers:
        client = server.client()
        batch = client.batches.retrieve(batch_id)
        files = [
            client.files.content(each).content if each else b"" for each in (batch.output_file_id, batch.error_file_id)
        ]
        contents.append(files)
        names = [Counter(json.loads(line)["custom_id"] for line in each.splitlines()) for each in files]
    output, errors = names
    both = output + errors
    asked = ledger.asked()
    ((leases,),) = stage.ask("SELECT lease_generation FROM batches")
    assert isinstance(leases, int)
    return Outcome(
        seed=seed,
        rows=rows,
        steps=steps,
        status=ledger.status,
        succeeded=output.total(),
        failed=errors.total(),
        missing=sum(both[f"row-{row}"] == 0 for row in range(rows)),
        twice=sum(times > 1 for times in both.values()),
        same_everywhere=all(each == contents[0] for each in contents),
        asked=asked.times.total(),
        asked_again=sum(times > 1 for times in asked.times.values()),
        asked_though_stored=len(asked.though_stored),
        leases=leases,
        started_again=stage.started_again,
        looks=ledger.looks,
        disagreements=len(ledger.disagreements),
    )
