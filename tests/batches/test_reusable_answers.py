"""Answers of earlier batches, for rows that ask exactly the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_planned_batches import asked, row
from test_supervisor import add_file, end, lines, tell

from gristmill.batches.host import BatchHost
from gristmill.engines.simulated import SimulatedEngine
from gristmill.storage.answers import AnswerStore
from gristmill.wire.batch import Batch, CreateBatchRequest
from requests_jsonl import CHAT, jsonl


def candidates(*numbers: int, **body: Any) -> list[dict[str, Any]]:
    return [row(number, "Rate.", f"candidate {number}", **({"temperature": 0} | body)) for number in numbers]


async def batch_of(host: BatchHost, rows: list[dict[str, Any]], file: str, reuse: bool = True) -> Batch:
    await add_file(host, jsonl(rows), file)
    created = await host.batches.create(CreateBatchRequest(file, CHAT, "24h", reuse_answers=reuse))
    return await end(host, created.id)


def reused(batch: Batch) -> int:
    assert batch.gristmill is not None
    return batch.gristmill.reused_answers


async def answers(host: BatchHost, batch: Batch) -> dict[str, str]:
    return {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"]
        for line in await lines(host, batch.output_file_id)
    }


def test_only_rows_that_are_new_are_asked(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        first = await batch_of(host, candidates(*range(300)), "file-1")
        second = await batch_of(host, candidates(*range(100, 500)), "file-2")
        assert (reused(first), reused(second)) == (0, 200)
        assert second.request_counts.completed == 400
        one, other = await answers(host, first), await answers(host, second)
        assert [other[f"row-{i}"] for i in range(100, 300)] == [one[f"row-{i}"] for i in range(100, 300)]
        ids = [line["id"] for batch in (first, second) for line in await lines(host, batch.output_file_id)]
        assert len(set(ids)) == 700
        assert first.usage and second.usage
        # Nothing is computed for them, so they count no tokens.
        assert second.usage.input_tokens < first.usage.input_tokens

    tell(tmp_path / "data", story, journal=tmp_path / "journal")
    assert sorted(asked(tmp_path / "journal")) == sorted(f"candidate {i}" for i in range(500))


def test_they_outlast_the_server(tmp_path: Path) -> None:
    async def first(host: BatchHost) -> None:
        await batch_of(host, candidates(*range(10)), "file-1")

    async def second(host: BatchHost) -> None:
        assert reused(await batch_of(host, candidates(*range(10)), "file-2")) == 10

    tell(tmp_path / "data", first)
    tell(tmp_path / "data", second, journal=tmp_path / "journal")
    assert (tmp_path / "journal").read_text() == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"temperature": 0.7}, 0),
        ({"temperature": 0.7, "seed": 3}, 0),
        ({"max_tokens": 3}, 0),
        ({"prompt_cache_key": "other"}, 10),
        ({"metadata": {"run": "2"}}, 10),
    ],
)
def test_what_may_change_an_answer_is_asked_again(tmp_path: Path, change: dict[str, Any], expected: int) -> None:
    async def story(host: BatchHost) -> None:
        await batch_of(host, candidates(*range(10)), "file-1")
        assert reused(await batch_of(host, candidates(*range(10), **change), "file-2")) == expected

    tell(tmp_path / "data", story)


def test_rows_that_may_be_answered_differently_are_never_kept(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        for file in ("file-1", "file-2"):
            assert reused(await batch_of(host, candidates(*range(10), temperature=1), file)) == 0

    tell(tmp_path / "data", story)


def test_other_weights_answer_for_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(host: BatchHost) -> None:
        await batch_of(host, candidates(*range(10)), "file-1")

    async def second(host: BatchHost) -> None:
        assert reused(await batch_of(host, candidates(*range(10)), "file-2")) == 0

    async def other_weights(engine: SimulatedEngine) -> str:
        return "other weights"

    tell(tmp_path / "data", first)
    monkeypatch.setattr(SimulatedEngine, "fingerprint", other_weights)
    tell(tmp_path / "data", second)


def test_only_batches_that_say_so_keep_or_reuse(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        rows = candidates(*range(10))
        assert reused(await batch_of(host, rows, "file-1", reuse=False)) == 0
        assert reused(await batch_of(host, rows, "file-2")) == 0
        assert reused(await batch_of(host, rows, "file-3", reuse=False)) == 0
        assert reused(await batch_of(host, rows, "file-4")) == 10

    tell(tmp_path / "data", story)


def test_failures_are_asked_again(tmp_path: Path) -> None:
    async def failing(host: BatchHost) -> None:
        batch = await batch_of(host, candidates(*range(10)), "file-1")
        assert (batch.request_counts.completed, batch.request_counts.failed) == (9, 1)

    async def mended(host: BatchHost) -> None:
        batch = await batch_of(host, candidates(*range(10)), "file-2")
        assert (batch.request_counts.completed, reused(batch)) == (10, 9)

    tell(tmp_path / "data", failing, fail_on="candidate 7", failure_kind="invalid_request")
    tell(tmp_path / "data", mended)


def test_rows_that_ask_the_same_within_the_batch_all_get_the_earlier_answer(tmp_path: Path) -> None:
    rows = candidates(1, 2) + [row(10 + i, "Rate.", "candidate 1", temperature=0) for i in range(5)]

    async def story(host: BatchHost) -> None:
        first = await batch_of(host, candidates(1), "file-1")
        second = await batch_of(host, rows, "file-2")
        assert (second.request_counts.completed, reused(second)) == (7, 1)
        expected = (await answers(host, first))["row-1"]
        found = await answers(host, second)
        assert {found["row-1"], *(found[f"row-{10 + i}"] for i in range(5))} == {expected}

    tell(tmp_path / "data", story, journal=tmp_path / "journal")
    assert sorted(asked(tmp_path / "journal")) == ["candidate 1", "candidate 2"]


def test_an_engine_that_does_not_tell_its_weights_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def untold(engine: SimulatedEngine) -> None:
        return None

    monkeypatch.setattr(SimulatedEngine, "fingerprint", untold)

    async def story(host: BatchHost) -> None:
        batch = await batch_of(host, candidates(1), "file-1")
        assert batch.status == "failed" and batch.errors
        assert batch.errors.data[0].param == "reuse_answers"
        assert "without reuse_answers" in batch.errors.data[0].message

    tell(tmp_path / "data", story)


async def test_the_store_keeps_the_first_body_and_drops_what_nobody_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AnswerStore(tmp_path / "folder" / "answers.db")
    await store.prune()
    now = 1_000_000_000
    monkeypatch.setattr("time.time", lambda: now)
    await store.add([(b"%d" % i, json.dumps(i).encode()) for i in range(2_000)])
    await store.add([(b"1", b"other")])
    now += 80 * 86400
    assert (await store.find([b"1", b"x", b"2"])) == {b"1": b"1", b"2": b"2"}
    now += 20 * 86400
    await store.prune()
    assert (await store.find([b"%d" % i for i in range(2_000)])) == {b"1": b"1", b"2": b"2"}


@pytest.mark.parametrize("damage", ["text", "folder"])
def test_a_store_that_cannot_be_used_stops_no_batch(tmp_path: Path, damage: str) -> None:
    store = tmp_path / "data" / "answers.db"
    store.parent.mkdir()
    if damage == "text":
        store.write_text("this is no database" * 1_000)
    else:
        store.mkdir()

    async def story(host: BatchHost) -> None:
        batch = await batch_of(host, candidates(*range(300)), "file-1")
        assert (batch.request_counts.completed, batch.request_counts.failed, reused(batch)) == (300, 0, 0)

    tell(tmp_path / "data", story)
