"""The network between a server and the database is cut, and nobody is told: another server goes on with its batch."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import openai
from watched_batch import Journal, wait_until

from postgres_server import PostgresServer
from requests_jsonl import CHAT, chat_line, jsonl
from server_process import ServerProcess
from swallowing_proxy import SwallowingProxy

ROWS = 4_000
SLOTS = 8
#: Within which a batch is taken over whose server is gone (seconds of the database's clock).
TAKEN_OVER = 30


def answered(journal: Journal) -> Counter[int]:
    return Counter(int(row.rpartition("-")[2]) for row in journal.rows())


def test_who_is_cut_off_stores_nothing_more_and_another_server_goes_on_in_time(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.new_database()
    journals = [Journal(tmp_path / f"journal-{number}") for number in range(2)]
    options = ["--blobs", str(tmp_path / "blobs"), "-O", f"slots={SLOTS}", "-O", "latency=0.02"]

    def ask(query: str) -> list[tuple[object, ...]]:
        return postgres.execute(query, url.rpartition("/")[2])

    def stored() -> set[int]:
        return {int(str(line)) - 1 for (line,) in ask("SELECT line FROM public_batch_1.results")}

    def runs(server: ServerProcess) -> Callable[[], bool]:
        return lambda: any(f":{server.pid}:" in str(owner) for (owner,) in ask("SELECT lease_owner FROM batches"))

    with SwallowingProxy(postgres.port) as proxy:
        behind = url.replace(f":{postgres.port}/", f":{proxy.port}/") + "?sslmode=disable"
        with (
            ServerProcess(tmp_path / "cut", "--database", behind, *options, "-O", f"journal={journals[0].path}") as cut,
            ServerProcess(
                tmp_path / "other", "--database", url, *options, "-O", f"journal={journals[1].path}"
            ) as other,
        ):
            client = other.client(max_retries=0)
            rows = jsonl([chat_line(f"row-{row}", f"Rate row-{row}") for row in range(ROWS)])
            file = client.files.create(file=("rows.jsonl", rows), purpose="batch")
            batch_id = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id
            wait_until(lambda: any(ask("SELECT 1 FROM batches WHERE completed > 100")), "rows to be stored")
            if runs(other)():
                # The batch is to be at the one that is cut off.
                other.stop()
                wait_until(runs(cut), "it to take the batch up")
                other.start()
                client = other.client(max_retries=0)

            proxy.cut()
            # What had arrived is done in a moment; what was in a transaction is undone in five seconds.
            time.sleep(1)
            kept = stored()
            ((began,),) = ask("SELECT extract(epoch FROM clock_timestamp())::float8")
            wait_until(runs(other), "the other to take the batch over")
            ((took, seconds),) = ask(
                f"SELECT lease_generation, extract(epoch FROM clock_timestamp())::float8 - {began} FROM batches"
            )
            assert isinstance(seconds, float) and seconds + 1 < TAKEN_OVER
            asked_by_then = answered(journals[0])

            proxy.heal()
            away = cut.client(max_retries=0)

            def reaches_it() -> bool:
                with contextlib.suppress(openai.InternalServerError):
                    return bool(away.batches.retrieve(batch_id).id)
                return False

            wait_until(reaches_it, "who was cut off to reach the database", pause=0.2)
            wait_until(lambda: client.batches.retrieve(batch_id).status == "completed", "the end")
            lines = client.files.content(str(client.batches.retrieve(batch_id).output_file_id)).content.splitlines()
            assert [json.loads(line)["custom_id"] for line in lines] == [f"row-{row}" for row in range(ROWS)]
            assert ask("SELECT lease_generation FROM batches") == [(took,)]
            # Nothing was stored but by the other, which asked for nothing that was; the one that was cut off begins
            # nothing more.
            assert answered(journals[1]) - Counter(kept) == Counter(set(range(ROWS)) - kept)
            assert (answered(journals[0]) - asked_by_then).total() <= SLOTS
