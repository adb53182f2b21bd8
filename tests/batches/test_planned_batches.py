"""What planning does to a running batch: the order of its rows, and rows that run once for several."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_supervisor import add_file, end, lines, reach, submit, tell

from gristmill.batches.host import BatchHost
from gristmill.storage.errors import StorageError
from gristmill.wire.batch import CreateBatchRequest
from requests_jsonl import CHAT, chat_line, jsonl

RUBRICS = [f"Rubric {i}. " * 60 for i in range(4)]


def row(number: int, system: str, user: str, **body: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return chat_line(f"row-{number}", messages=messages, **body)


def asked(journal: Path) -> list[str]:
    return [line.rsplit("user: ", 1)[-1] for line in journal.read_text().splitlines()]


def test_rows_of_interleaved_rubrics_run_rubric_by_rubric_and_come_out_in_line_order(tmp_path: Path) -> None:
    data = jsonl([row(i, RUBRICS[i % 4], f"candidate {i:03}") for i in range(80)])

    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, data)).id)
        assert batch.status == "completed"
        output = await lines(host, batch.output_file_id)
        assert [line["custom_id"] for line in output] == [f"row-{i}" for i in range(80)]
        assert batch.gristmill and batch.gristmill.plan
        assert (batch.gristmill.plan.prefix_groups, batch.gristmill.plan.deduplicated) == (4, 0)
        assert batch.gristmill.plan.estimated_computed_tokens < batch.gristmill.plan.estimated_prompt_tokens / 5
        # The cache of this engine holds one prompt: in the order of the lines nothing would be reused.
        assert batch.usage and batch.usage.input_tokens_details.cached_tokens
        assert batch.usage.input_tokens_details.cached_tokens > 0.85 * batch.usage.input_tokens

    tell(tmp_path / "data", story, slots=1, cached_prompts=1, journal=tmp_path / "journal")
    numbers = [int(text.split()[-1]) for text in asked(tmp_path / "journal")]
    assert numbers == sorted(range(80), key=lambda number: (number % 4, number))


def test_rows_that_ask_the_same_without_chance_are_asked_once_and_each_is_answered(tmp_path: Path) -> None:
    rows = [row(i, "Rate.", f"candidate {i % 10}", temperature=0) for i in range(60)]
    rows += [row(60 + i, "Rate.", "by chance") for i in range(3)]

    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, jsonl(rows))).id)
        assert (batch.request_counts.completed, batch.request_counts.total) == (63, 63)
        assert batch.gristmill and batch.gristmill.plan and batch.gristmill.plan.deduplicated == 50
        output = await lines(host, batch.output_file_id)
        assert [line["custom_id"] for line in output] == [f"row-{i}" for i in range(63)]
        assert len({line["id"] for line in output}) == 63
        texts = [line["response"]["body"]["choices"][0]["message"]["content"] for line in output]
        assert texts[:10] * 6 == texts[:60]
        used = [line["response"]["body"]["usage"]["prompt_tokens"] for line in output]
        # The batch's sums are the engine's work.
        assert batch.usage and batch.usage.input_tokens == sum(used[:10]) + sum(used[60:])

    tell(tmp_path / "data", story, journal=tmp_path / "journal")
    assert len(asked(tmp_path / "journal")) == 13


@pytest.mark.parametrize(("kind", "attempts"), [("invalid_request", 1), ("interrupted", 3)])
def test_a_failure_is_shared_only_where_it_is_the_requests_own(tmp_path: Path, kind: str, attempts: int) -> None:
    data = jsonl([row(i, "Rate.", "candidate", seed=1) for i in range(3)])

    async def story(host: BatchHost) -> None:
        asked = 0
        ask = host.dispatcher.ask

        async def counted(*args: Any) -> Any:
            nonlocal asked
            asked += 1
            return await ask(*args)

        host.dispatcher.ask = counted  # type: ignore[method-assign]
        batch = await end(host, (await submit(host, data)).id)
        assert batch.request_counts.failed == 3
        assert [line["custom_id"] for line in await lines(host, batch.error_file_id)] == ["row-0", "row-1", "row-2"]
        assert asked == attempts

    tell(tmp_path, story, fail_on="candidate", failure_kind=kind)


def test_a_batch_stopped_in_the_middle_goes_on_in_its_order_and_asks_nothing_twice(tmp_path: Path) -> None:
    data = jsonl([row(i, RUBRICS[i % 4], f"candidate {i % 100:03}", temperature=0) for i in range(200)])
    journal, batch_id = tmp_path / "journal", ""

    async def begin(host: BatchHost) -> None:
        nonlocal batch_id
        batch_id = (await submit(host, data)).id
        await reach(host, batch_id, lambda batch: batch.request_counts.completed >= 40)

    async def go_on(host: BatchHost) -> None:
        batch = await end(host, batch_id)
        assert batch.request_counts.completed == 200
        output = await lines(host, batch.output_file_id)
        assert [line["custom_id"] for line in output] == [f"row-{i}" for i in range(200)]

    tell(tmp_path / "data", begin, slots=1, latency=0.01, journal=journal)
    before = len(asked(journal))
    assert before < 90
    tell(tmp_path / "data", go_on, slots=1, journal=journal)
    texts = asked(journal)
    # Only what was answered but not yet stored when it stopped may have been asked again.
    assert len(set(texts)) == 100
    assert len(texts) <= 100 + 40
    numbers = [int(text.split()[-1]) for text in texts[before:]]
    assert numbers == sorted(numbers, key=lambda number: (number % 4, number))


def test_a_batch_whose_lines_hold_only_their_own_part_gives_what_full_lines_give(tmp_path: Path) -> None:
    full = [row(i, RUBRICS[0], f"candidate {i}", temperature=0, max_tokens=5) for i in range(20)]
    short = json.loads(json.dumps(full))
    for line in short:
        del line["body"]["messages"][0], line["body"]["model"], line["body"]["temperature"], line["body"]["max_tokens"]
    defaults = {
        "model": "simulated", "temperature": 0, "max_tokens": 5,
        "messages": [{"role": "system", "content": RUBRICS[0]}],
    }  # fmt: skip
    assert len(jsonl(short)) < len(jsonl(full)) / 4
    answers: list[list[Any]] = []

    async def story(host: BatchHost) -> None:
        for number, (data, given) in enumerate([(jsonl(full), None), (jsonl(short), defaults)]):
            await add_file(host, data, f"file-{number}")
            request = CreateBatchRequest(f"file-{number}", CHAT, "24h", defaults=given)
            batch = await end(host, (await host.batches.create(request)).id)
            output = await lines(host, batch.output_file_id)
            bodies = [line["response"]["body"] for line in output]
            answers.append([(body["model"], body["choices"], body["usage"]["prompt_tokens"]) for body in bodies])

    tell(tmp_path, story)
    assert answers[0] == answers[1] and len(answers[0]) == 20


def test_a_batch_of_higher_priority_is_done_while_another_has_barely_begun(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batches = []
        for number, priority in enumerate((0, 4)):
            rows = [row(i, f"Batch {number}.", f"candidate {i}") for i in range(1_000)]
            await add_file(host, jsonl(rows), f"file-{number}")
            request = CreateBatchRequest(f"file-{number}", CHAT, "24h", priority=priority)
            batches.append(await host.batches.create(request))
        await end(host, batches[1].id)
        assert (await host.batches.get(batches[0].id)).request_counts.completed < 500
        assert (await end(host, batches[0].id)).request_counts.completed == 1_000

    tell(tmp_path, story, slots=4, latency=0.002)


def test_thousands_of_rows_that_ask_the_same_are_stored_some_at_a_time_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.batches.supervisor.FAILURE_PAUSE", 0.1)
    data = jsonl([row(i, "Rate.", "the same", temperature=0) for i in range(5_000)])

    async def story(host: BatchHost) -> None:
        store: Any = host.storage.metadata.rows
        commit, groups = store.commit, []

        async def refuse_the_second(lease: Any, results: Any) -> None:
            groups.append(len(results))
            if len(groups) == 2:
                raise StorageError("The disk is full: free some space.")
            await commit(lease, results)

        store.commit = refuse_the_second
        batch = await end(host, (await submit(host, data)).id)
        assert (batch.status, batch.request_counts.completed) == ("completed", 5_000)
        assert len(await lines(host, batch.output_file_id)) == 5_000
        assert max(groups) <= 2_000

    tell(tmp_path / "data", story, journal=tmp_path / "journal")
    # Once more after the failure: what was not stored is asked again.
    assert len(asked(tmp_path / "journal")) == 2


def test_a_large_input_is_planned_in_a_process_that_is_gone_afterwards(tmp_path: Path) -> None:
    data = jsonl([row(i, RUBRICS[i % 4] * 10, f"candidate {i % 100:03}", temperature=0) for i in range(400)])
    assert len(data) > 2_000_000

    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, data)).id)
        assert (batch.request_counts.completed, batch.request_counts.total) == (400, 400)
        assert batch.gristmill and batch.gristmill.plan
        assert (batch.gristmill.plan.prefix_groups, batch.gristmill.plan.deduplicated) == (4, 300)

    before = psutil.Process().children()
    tell(tmp_path / "data", story, slots=1, journal=tmp_path / "journal")
    assert len(asked(tmp_path / "journal")) == 100
    assert set(psutil.Process().children()) <= set(before)


def test_a_large_input_with_an_error_leaves_no_planner_behind(tmp_path: Path) -> None:
    data = jsonl([row(i, RUBRICS[0] * 10, f"candidate {i}") for i in range(400)]) + b"notes\n"

    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, data)).id)
        assert batch.status == "failed" and batch.errors and batch.errors.data[0].line == 401

    before = psutil.Process().children()
    tell(tmp_path / "data", story)
    assert set(psutil.Process().children()) <= set(before)


MANY = jsonl([row(i, RUBRICS[i % 2] * 10, f"candidate {i}") for i in range(400)])


def runs_in_line_order(folder: Path, reason: str) -> None:
    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, MANY)).id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.total) == ("completed", 400, 400)
        assert batch.gristmill and batch.gristmill.plan
        assert reason in (batch.gristmill.plan.failure or "") and batch.gristmill.plan.deduplicated is None
        output = await lines(host, batch.output_file_id)
        assert [line["custom_id"] for line in output] == [f"row-{i}" for i in range(400)]

    tell(folder / "data", story, slots=1, journal=folder / "journal")
    assert [int(text.split()[-1]) for text in asked(folder / "journal")] == list(range(400))


def test_a_reader_that_is_killed_costs_the_order_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    async def dying(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*args, **options)
        process.kill()
        started.append(process)
        return process

    start = asyncio.create_subprocess_exec
    monkeypatch.setattr("asyncio.create_subprocess_exec", dying)
    runs_in_line_order(tmp_path, "ended with exit code -9")
    assert len(started) == 1


DIES_AT_THE_END = """
import os
from gristmill.batches import input_process
input_process._Planning.files = lambda self: os.kill(os.getpid(), 9)
input_process._main()
"""


def test_a_reader_that_is_killed_when_it_has_told_of_rows_costs_the_order_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dying(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        return await start(sys.executable, "-c", DIES_AT_THE_END, **options)

    start = asyncio.create_subprocess_exec
    monkeypatch.setattr("asyncio.create_subprocess_exec", dying)
    runs_in_line_order(tmp_path, "ended with exit code -9")


def test_a_planner_that_finds_no_room_for_its_files_costs_the_order_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scratch").write_text("in the way")
    runs_in_line_order(tmp_path, "There is no folder for planning")


def test_a_planner_with_a_defect_costs_the_order_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    # A small input is planned in this process.
    monkeypatch.setattr("gristmill.batches.input_process._SMALL_BYTES", 2**40)
    monkeypatch.setattr("gristmill.planning.job_plan.RowOrder.add", defect)
    runs_in_line_order(tmp_path, "ZeroDivisionError: a defect")


def test_planning_leaves_nothing_behind_and_stays_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "no such folder"))
    data = tmp_path / "data"
    (data / "scratch" / "plan-of-a-server-that-was-killed").mkdir(parents=True)

    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, MANY)).id)
        assert batch.gristmill and batch.gristmill.plan and batch.gristmill.plan.failure is None
        assert not list((data / "scratch").iterdir())

    tell(data, story)
