"""Looking at results: the same rows while a batch runs and after its end, by name, outcome and cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.batches import output_lines
from gristmill.batches.finalization import finalize
from gristmill.batches.results.reader import PlacedRow, ResultsGone, ResultsReader, Wanted
from gristmill.batches.results.row_view import RowView, read_line
from gristmill.batches.results.tally import ResultTallies
from gristmill.inference.answer import Answer
from gristmill.storage.open import OpenStorage, StorageSettings
from gristmill.storage.protocol import Storage
from gristmill.storage.records import (
    BatchRecord,
    FileRecord,
    Stage,
    file_blob,
)
from gristmill.storage.row_records import Result, Row
from gristmill.wire.errors import ApiError

NAMES = ["a", "ab", "a/b", 'a"b', "a\\b", "é", "\U0001f33e", "</script>", "row 1", "b"]
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}


def answer(text: str) -> Answer:
    body = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}], "usage": USAGE}
    return Answer(msgspec.Raw(msgspec.json.encode(body)), 9, 4, 2)


class Batch:
    """A running batch whose rows are named and fare as ``rows`` says: s succeeds, f and g fail, p waits."""

    def __init__(self, storage: Storage, rows: list[tuple[str, str]]) -> None:
        self.storage = storage
        self.rows = rows
        lines = [{"custom_id": name, "body": {"number": n}} for n, (name, _) in enumerate(rows)]
        self.requests = list(map(msgspec.json.encode, lines))
        self.reader = ResultsReader(storage, seconds=60)

    async def begin(self) -> None:
        data = b"\n\n".join(self.requests) + b"\n"

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        await self.storage.blobs.write(file_blob("file-in"), chunks())
        await self.storage.metadata.files.add(FileRecord("file-in", len(data), 1, "in.jsonl", "batch"))
        await self.storage.metadata.batches.add(
            BatchRecord(0, "batch_1", "/v1/chat/completions", "file-in", "24h", "in_progress", 1, 2**40, total=10**6)
        )
        claim = await self.storage.metadata.batches.claim("me", 0, 60, Stage.EXECUTION)
        assert claim is not None
        self.lease = claim.lease
        new, offset = [], 0
        for n, ((name, _), request) in enumerate(zip(self.rows, self.requests, strict=True)):
            new.append(Row(2 * n + 1, name, offset, len(request)))
            offset += len(request) + 2
        await self.storage.metadata.rows.add(claim.lease, new)
        results = [each for n, (name, kind) in enumerate(self.rows) if (each := self.result(2 * n + 1, name, kind))]
        if results:
            await self.storage.metadata.rows.commit(claim.lease, results)

    def result(self, line: int, name: str, kind: str) -> Result | None:
        if kind == "s":
            return output_lines.success("batch_1", line, name, answer(f"answer {line}"))
        if kind == "p":
            return None
        message = f"Row {line} has no 'field{line}'." if kind == "f" else "The model is gone."
        return output_lines.failure("batch_1", line, name, ApiError(400 if kind == "f" else 502, message, code=kind))

    async def record(self) -> BatchRecord:
        found = await self.storage.metadata.batches.get("batch_1")
        assert found is not None
        return found

    async def end(self) -> None:
        assert await finalize(self.storage, await self.record(), self.lease, "expired", 5)

    async def walk(self, wanted: Wanted, limit: int) -> list[PlacedRow]:
        found: list[PlacedRow] = []
        start = None
        while True:
            page = await self.reader.page(await self.record(), wanted, start, limit)
            assert len(page.rows) <= limit
            found += page.rows
            if page.more is None:
                return found
            start = page.more

    def expected(self, wanted: Wanted, ended: bool) -> set[int]:
        """Lines."""
        found = set()
        for n, (name, kind) in enumerate(self.rows):
            outcome = {"s": "succeeded", "p": "failed" if ended else "waiting"}.get(kind, "failed")
            named = wanted.custom_id is None or name == wanted.custom_id
            named = named or (wanted.prefix and name.startswith(wanted.custom_id or ""))
            if named and wanted.outcome in (None, outcome):
                found.add(2 * n + 1)
        return found


def tell(folder: Path, rows: list[tuple[str, str]], story: Callable[[Batch], Awaitable[None]]) -> None:
    async def main() -> None:
        opened = OpenStorage(StorageSettings(folder))
        told = Batch(await opened.start(), rows)
        try:
            await told.begin()
            await story(told)
        finally:
            await opened.stop()

    asyncio.run(main())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from("sfgp")), max_size=25),
    st.sampled_from([None, *NAMES, "nobody"]), st.booleans(),
    st.sampled_from([None, "succeeded", "failed", "waiting"]), st.integers(1, 7),
)  # fmt: skip
def test_the_same_rows_are_found_while_the_batch_runs_and_when_it_has_ended(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], name: str | None, prefix: bool,
    outcome: str | None, limit: int,
) -> None:  # fmt: skip
    wanted = Wanted(name, prefix, outcome)  # type: ignore[arg-type]

    async def story(batch: Batch) -> None:
        for ended in (False, True):
            if ended:
                await batch.end()
            found = await batch.walk(wanted, limit)
            lines = [row.view.line for row in found]
            assert len(lines) == len(set(lines))
            assert set(lines) == batch.expected(wanted, ended)
            record = await batch.record()
            for place, view in found:
                assert view.line is not None and view.custom_id == rows[view.line // 2][0]
                assert await batch.reader.row(record, place) == view
                assert await batch.reader.request(record, view.line) == batch.requests[view.line // 2]

    tell(tmp_path_factory.mktemp("data"), rows, story)


def test_a_batch_that_ends_between_two_pages_goes_on_where_the_first_stopped(tmp_path: Path):
    rows = [(f"r{n}", "ssf"[n % 3]) for n in range(40)]

    async def story(batch: Batch) -> None:
        first = await batch.reader.page(await batch.record(), Wanted(), None, 15)
        stale = await batch.record()
        await batch.end()
        # Also for whoever has looked at the batch before its end.
        for record in (stale, await batch.record()):
            rest = await batch.reader.page(record, Wanted(), first.more, 100)
            lines = [row.view.line for row in (*first.rows, *rest.rows)]
            assert sorted(lines) == [2 * n + 1 for n in range(40)]  # type: ignore[type-var]

    tell(tmp_path, rows, story)


def test_a_row_says_what_was_answered_and_what_it_took(tmp_path: Path) -> None:
    async def story(batch: Batch) -> None:
        for end in (False, True):
            if end:
                await batch.end()
            record = await batch.record()
            row = await batch.reader.row(record, "l1")
            assert row is not None and (row.answer, row.outcome) == ("answer 1", "succeeded")
            assert row.tokens == (9, 4, 2)
            failed = await batch.reader.row(record, "l3")
            assert failed is not None and failed.error == (400, "f", "Row 3 has no 'field3'.")
            waits = await batch.reader.row(record, "l5")
            assert waits is not None and waits.outcome == ("never ran" if end else "waiting")
            for nothing in ("l2", "l999", "l0"):
                assert await batch.reader.row(record, nothing) is None

    tell(tmp_path, [("a", "s"), ("b", "f"), ("c", "p")], story)


def test_failures_are_grouped_by_cause_and_found_by_it(tmp_path: Path) -> None:
    rows = [(f"r{n}", "sffgp"[n % 5]) for n in range(50)]

    async def story(batch: Batch) -> None:
        tallies = ResultTallies()
        for end in (False, True):
            if end:
                await batch.end()
            record = await batch.record()
            tally = await tallies.causes(batch.reader, record, 60)
            counts = {each.cause.title: each.count for each in tally.causes.values()}
            expected = {"Row … has no '…'.": 20, "The model is gone.": 10}
            if end:
                expected[output_lines.EXPIRED.message] = 10
            assert tally.whole and counts == expected
            for each in tally.causes.values():
                assert len(await batch.walk(Wanted(cause=each.cause.key), 3)) == each.count
                assert 0 < len(each.examples) <= 3

    tell(tmp_path, rows, story)


def test_a_count_that_takes_long_goes_on_at_the_next_look_and_counts_each_row_once(tmp_path: Path) -> None:
    async def story(batch: Batch) -> None:
        await batch.end()
        record, tallies, looks = await batch.record(), ResultTallies(), 0
        whole = False
        while not whole:
            tally = await tallies.causes(batch.reader, record, 0)
            looks, whole = looks + 1, tally.whole
        assert tally.counted == sum(each.count for each in tally.causes.values()) == 2_500
        assert looks > 1
        assert await tallies.causes(batch.reader, record, 0) is tally

    tell(tmp_path, [(f"r{n}", "f") for n in range(2_500)], story)


def test_a_search_that_runs_out_of_time_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async def story(batch: Batch) -> None:
        batch.reader = ResultsReader(batch.storage, seconds=0)
        wanted = Wanted("r59999")
        page = await batch.reader.page(await batch.record(), wanted, None, 10)
        assert page.rows == [] and page.searched is not None and 0 < page.searched < 1
        assert [row.view.custom_id for row in await batch.walk(wanted, 10)] == ["r59999"]

    tell(tmp_path, [(f"r{n}", "p") for n in range(60_000)], story)


def test_what_is_gone_is_said_and_no_place_is_believed(tmp_path: Path) -> None:
    async def story(batch: Batch) -> None:
        await batch.end()
        record = await batch.record()
        assert record.output_file_id is not None
        for nonsense in ("", "x1", "l", "l-1", "o1e9", "l" + "9" * 40):
            with pytest.raises(ValueError, match="no place"):
                await batch.reader.row(record, nonsense)
        await batch.storage.metadata.files.delete("file-in")
        await batch.storage.blobs.delete(file_blob("file-in"))
        assert await batch.reader.request(record, 1) is None
        await batch.storage.blobs.delete(file_blob(record.output_file_id))
        with pytest.raises(ResultsGone):
            await batch.walk(Wanted(), 10)
        await batch.storage.metadata.files.delete(record.output_file_id)
        with pytest.raises(ResultsGone, match="deleted, or has expired"):
            await batch.walk(Wanted(), 10)

    tell(tmp_path, [("a", "s")], story)


def test_a_hostile_answer_is_only_a_text() -> None:
    for line in (b"", b"{}", b"[]", b"null", b'{"custom_id":5,"response":[]}', b'{"response":{"status_code":"200"}}'):
        assert isinstance(read_line(line), RowView)
    body = b'{"choices":[{"message":{"content":["x"],"tool_calls":7}},4],"usage":[1],"scores":[["a"]]}'
    view = read_line(b'{"custom_id":"<b>","response":{"status_code":200,"body":' + body + b"}}")
    assert (view.custom_id, view.outcome, view.probabilities, view.tokens) == ("<b>", "succeeded", None, (None,) * 3)
