"""The contract of a metadata store: what every backend has to hold, whatever database it stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from gristmill.storage.errors import (
    AlreadyRetried,
    KeyUsed,
    LeaseLost,
    NameTaken,
    OverLimit,
    UnknownCursor,
    WriteGivenUp,
)
from gristmill.storage.protocol import MetadataStore
from gristmill.storage.records import (
    AccessKey,
    AuditEntry,
    BatchRecord,
    BlobWrite,
    DeliveryRecord,
    FileRecord,
    Lease,
    LoginSession,
    PartRecord,
    RunnerReport,
    ServerRecord,
    Stage,
    UploadRecord,
    UsedKey,
    WebhookRecord,
)
from gristmill.storage.row_records import (
    Result,
    ResultPlace,
    Row,
    RowFilter,
    RowOutcome,
    SeenRow,
)
from gristmill.storage.scope import NOTHING, KeyLimits, Scope
from gristmill.wire.batch import BatchPlan, BatchProgress
from gristmill.wire.prefix_tree import PrefixBox

LEASE = 60.0
#: Seconds of a lease that has run out when it is given.
OVER = -1.0
Story = Callable[[MetadataStore], Awaitable[None]]
#: Each example opens a store of its own; the tests are inherited.
_CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]


def batch(name: str = "batch_1", **fields: object) -> BatchRecord:
    given = {
        "seq": 0, "id": name, "endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h",
        "status": "in_progress", "created_at": 1, "expires_at": 2**40, "total": 10,
    }  # fmt: skip
    return BatchRecord(**(given | fields))  # type: ignore[arg-type]


def file(name: str, **fields: object) -> FileRecord:
    given = {"id": name, "bytes": 1, "created_at": 1, "filename": "a.jsonl", "purpose": "batch"}
    return FileRecord(**(given | fields))  # type: ignore[arg-type]


def access_key(name: str, role: str = "user", **fields: object) -> AccessKey:
    given = {"id": f"key_{name}", "name": name, "role": role, "secret_hash": b"hash", "created_at": 1}
    return AccessKey(**(given | fields))  # type: ignore[arg-type]


def server(name: str, started_at: float = 1, **fields: object) -> ServerRecord:
    given = {
        "id": name, "name": "machine", "version": "1", "engine": "simulated", "models": ["a"],
        "endpoints": ["/v1/chat/completions"], "started_at": started_at,
    }  # fmt: skip
    return ServerRecord(**(given | fields))  # type: ignore[arg-type]


def upload(name: str) -> UploadRecord:
    return UploadRecord(name, 5, 1, 3601, "a.jsonl", "batch", "pending")


def rows(count: int) -> list[Row]:
    return [Row(line, f"row-{line}", 100 * line, 99) for line in range(1, count + 1)]


async def owned_batch(
    store: MetadataStore, count: int = 10, owner: str = "me", name: str = "batch_1", priority: int = 0
) -> Lease:
    await store.batches.add(batch(name, priority=priority))
    lease = await claimed(store, owner)
    await store.rows.add(lease, rows(count))
    return lease


async def claimed(store: MetadataStore, owner: str, seconds: float = LEASE) -> Lease:
    claim = await store.batches.claim(owner, 0, seconds, Stage.EXECUTION)
    assert claim is not None
    return claim.lease


async def free_for(store: MetadataStore, owner: str) -> bool:
    """Whether ``owner`` could claim a batch now; if so, it has, for no time at all."""
    return await store.batches.claim(owner, 0, OVER, Stage.EXECUTION) is not None


async def everything(store: MetadataStore, seq: int) -> list[object]:
    """What is stored of the only batch."""
    files = await store.files.page(after=None, limit=100, newest_first=True, purpose=None)
    lines = list(range(1, 100))
    return [
        await store.batches.get("batch_1"), await store.rows.pending(seq, 0, 100), files.records,
        await store.rows.succeeded(seq, 0, 100), await store.rows.followers(seq, lines),
    ]  # fmt: skip


async def deliveries(store: MetadataStore, **of: str) -> list[DeliveryRecord]:
    return (await store.deliveries.page(after=None, limit=100, **of)).records


async def ended_batch(
    store: MetadataStore, name: str, webhook: WebhookRecord | None, at: int = 9, key: str | None = None
) -> None:
    await store.batches.add(batch(name, webhook=webhook, key_id=key))
    assert await store.batches.change(name, {"status": "completed", "completed_at": at}, expected="in_progress")


async def counts(store: MetadataStore) -> tuple[int, int]:
    record = await store.batches.get("batch_1")
    assert record is not None
    return record.completed, record.failed


ids = st.text(max_size=3) | st.sampled_from(["a", "A", "a ", "a\0", "a\0b", "é", "e\u0301", "\U0001f33e", "1", "01"])


class MetadataContract:
    """Subclass it with ``open``, and a backend is tested."""

    #: What a second record of the same id raises.
    duplicate_error: type[Exception] = IntegrityError

    def open(self, folder: Path) -> MetadataStore:
        """A store that has not been started. The same ``folder``, an empty one at first, means the same store again."""
        raise NotImplementedError

    def tell(self, folder: Path, story: Story) -> None:
        async def main() -> None:
            store = self.open(folder)
            await store.start()
            try:
                await story(store)
            finally:
                await store.stop()

        asyncio.run(main())

    def test_a_row_with_a_result_is_no_longer_pending_and_is_counted(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store)
            seq = lease.batch_seq
            await store.rows.commit(lease, [Result(2, True, b"two", 10, 4, 3), Result(5, False, b"five")])
            assert [row.line for _, row in await store.rows.pending(seq, 0, 100)] == [1, 3, 4, 6, 7, 8, 9, 10]
            assert await counts(store) == (1, 1)
            record = await store.batches.get("batch_1")
            assert record and (record.input_tokens, record.cached_tokens, record.output_tokens) == (10, 4, 3)
            assert await store.rows.succeeded(seq, 0, 10) == [(2, b"two")]
            assert (await store.rows.not_succeeded(seq, 4, 1))[0] == (5, "row-5", b"five")

        self.tell(tmp_path, story)

    def test_what_is_stored_is_there_when_the_database_is_opened_again(self, tmp_path: Path) -> None:
        async def write(store: MetadataStore) -> None:
            lease = await owned_batch(store)
            await store.rows.commit(lease, [Result(1, True, b"one")])

        async def read(store: MetadataStore) -> None:
            record = await store.batches.get("batch_1")
            assert record is not None and record.completed == 1
            assert await store.rows.succeeded(record.seq, 0, 10) == [(1, b"one")]

        self.tell(tmp_path, write)
        self.tell(tmp_path, read)

    def test_rows_are_pending_in_the_order_they_were_arranged_in_until_they_are_cleared(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store, 6)
            seq = lease.batch_seq
            await store.rows.arrange(lease, 1, [5, 1])
            await store.rows.arrange(lease, 3, [6, 3])
            await store.rows.follow(lease, [(2, 1), (4, 1)])
            assert [(place, row.line) for place, row in await store.rows.pending(seq, 0, 3)] == [(1, 5), (2, 1), (3, 6)]
            await store.rows.commit(lease, [Result(5, True, b"five")])
            assert [row.line for _, row in await store.rows.pending(seq, 0, 10)] == [1, 6, 3]
            assert [row.line for _, row in await store.rows.pending(seq, 3, 10)] == [3]
            assert await store.rows.followers(seq, [1, 5]) == {1: [(2, "row-2"), (4, "row-4")]}
            await store.rows.commit(lease, [Result(2, True, b"two")])
            assert await store.rows.followers(seq, [1, 5]) == {1: [(4, "row-4")]}
            assert await store.rows.count_followers(seq, [1, 5]) == {1: 2}
            await store.rows.clear(lease)
            await store.rows.add(lease, rows(3))
            assert [(place, row.line) for place, row in await store.rows.pending(seq, 0, 9)] == [(1, 1), (2, 2), (3, 3)]

        self.tell(tmp_path, story)

    def test_rows_whose_adding_was_given_up_are_cleared_as_well(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store, 0)
            seq = lease.batch_seq
            adding = asyncio.create_task(store.rows.add(lease, rows(20_000)))
            # What has been begun may go on, wherever it is done.
            await asyncio.sleep(0.02)
            adding.cancel()
            await store.rows.clear(lease)
            assert await store.rows.pending(seq, 0, 1) == []
            await store.rows.add(lease, rows(3))

        self.tell(tmp_path, story)

    def test_a_clock_that_is_set_back_keeps_a_batch_from_nobody_for_long(self, tmp_path: Path) -> None:
        hour = 3_600.0

        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store)
            await store.batches.release(lease, pause=hour)
            lease = await claimed(store, "me")
            assert not await free_for(store, "other")
            # As it is for all when the clock is set back by an hour.
            assert await store.batches.renew("me", hour) == [lease]
            assert await free_for(store, "other")

        self.tell(tmp_path, story)

    def test_followers_are_never_pending_also_in_the_order_of_the_lines(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store, 4)
            seq = lease.batch_seq
            await store.rows.follow(lease, [(3, 1)])
            assert [(place, row.line) for place, row in await store.rows.pending(seq, 0, 9)] == [(1, 1), (2, 2), (4, 4)]
            assert [row.line for row in await store.rows.not_succeeded(seq, 0, 9)] == [1, 2, 3, 4]

        self.tell(tmp_path, story)

    def test_a_row_has_at_most_one_result_and_a_second_one_changes_nothing(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store)
            seq = lease.batch_seq
            await store.rows.commit(lease, [Result(1, True, b"first")])
            with pytest.raises(self.duplicate_error):
                await store.rows.commit(lease, [Result(2, True, b"new"), Result(1, True, b"second")])
            assert await store.rows.succeeded(seq, 0, 10) == [(1, b"first")]
            assert await counts(store) == (1, 0)

        self.tell(tmp_path, story)

    @pytest.mark.parametrize("again", [False, True])
    def test_whoever_lost_the_lease_stores_nothing(self, tmp_path: Path, again: bool) -> None:
        """Also who has claimed the batch ``again`` stores nothing by the lease that was lost."""

        async def story(store: MetadataStore) -> None:
            lost = await owned_batch(store)
            await store.batches.renew("me", OVER)
            lease = await claimed(store, "other")
            if again:
                await store.batches.release(lease)
                lease = await claimed(store, "me")
            ending = {"status": "completed", "output_file_id": "file-out"}
            seq = lease.batch_seq
            for attempt in (
                lambda lease: store.rows.commit(lease, [Result(1, True, b"one")]),
                lambda lease: store.rows.add(lease, [Row(11, "row-11", 0, 0)]),
                lambda lease: store.rows.arrange(lease, 1, list(range(11, 0, -1))),
                lambda lease: store.rows.follow(lease, [(2, 1)]),
                lambda lease: store.batches.change(
                    "batch_1", ending, expected="in_progress", lease=lease, files=[file("file-out")]
                ),
                lambda lease: store.rows.clear(lease),
            ):
                before = await everything(store, seq)
                with pytest.raises(LeaseLost):
                    await attempt(lost)
                assert await everything(store, seq) == before
                await attempt(lease)
                assert await everything(store, seq) != before

        self.tell(tmp_path, story)

    def test_a_batch_is_claimed_by_one_of_many_who_try_at_once(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for number in range(3):
                await store.batches.add(batch(f"batch_{number}"))
            claims = await asyncio.gather(
                *(store.batches.claim(f"owner-{n}", 0, LEASE, Stage.EXECUTION) for n in range(10))
            )
            assert sorted(claim.batch.id for claim in claims if claim) == ["batch_0", "batch_1", "batch_2"]

        self.tell(tmp_path, story)

    def test_a_lease_is_free_again_when_it_runs_out_is_released_or_voided(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            await store.batches.add(batch())
            first = await claimed(store, "a")
            assert not await free_for(store, "b")
            assert await store.batches.renew("a", OVER) == [first]
            # Run out, but nobody has claimed it: its owner keeps it, and does not claim it anew.
            assert not await free_for(store, "a")
            assert await store.batches.renew("a", LEASE) == [first]
            assert not await free_for(store, "b")
            await store.batches.renew("a", OVER)
            second = await claimed(store, "b")
            assert second == (first.batch_seq, "b", first.generation + 1)
            assert await store.batches.renew("a", LEASE) == []
            await store.batches.release(first)  # Not its own any more.
            assert not await free_for(store, "c")
            await store.batches.release(second, pause=LEASE)
            assert not await free_for(store, "c")
            await store.batches.release_all()
            third = await claimed(store, "b")
            await store.batches.release(second)  # Its own, but an earlier one.
            assert not await free_for(store, "c")
            await store.batches.release(third)
            assert await free_for(store, "c")

        self.tell(tmp_path, story)

    def test_a_server_claims_only_what_it_serves_and_what_nobody_knows_yet(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            me = server("me", models=["a", "b"])
            for name, fields in {
                "other_model": {"model": "c"}, "other_endpoint": {"model": "a", "endpoint": "/v1/embeddings"},
                "mine": {"model": "b"}, "unknown": {"model": None},
            }.items():  # fmt: skip
                await store.batches.add(batch(name, **fields))
            following = await store.batches.next_in_line(0, Stage.EXECUTION, me)
            assert following is not None and following.id == "mine"
            claimed_now = []
            while (claim := await store.batches.claim("me", 0, LEASE, Stage.EXECUTION, me)) is not None:
                claimed_now.append(claim.batch.id)
            assert claimed_now == ["mine", "unknown"]
            nothing = server("me", models=[], endpoints=[])
            assert await store.batches.next_in_line(0, Stage.EXECUTION, nothing) is None
            await store.batches.change("other_model", {"status": "cancelling"}, expected="in_progress")
            # Whose engine it is does not matter for files.
            ending = await store.batches.claim("me", 0, LEASE, Stage.ENDING, nothing)
            assert ending is not None and ending.batch.id == "other_model"

        self.tell(tmp_path, story)

    def test_what_a_runner_tells_is_told_for_as_long_as_its_lease_lasts(self, tmp_path: Path) -> None:
        async def told(store: MetadataStore) -> RunnerReport | None:
            record = await store.batches.get("batch_1")
            (unfinished,), _ = await store.batches.unfinished(9)
            (listed,) = (await store.batches.page(after=None, limit=9)).records
            assert record is not None and record.report == unfinished.report == listed.report
            return record.report

        async def story(store: MetadataStore) -> None:
            await store.batches.add(batch())
            assert await told(store) is None
            lease = await claimed(store, "me")
            seq = lease.batch_seq
            assert await told(store) == RunnerReport()
            report = RunnerReport(BatchProgress(rows_per_second=2.5, waiting_for="a cup"), 12.5)
            await store.batches.renew("me", LEASE, {seq: report, seq + 1: report})
            assert await told(store) == report
            # What a server tells that has lost the batch, or that nobody has heard of for so long, is not told.
            await store.batches.renew("other", LEASE, {seq: RunnerReport()})
            assert await told(store) == report
            await store.batches.renew("me", OVER)
            assert await told(store) is None
            await store.batches.renew("me", LEASE)
            assert await told(store) == report
            await store.batches.release(lease, LEASE, RunnerReport(BatchProgress(waiting_for="a disk")))
            assert (await told(store)) == RunnerReport(BatchProgress(waiting_for="a disk"))
            await store.batches.release_all()
            assert await told(store) is None

        self.tell(tmp_path, story)

    def test_a_server_is_there_until_its_announcement_runs_out_or_it_leaves(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            assert await store.servers.alive() == [] and await store.servers.announced_until() is None
            first, second = server("first", 1), server("second", 2, models=["a", "b"])
            await store.servers.announce(second, LEASE)
            await store.servers.announce(first, LEASE)
            assert await store.servers.alive() == [first, second]
            # With what it tells the second time.
            first = server("first", 1, models=["c"])
            before = await store.servers.announced_until()
            await store.servers.announce(first, LEASE)
            assert before is not None and (await store.servers.announced_until() or 0) > before
            assert await store.servers.alive() == [first, second]
            await store.servers.announce(second, OVER)
            assert await store.servers.alive() == [first]
            # As it is for all when the clock is set back by an hour.
            await store.servers.announce(second, 3600)
            assert await store.servers.alive() == [first]
            await store.servers.announce(second, LEASE)
            await store.servers.leave("first")
            await store.servers.leave("nobody")
            assert await store.servers.alive() == [second]
            await store.servers.leave_all()
            assert await store.servers.alive() == []

        self.tell(tmp_path, story)

    def test_what_a_dead_server_was_writing_is_given_up_and_no_record_may_name_it_any_more(
        self, tmp_path: Path
    ) -> None:
        async def story(store: MetadataStore) -> None:
            writes = store.blob_writes
            for name in ("slow", "other"):
                await store.servers.announce(server(name), LEASE)
            for file_id in ("named", "slow", "part"):
                await writes.begin(f"files/{file_id}", "slow")
            await writes.begin("parts/part", "slow")
            await writes.begin("files/mine", "me")
            assert await writes.of_the_dead("me") == []
            await store.servers.announce(server("slow"), OVER)
            await store.files.add(file("named"))
            found = await writes.of_the_dead("me")
            assert sorted(found) == [
                BlobWrite("files/part", "slow", False),
                BlobWrite("files/slow", "slow", False),
                BlobWrite("parts/part", "slow", False),
            ]
            assert not await writes.give_up("files/named", "slow")
            assert not await writes.give_up("files/slow", "other")
            for write in found:
                assert await writes.give_up(write.path, write.owner)
            # Also where a kill comes before its bytes are freed.
            assert sorted(await writes.of_the_dead("me")) == sorted(found)
            for write in found:
                await writes.note_freed(write.path, write.owner)
            assert await writes.of_the_dead("me") == []
            # It was no more than slow, and goes on.
            await store.servers.announce(server("slow"), LEASE)
            await store.uploads.add(upload("upload_1"))
            for attempt in (
                lambda: store.files.add(file("slow")),
                lambda: store.batches.add(batch("batch_9"), files=[file("slow")]),
                lambda: store.uploads.add_part(PartRecord("part", "upload_1", 5, 1)),
                lambda: store.uploads.end("upload_1", "completed", file("slow")),
            ):
                with pytest.raises(WriteGivenUp):
                    await attempt()
            assert await store.files.get("slow") is None and await store.batches.get("batch_9") is None
            assert await store.uploads.parts("upload_1") == []
            # It finds what it has to free, and may write it anew.
            assert await writes.under_way("files/slow", "slow")
            await writes.end("parts/part", "slow")
            await writes.begin("files/slow", "slow")
            await store.files.add(file("slow"))

        self.tell(tmp_path, story)

    @pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
    def test_a_batch_that_has_ended_is_never_claimed(self, tmp_path: Path, status: str) -> None:
        async def story(store: MetadataStore) -> None:
            await store.batches.add(batch(status=status))
            assert await store.batches.claim("me", 0, LEASE, Stage.EXECUTION) is None

        self.tell(tmp_path, story)

    def test_the_oldest_batch_is_claimed_first(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for name in ("batch_z", "batch_a"):
                await store.batches.add(batch(name))
            claim = await store.batches.claim("me", 0, LEASE, Stage.EXECUTION)
            assert claim is not None and claim.batch.id == "batch_z"

        self.tell(tmp_path, story)

    def test_unfinished_batches_are_counted_and_listed_held_ones_first_then_those_next_in_line(
        self, tmp_path: Path
    ) -> None:
        async def story(store: MetadataStore) -> None:
            for name, fields in {
                "batch_held": {}, "batch_low": {"priority": -1}, "batch_new": {"status": "validating"},
                "batch_old": {"status": "completed"}, "batch_high": {"priority": 5, "plan": BatchPlan(2)},
            }.items():  # fmt: skip
                await store.batches.add(batch(name, **fields))
                if name == "batch_held":
                    assert await store.batches.claim("me", 0, LEASE, Stage.EXECUTION)
            listed, by_status = await store.batches.unfinished(10)
            assert [each.id for each in listed] == ["batch_held", "batch_high", "batch_new", "batch_low"]
            assert by_status == {"in_progress": 3, "validating": 1} and listed[1].plan == BatchPlan(2)
            listed, by_status = await store.batches.unfinished(2)
            assert [each.id for each in listed] == ["batch_held", "batch_high"]
            assert by_status == {"in_progress": 3, "validating": 1}

        self.tell(tmp_path, story)

    def test_a_change_happens_with_its_files_or_not_at_all(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            await store.batches.add(batch())
            ended = {"status": "completed", "completed_at": 9, "output_file_id": "file-out"}
            assert not await store.batches.change("batch_1", ended, expected="finalizing", files=[file("file-out")])
            assert await store.files.get("file-out") is None
            await store.files.add(file("file-taken"))
            with pytest.raises(self.duplicate_error):
                await store.batches.change("batch_1", ended, expected="in_progress", files=[file("file-taken")])
            assert (await store.batches.get("batch_1")) == batch(seq=1)
            assert await store.batches.change("batch_1", ended, expected="in_progress", files=[file("file-out")])
            assert await store.files.get("file-out") == file("file-out")

        self.tell(tmp_path, story)

    @settings(max_examples=40, suppress_health_check=_CHECKS, deadline=None)
    @given(st.lists(ids, max_size=40), st.integers(1, 50))
    def test_duplicates_are_all_but_the_first_of_every_custom_id(
        self, tmp_path_factory: pytest.TempPathFactory, names: list[str], limit: int
    ) -> None:
        async def story(store: MetadataStore) -> None:
            for lease in [await owned_batch(store, 0, name=name) for name in ("batch_1", "batch_2")]:
                await store.rows.add(lease, [Row(line, name, 0, 0) for line, name in enumerate(names, start=1)])
            expected = [(line, name) for line, name in enumerate(names, start=1) if name in names[: line - 1]]
            assert await store.rows.duplicates(1, limit) == expected[:limit]

        self.tell(tmp_path_factory.mktemp("db"), story)

    @settings(max_examples=25, suppress_health_check=_CHECKS, deadline=None)
    @given(st.lists(st.sampled_from("spf"), max_size=60), st.integers(1, 20))
    def test_paging_through_the_rows_gives_each_exactly_once_in_order(
        self, tmp_path_factory: pytest.TempPathFactory, outcomes: list[str], limit: int
    ) -> None:
        async def walk(page: Callable[..., Awaitable[list[tuple[int, object]]]], seq: int) -> list[int]:
            lines: list[int] = []
            while found := await page(seq, lines[-1] if lines else 0, limit):
                assert len(found) <= limit
                lines += [each[0] if isinstance(each, tuple) else each for each in found]
            return lines

        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store, len(outcomes))
            seq = lease.batch_seq
            results = [Result(n, kind == "s", b"x") for n, kind in enumerate(outcomes, start=1) if kind != "p"]
            if results:
                await store.rows.commit(lease, results)
            by_kind = {kind: [n for n, each in enumerate(outcomes, start=1) if each == kind] for kind in "spf"}
            assert await walk(store.rows.pending, seq) == by_kind["p"]
            assert await walk(store.rows.succeeded, seq) == by_kind["s"]
            assert await walk(store.rows.not_succeeded, seq) == sorted(by_kind["f"] + by_kind["p"])

        self.tell(tmp_path_factory.mktemp("db"), story)

    @settings(max_examples=25, suppress_health_check=_CHECKS, deadline=None)
    @given(
        st.lists(st.tuples(ids, st.sampled_from("spf")), max_size=30), ids | st.none(), st.booleans(),
        st.sampled_from([None, "succeeded", "failed", "waiting"]), st.integers(0, 10), st.integers(0, 40),
        st.integers(1, 9),
    )  # fmt: skip
    @example([("a\0b", "p"), ("a", "s"), ("é\0", "f")], "a\0", True, None, 0, 40, 9)
    @example([("", "p"), ("a", "p")], "", True, None, 0, 40, 9)
    @example([("éa", "p"), ("e", "s"), ("é", "f")], "é", True, None, 0, 40, 9)
    def test_rows_are_seen_by_name_and_outcome(
        self, tmp_path_factory: pytest.TempPathFactory, given_rows: list[tuple[str, str]], name: str | None,
        prefix: bool, outcome: RowOutcome | None, after: int, upto: int, limit: int,
    ) -> None:  # fmt: skip
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store, 0)
            seq = lease.batch_seq
            await store.rows.add(lease, [Row(n, each, 0, 9) for n, (each, _) in enumerate(given_rows, start=1)])
            kinds = {n: kind for n, (_, kind) in enumerate(given_rows, start=1)}
            results = [Result(n, kind == "s", b"%d" % n) for n, kind in kinds.items() if kind != "p"]
            if results:
                await store.rows.commit(lease, results)
            wanted_kind = {None: "spf", "succeeded": "s", "failed": "f", "waiting": "p"}[outcome]
            expected = [
                SeenRow(
                    Row(n, each, 0, 9),
                    None if kinds[n] == "p" else kinds[n] == "s",
                    None if kinds[n] == "p" else b"%d" % n,
                )
                for n, (each, _) in enumerate(given_rows, start=1)
                if after < n <= upto
                and kinds[n] in wanted_kind
                and (name is None or each == name or (prefix and each.startswith(name)))
            ]
            found = await store.rows.seen(seq, RowFilter(name, prefix, outcome), after, upto, limit)
            assert found == expected[:limit]
            assert await store.rows.last_line(seq) == len(given_rows)

        self.tell(tmp_path_factory.mktemp("db"), story)

    def test_places_in_result_files_outlive_the_rows_and_go_with_the_batch(self, tmp_path: Path) -> None:
        one, other = ResultPlace(False, 2, 0, 200), ResultPlace(True, 7, 900, 700)

        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store)
            seq = lease.batch_seq
            assert await store.rows.offsets(seq, [2, 7, 99]) == {2: 200, 7: 700}
            with pytest.raises(LeaseLost):
                await store.rows.place(lease._replace(owner="you"), [one])
            await store.rows.place(lease, [ResultPlace(True, 1, 0, 100)])
            await store.rows.place(lease, [one, other])
            await store.batches.change("batch_1", {"status": "completed", "completed_at": 5}, expected="in_progress")
            await store.rows.clear_ended(seq)
            assert await store.rows.places(seq) == [other, one]
            second = await owned_batch(store, name="batch_2")
            await store.rows.place(second, [one])
            assert await store.batches.delete("batch_1", [])
            assert await store.rows.places(seq) == []
            await store.batches.change("batch_2", {"status": "completed", "completed_at": 5}, expected="in_progress")
            await store.rows.clear_ended(second.batch_seq)
            await store.batches.add(batch("batch_3"))
            assert await store.batches.prune(6) == 2
            assert await store.rows.places(second.batch_seq) == []

        self.tell(tmp_path, story)

    @pytest.mark.parametrize("again", [True, False])
    def test_clear_drops_the_rows_of_one_batch_only_however_many(self, tmp_path: Path, again: bool) -> None:
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store, 45_000)
            seq = lease.batch_seq
            await store.rows.commit(lease, [Result(n, True, b"x") for n in (1, 20_000, 20_001, 45_000)])
            other = await owned_batch(store, 3, name="batch_2")
            await (store.rows.clear(lease) if again else store.rows.clear_ended(seq))
            assert await store.rows.pending(seq, 0, 10) == [] == await store.rows.succeeded(seq, 0, 10)
            assert [row for _, row in await store.rows.pending(other.batch_seq, 0, 10)] == rows(3)

        self.tell(tmp_path, story)

    def test_rows_of_an_ended_batch_are_found_as_leftovers(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store)
            seq = lease.batch_seq
            assert await store.rows.leftovers() == []
            await store.batches.change("batch_1", {"status": "completed"}, expected="in_progress")
            assert await store.rows.leftovers() == [seq]
            await store.rows.clear_ended(seq)
            assert await store.rows.leftovers() == []

        self.tell(tmp_path, story)

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_pages_of_files_are_complete_and_end(self, tmp_path: Path, newest_first: bool, limit: int) -> None:
        async def story(store: MetadataStore) -> None:
            for number in range(7):
                await store.files.add(file(f"file-{number}", purpose="batch" if number % 2 else "evals"))
            for purpose, wanted in ((None, range(7)), ("batch", (1, 3, 5)), ("none", ())):
                names: list[str] = []
                more = True
                while more:
                    page = await store.files.page(
                        after=names[-1] if names else None, limit=limit, newest_first=newest_first, purpose=purpose
                    )
                    names += [record.id for record in page.records]
                    more = page.has_more
                    assert page.records or not more
                expected = [f"file-{number}" for number in wanted]
                assert names == (expected[::-1] if newest_first else expected)

        self.tell(tmp_path, story)

    def test_pages_of_batches_are_newest_first_and_stable_while_new_ones_come(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for number in range(4):
                await store.batches.add(batch(f"batch_{number}"))
            first = await store.batches.page(after=None, limit=2)
            await store.batches.add(batch("batch_new"))
            second = await store.batches.page(after=first.records[-1].id, limit=2)
            assert [record.id for record in first.records + second.records] == [
                "batch_3",
                "batch_2",
                "batch_1",
                "batch_0",
            ]
            assert first.has_more and not second.has_more

        self.tell(tmp_path, story)

    def test_pages_of_one_endpoint_go_in_both_directions(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for number in range(9):
                await store.batches.add(batch(f"batch_{number}", endpoint="/odd" if number % 2 else "/even"))

            async def page(**where: str) -> tuple[str, bool]:
                found = await store.batches.page(**({"after": None} | where), limit=2, endpoint="/even")
                return "".join(record.id[-1] for record in found.records), found.has_more

            assert await page() == ("86", True)
            assert await page(after="batch_4") == ("20", False)
            assert await page(after="batch_3") == ("20", False)
            assert await page(before="batch_0") == ("42", True)
            assert await page(before="batch_5") == ("86", False)
            assert await page(before="batch_8") == ("", False)

        self.tell(tmp_path, story)

    def test_the_picture_of_what_rows_share_is_kept_until_the_batch_is_deleted(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            boxes = [PrefixBox(1, 0.0, 100.0, 9, 500, 3.5, 4_000, 1), PrefixBox(2, 0.0, 40.5, 4, 700, 0.0, 600, 2)]
            await store.batches.add(batch("batch_1"))
            assert await store.batches.prefix_tree("batch_1") is None
            assert await store.batches.change("batch_1", {"prefix_tree": boxes}, expected="in_progress")
            assert await store.batches.prefix_tree("batch_1") == boxes
            await store.batches.change("batch_1", {"status": "completed"}, expected="in_progress")
            await store.batches.delete("batch_1", [])
            assert await store.batches.prefix_tree("batch_1") is None
            assert await store.batches.prefix_tree("unknown") is None

        self.tell(tmp_path, story)

    def test_pages_of_batches_that_have_ended_or_not(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for number, status in enumerate(("completed", "in_progress", "failed", "validating", "cancelling")):
                await store.batches.add(batch(f"batch_{number}", status=status))

            async def page(ended: bool, after: str | None = None) -> tuple[str, bool]:
                found = await store.batches.page(after=after, limit=2, ended=ended)
                return "".join(record.id[-1] for record in found.records), found.has_more

            assert await page(True) == ("20", False)
            assert await page(False) == ("43", True)
            assert await page(False, after="batch_3") == ("1", False)
            assert await page(True, after="batch_1") == ("0", False)

        self.tell(tmp_path, story)

    def test_a_batch_is_added_with_its_files_or_not_at_all(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            key = UsedKey.of("k", "POST", b"", 1)
            await store.batches.add(batch("batch_1"), key, [file("file-1")])
            assert await store.files.get("file-1") == file("file-1")
            with pytest.raises(KeyUsed):
                await store.batches.add(batch("batch_2"), key, [file("file-2")])
            with pytest.raises(Exception):  # noqa: B017 - whatever the database calls it
                await store.batches.add(batch("batch_1"), None, [file("file-3")])
            assert [await store.files.get(f"file-{n}") for n in (2, 3)] == [None, None]

        self.tell(tmp_path, story)

    def test_a_deleted_batch_is_gone_with_its_files_and_still_a_cursor(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for number in range(3):
                await store.batches.add(batch(f"batch_{number}", metadata={"a": "b"}))
            await store.files.add(file("file-out"))
            assert not await store.batches.delete("batch_1", ["file-out"])
            assert await store.files.get("file-out") is not None
            await store.batches.change("batch_1", {"status": "completed"}, expected="in_progress")
            assert await store.batches.delete("batch_1", ["file-out", "file-none"])
            assert not await store.batches.delete("batch_1", [])
            assert await store.batches.get("batch_1") is None and await store.files.get("file-out") is None
            assert await store.files.garbage() == ["file-out"]
            assert [record.id for record in (await store.batches.page(after=None, limit=5)).records] == [
                "batch_2", "batch_0",
            ]  # fmt: skip
            after = await store.batches.page(after="batch_1", limit=5)
            assert [record.id for record in after.records] == ["batch_0"]

        self.tell(tmp_path, story)

    def test_a_batch_has_one_retry_until_that_is_forgotten(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            async def retried_by(name: str) -> str | None:
                record = await store.batches.get(name)
                assert record is not None
                return record.retried_by

            await store.batches.add(batch("batch_1", status="completed"))
            tries = [
                store.batches.add(batch(f"batch_{n}", retry_of="batch_1"), None, [file(f"file-{n}")]) for n in (2, 3)
            ]
            outcomes = await asyncio.gather(*tries, return_exceptions=True)
            (lost,) = [each for each in outcomes if isinstance(each, BaseException)]
            (won,) = [each for each in outcomes if isinstance(each, BatchRecord)]
            assert isinstance(lost, AlreadyRetried) and await retried_by("batch_1") == won.id
            loser = {"batch_2": "3", "batch_3": "2"}[won.id]
            assert await store.batches.get(f"batch_{loser}") is None and await store.files.get(f"file-{loser}") is None
            with pytest.raises(AlreadyRetried):
                await store.batches.add(batch("batch_4", retry_of="batch_none"))
            await store.batches.change(won.id, {"status": "completed"}, expected="in_progress")
            assert await store.batches.delete(won.id, [])
            assert await retried_by("batch_1") is None
            await store.batches.add(batch("batch_5", retry_of="batch_1", status="failed", failed_at=1))
            await store.batches.add(batch("batch_6"))
            await store.batches.change("batch_1", {"completed_at": 9}, expected="completed")
            assert await store.batches.prune(5) == 1
            # One that was pruned is as good as none.
            await store.batches.add(batch("batch_7", retry_of="batch_1"))
            assert await retried_by("batch_1") == "batch_7"

        self.tell(tmp_path, story)

    def test_a_retry_is_its_batch_owners_also_by_an_admin_and_nobody_elses(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            owner, other = (store.seen_by(Scope(name)) for name in ("key_one", "key_other"))
            admin = store.seen_by(Scope("key_admin", everything=True))
            await owner.batches.add(batch("batch_1", status="completed"))
            retry = batch("batch_2", retry_of="batch_1", key_id="key_one")
            with pytest.raises(AlreadyRetried):
                await other.batches.add(retry, None, [file("file-2", key_id="key_one")])
            await admin.batches.add(retry, None, [file("file-2", key_id="key_one")])
            assert await owner.batches.get("batch_2") is not None and await owner.files.get("file-2") is not None
            assert await other.batches.get("batch_2") is None and await other.files.get("file-2") is None

        self.tell(tmp_path, story)

    def test_an_unknown_cursor_is_an_error_and_a_deleted_file_still_is_one(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for number in range(3):
                await store.files.add(file(f"file-{number}"))
            assert await store.files.delete("file-1")
            page = await store.files.page(after="file-1", limit=5, newest_first=True, purpose=None)
            assert [record.id for record in page.records] == ["file-0"]
            for page_of in (store.batches.page(after="x", limit=1),
                            store.files.page(after="x", limit=1, newest_first=True, purpose=None)):  # fmt: skip
                with pytest.raises(UnknownCursor):
                    await page_of

        self.tell(tmp_path, story)

    def test_a_deleted_file_is_gone_at_once_but_its_bytes_stay_while_a_batch_reads_them(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            await store.files.add(file("file-1"))
            await store.batches.add(batch())
            assert await store.files.delete("file-1")
            assert not await store.files.delete("file-1")
            assert await store.files.get("file-1") is None
            assert await store.files.get_kept("file-1", None) == file("file-1")
            assert await store.files.garbage() == []
            await store.batches.change("batch_1", {"status": "completed"}, expected="in_progress")
            assert await store.files.garbage() == ["file-1"]
            await store.files.mark_erased("file-1")
            assert await store.files.get_kept("file-1", None) is None
            assert await store.files.garbage() == []

        self.tell(tmp_path, story)

    def test_files_expire_when_their_time_has_come(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for name, expires_at in (("old", 10), ("new", 11), ("eternal", None)):
                await store.files.add(file(name, expires_at=expires_at))
            assert await store.files.delete_expired(10) == 1
            page = await store.files.page(after=None, limit=9, newest_first=False, purpose=None)
            assert [record.id for record in page.records] == ["new", "eternal"]

        self.tell(tmp_path, story)

    def test_an_upload_ends_once_and_takes_no_part_afterwards(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            await store.uploads.add(UploadRecord("up", 2, 1, 3601, "a", "batch", "pending"))
            assert await store.uploads.add_part(PartRecord("part_1", "up", 2, 1))
            ends = await asyncio.gather(
                *(store.uploads.end("up", "completed", file(f"file-{number}")) for number in range(5)),
                store.uploads.end("up", "cancelled"),
            )
            assert sum(ends) == 1
            assert not await store.uploads.add_part(PartRecord("part_2", "up", 2, 1))
            page = await store.files.page(after=None, limit=9, newest_first=True, purpose=None)
            upload = await store.uploads.get("up")
            assert upload and len(page.records) == (upload.status == "completed")
            assert await store.uploads.overdue(9_999) == []

        self.tell(tmp_path, story)

    def test_what_a_key_created_is_not_created_again_for_a_day(self, tmp_path: Path) -> None:
        day = 24 * 3600

        async def story(store: MetadataStore) -> None:
            for name, add in {
                "batch": lambda at, key: store.batches.add(batch(f"batch_{at}"), key),
                "file": lambda at, key: store.files.add(file(f"file-{at}"), key),
                "upload": lambda at, key: store.uploads.add(upload(f"upload_{at}"), key),
                "end": lambda at, key: store.uploads.end("upload_10", "completed", file(f"file-of-upload-{at}"), key),
            }.items():
                first = UsedKey(name, b"what was asked", 10, b"what was answered")
                await add(10, first)
                again = UsedKey(name, b"something else", 9 + day, b"not to be answered")
                with pytest.raises(KeyUsed) as used:
                    await add(9 + day, again)
                assert (used.value.given, used.value.first) == (again, first)
                with pytest.raises(KeyUsed):
                    await store.keys.check(again)
            assert await store.batches.get(f"batch_{9 + day}") is None
            assert await store.files.get(f"file-{9 + day}") is None
            assert await store.uploads.get(f"upload_{9 + day}") is None
            later = UsedKey("file", b"something else", 10 + day, b"its answer")
            await store.keys.check(later)
            await store.files.add(file("file-later"), later)
            assert await store.keys.delete_expired(10 + day) == 3
            with pytest.raises(KeyUsed):
                await store.files.add(file("file-even-later"), later)

        self.tell(tmp_path, story)

    def test_of_many_who_use_a_key_at_once_one_creates(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            key = UsedKey("key", b"", 10)
            added = await asyncio.gather(
                *(store.batches.add(batch(f"batch_{n}"), key) for n in range(20)), return_exceptions=True
            )
            assert sum(isinstance(each, KeyUsed) for each in added) == 19
            assert len((await store.batches.page(after=None, limit=100)).records) == 1

        self.tell(tmp_path, story)

    def test_batches_that_ended_long_ago_are_forgotten_but_not_the_newest_and_none_with_rows(
        self, tmp_path: Path
    ) -> None:
        async def story(store: MetadataStore) -> None:
            for name, fields in {
                "completed": {"status": "completed", "completed_at": 9},
                "failed": {"status": "failed", "failed_at": 9},
                "recent": {"status": "completed", "completed_at": 10},
                "running": {"status": "in_progress"},
                "with rows": {},
                "newest": {"status": "expired", "expired_at": 9},
            }.items():
                if name == "with rows":
                    await owned_batch(store, 1, name=name, priority=1)
                    await store.batches.change(name, {"status": "cancelled", "cancelled_at": 9}, expected="in_progress")
                else:
                    await store.batches.add(batch(name, **fields))
            assert await store.batches.prune(10) == 2
            assert await store.batches.prune(10) == 0
            page = await store.batches.page(after=None, limit=10)
            assert [record.id for record in page.records] == ["newest", "with rows", "running", "recent"]
            again = await store.batches.add(batch("again"))
            assert again.seq > page.records[0].seq

        self.tell(tmp_path, story)

    def test_each_end_of_a_batch_is_to_be_told_once(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            webhook = WebhookRecord("https://a.example/hook", "whsec_x", "https://a.example:443")
            assert "whsec" not in repr(batch(webhook=webhook)) + str(webhook)
            for status in ("completed", "failed", "expired", "cancelled"):
                await store.batches.add(batch(status, webhook=webhook if status != "failed" else None))
                change = store.batches.change
                ended = {"status": status, f"{status}_at": 9}
                assert await change(status, {"total": 3}, expected="in_progress")
                assert await change(status, {"status": "cancelling"}, expected="in_progress")
                assert not await change(status, ended, expected="in_progress")
                with pytest.raises(LeaseLost):
                    await change(status, ended, expected="cancelling", lease=Lease(1, "nobody", 1))
                await store.files.add(file(f"file-{status}"))
                with pytest.raises(self.duplicate_error):
                    await change(status, ended, expected="cancelling", files=[file(f"file-{status}")])
                assert await deliveries(store, batch_id=status) == []
                both = await asyncio.gather(*(change(status, ended, expected="cancelling") for _ in range(5)))
                assert sum(both) == 1
                told = await deliveries(store, batch_id=status)
                assert [each.webhook for each in told] == ([None] if status == "failed" else [webhook, None])
                (event_id,) = {each.event_id for each in told}
                for each in told:
                    target = each.webhook.target if each.webhook else ""
                    expected = DeliveryRecord(
                        each.seq, each.id, event_id, f"batch.{status}", status, 9, each.webhook, target
                    )
                    assert each == expected == await store.deliveries.get(each.id)
            assert len({each.id for each in await deliveries(store)}) == 7
            assert len({each.event_id for each in await deliveries(store)}) == 4
            assert await store.deliveries.get("whd_none") is None
            # What is forgotten of a batch is not what is still to be told of it.
            assert await store.batches.delete("completed", [])
            assert [each.webhook for each in await deliveries(store, batch_id="completed")] == [webhook, None]

        self.tell(tmp_path, story)

    def test_deliveries_are_due_by_the_clock_and_not_to_busy_targets(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for name in ("a", "b", "c"):
                await ended_batch(store, name, WebhookRecord(f"https://{name}/", "whsec_x", f"https://{name}:443"))
            told = {each.target: each for each in await deliveries(store) if each.target}
            own = {each.seq for each in await deliveries(store) if not each.target}

            async def due(now: float, busy: list[str] | None = None, limit: int = 9) -> list[str]:
                found = await store.deliveries.due(now, 3_600, limit, ["", *(busy or [])], [], own)
                return [each.batch_id for each in found]

            assert await due(10) == ["a", "b", "c"]
            assert await store.deliveries.record(told["https://a:443"], {"attempts": 1, "due_at": 50_000.5})
            # Whoever read it before knows nothing of it any more.
            assert not await store.deliveries.record(told["https://a:443"], {"status": "dead"})
            assert await due(50_000.4) == ["b", "c"]
            assert await due(50_000.5) == ["b", "c", "a"] and await due(50_000.5, limit=2) == ["b", "c"]
            assert await due(50_000.5, ["https://b:443"]) == ["c", "a"]
            # The clock was set back: nothing is put off for longer than the longest pause.
            assert await due(50_000.5 - 3_601) == ["b", "c", "a"]
            seqs = {each.seq for each in await deliveries(store)}
            assert await store.deliveries.due(10, 9, 9, [], [], seqs - {told["https://b:443"].seq}) == [
                told["https://b:443"]
            ]
            for number, status in enumerate(("delivered", "dead")):
                target = ("https://b:443", "https://c:443")[number]
                assert await store.deliveries.record(told[target], {"status": status, "attempts": 1})
                assert not await store.deliveries.record(told[target], {"status": "dead"})
            assert await due(50_000.5) == ["a"]

        self.tell(tmp_path, story)

    def test_deliveries_of_busy_keys_are_not_due_but_for_the_servers_own_webhook(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for name, key in (("a", "key_1"), ("b", "key_2"), ("c", None)):
                await ended_batch(store, name, WebhookRecord("https://x/", "whsec_x", "https://x:443"), key=key)

            async def due(busy_keys: list[str]) -> list[tuple[str, str | None]]:
                found = await store.deliveries.due(10, 3_600, 9, [], busy_keys, [])
                return sorted((f"{each.batch_id}{each.target and ' own'}", each.key_id) for each in found)

            own = [("a own", "key_1"), ("b own", "key_2"), ("c own", None)]
            of_server = [("a", None), ("b", None), ("c", None)]
            assert await due([]) == sorted(of_server + own)
            assert await due(["key_1", "key_3"]) == sorted(of_server + own[1:])
            assert await due(["key_1", "key_2"]) == sorted(of_server + own[2:])

        self.tell(tmp_path, story)

    def test_what_is_dead_or_delivered_can_be_sent_again_and_is_forgotten_at_last(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for number in range(3):
                await ended_batch(store, f"batch_{number}", None, at=number + 1)
            newest, middle, oldest = await deliveries(store)
            changes = {"attempts": 3, "due_at": 7.0, "first_attempt_at": 5, "last_status": 500, "last_error": "No."}
            assert await store.deliveries.record(newest, changes)
            assert await store.deliveries.record(middle, changes | {"status": "dead"})
            assert await store.deliveries.record(oldest, changes | {"status": "delivered"})
            assert [each.id for each in await deliveries(store, status="dead")] == [middle.id]
            page = await store.deliveries.page(after=newest.id, limit=1)
            assert [each.id for each in page.records] == [middle.id] and page.has_more
            with pytest.raises(UnknownCursor):
                await store.deliveries.page(after="whd_none", limit=1)
            assert await store.deliveries.send_again(middle.id)
            assert not await store.deliveries.send_again("whd_none")
            again = await store.deliveries.get(middle.id)
            assert again is not None and (again.status, again.attempts, again.first_attempt_at) == ("pending", 0, None)
            assert (again.event_id, again.last_error) == (middle.event_id, "No.")
            assert [each.id for each in await store.deliveries.due(0, 9, 9, [], [], [])] == [middle.id]
            assert await store.deliveries.delete_ended(100) == 1
            assert await store.deliveries.delete_ended(100) == 0
            assert [each.id for each in await deliveries(store)] == [newest.id, middle.id]

        self.tell(tmp_path, story)

    def test_what_is_pending_for_a_webhook_that_the_server_does_not_have_is_dropped(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            webhook = WebhookRecord("https://a/", "whsec_x", "https://a:443")
            assert await store.deliveries.drop_unaddressed("none") == 0
            for name in ("a", "b"):
                await ended_batch(store, name, webhook)
            tried = (await deliveries(store, batch_id="a"))[-1]
            assert await store.deliveries.record(tried, {"attempts": 1, "due_at": 9.0})
            assert await store.deliveries.drop_unaddressed("none") == 1
            left = [(each.batch_id, each.target, each.status, each.last_error) for each in await deliveries(store)]
            kept = ("https://a:443", "pending", None)
            assert left == [("b", *kept), ("a", *kept), ("a", "", "dead", "none")]

        self.tell(tmp_path, story)

    def test_what_belongs_to_another_key_is_not_there(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            one, other = (store.seen_by(Scope(name)) for name in ("key_one", "key_other"))
            await one.files.add(file("file-1"))
            webhook = WebhookRecord("https://a/", "whsec_x", "https://a:443")
            await one.batches.add(batch(webhook=webhook), files=[file("file-2")])
            await one.batches.add(batch("batch_2"))
            assert [each.id for each in (await one.batches.unfinished(10))[0]] == ["batch_1", "batch_2"]
            assert await one.batches.change("batch_1", {"status": "completed"}, expected="in_progress")
            # The server's own webhook is only the server's affair.
            told, own = await deliveries(store)
            assert await deliveries(one) == [told] and await one.deliveries.get(own.id) is None
            assert not await one.deliveries.send_again(own.id)
            await one.uploads.add(upload("up"))
            assert await one.uploads.add_part(PartRecord("part", "up", 5, 1))

            for seen in (other, store.seen_by(NOTHING)):
                assert await seen.files.get("file-1") is None and await seen.batches.get("batch_1") is None
                assert await seen.uploads.get("up") is None and await seen.uploads.parts("up") == []
                assert not await seen.files.delete("file-1") and not await seen.batches.delete("batch_1", ["file-2"])
                assert not await seen.uploads.add_part(PartRecord("more", "up", 5, 1))
                assert not await seen.uploads.end("up", "cancelled")
                assert not await seen.batches.change("batch_1", {"priority": 1}, expected="completed")
                files = await seen.files.page(after=None, limit=10, newest_first=True, purpose=None)
                assert files.records == [] and (await seen.batches.page(after=None, limit=10)).records == []
                with pytest.raises(UnknownCursor):
                    await seen.files.page(after="file-1", limit=10, newest_first=True, purpose=None)
                with pytest.raises(UnknownCursor):
                    await seen.batches.page(after="batch_1", limit=10)
                assert await seen.batches.unfinished(10) == ([], {})
                assert (await seen.deliveries.page(after=None, limit=10)).records == []
                assert await seen.deliveries.get(told.id) is None and not await seen.deliveries.send_again(told.id)
            # A batch that has ended takes only its own files with it.
            await other.files.add(file("file-3"))
            assert await one.batches.delete("batch_1", ["file-2", "file-3"])
            assert await one.files.get("file-2") is None and await other.files.get("file-3") is not None

            for seen in (one, store, store.seen_by(Scope("key_admin", everything=True))):
                found = await seen.files.get("file-1"), await seen.uploads.get("up")
                assert [each and each.key_id for each in found] == ["key_one", "key_one"]
            # Whoever puts an upload together, the file is whose the upload is.
            assert await store.seen_by(Scope("key_admin", everything=True)).uploads.end(
                "up", "completed", file("file-4")
            )
            assert await one.files.get("file-4") is not None

        self.tell(tmp_path, story)

    def test_a_batch_reads_the_files_of_its_own_key_an_admins_batch_any(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            entry = AuditEntry(1, "key added")
            await store.access_keys.add(access_key("user"), entry)
            await store.access_keys.add(access_key("admin", "admin"), entry)
            await store.seen_by(Scope("key_user")).files.add(file("file-1"))
            await store.files.add(file("file-2"))
            readers = {reader: [] for reader in ("key_user", "key_admin", "key_none", None)}
            for reader, read in readers.items():
                for name in ("file-1", "file-2"):
                    read.append(await store.files.get_kept(name, reader) is not None)
            assert readers == {
                "key_user": [True, False], "key_admin": [True, True], "key_none": [False, False], None: [True, True],
            }  # fmt: skip

        self.tell(tmp_path, story)

    def test_the_same_idempotency_key_of_two_access_keys_is_two(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            used = UsedKey.of("again", "POST /v1/files", b"body", 1)
            admin = store.seen_by(Scope("key_admin", everything=True))
            for number, seen in enumerate((store, store.seen_by(Scope("key_one")), admin)):
                await seen.files.add(file(f"file-{number}"), used)
                with pytest.raises(KeyUsed):
                    await seen.keys.check(used)

        self.tell(tmp_path, story)

    def test_a_key_holds_what_it_may_and_no_more(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            seen = store.seen_by(Scope("key_one", limits=KeyLimits(bytes=10, batches=1)))
            await seen.files.add(file("file-1", bytes=6))
            await store.seen_by(Scope("key_other")).files.add(file("file-2", bytes=100))
            with pytest.raises(OverLimit) as over:
                await seen.files.add(file("file-3", bytes=5))
            assert (over.value.what, over.value.limit, over.value.used, over.value.more) == ("bytes", 10, 6, 5)
            await seen.uploads.add(upload("up"))
            with pytest.raises(OverLimit):
                await seen.uploads.end("up", "completed", file("file-4", bytes=5))
            assert await seen.files.delete("file-1")
            assert await seen.uploads.end("up", "completed", file("file-4", bytes=5))

            await seen.batches.add(batch(), UsedKey.of("again", "POST", b"", 1))
            with pytest.raises(OverLimit) as over:
                await seen.batches.add(batch("batch_2"), UsedKey.of("another", "POST", b"", 1))
            assert (over.value.what, over.value.limit, over.value.used) == ("batches", 1, 1)
            # Sent again, the first is answered as before, and not refused.
            with pytest.raises(KeyUsed):
                await seen.batches.add(batch("batch_2"), UsedKey.of("again", "POST", b"", 1))
            await store.batches.change("batch_1", {"status": "completed"}, expected="in_progress")
            await seen.batches.add(batch("batch_2"))

        self.tell(tmp_path, story)

    def test_access_keys_are_revoked_with_those_made_for_them(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            keys = store.access_keys
            assert await keys.add(access_key("owner", "admin"), AuditEntry(1, "key added"), only_first=True)
            assert not await keys.add(access_key("late", "admin"), AuditEntry(1, "key added"), only_first=True)
            await keys.add(access_key("wall", "read-only", made_for="key_owner"), AuditEntry(2, "key added"))
            with pytest.raises(NameTaken):
                await keys.add(access_key("wall"), AuditEntry(3, "key added"))
            session = LoginSession(b"token", "key_wall", expires_at=10)
            await store.login_sessions.add(session)
            assert await store.login_sessions.key(b"token", 9) == await keys.get("key_wall")
            assert await store.login_sessions.key(b"token", 10) is None
            assert await store.login_sessions.key(b"other", 9) is None

            assert await keys.revoke("key_owner", AuditEntry(4, "key revoked", target="key_owner")) == 2
            assert await keys.revoke("key_owner", AuditEntry(5, "key revoked", target="key_owner")) == 0
            assert {key.name: key.revoked_at for key in await keys.all()} == {"owner": 4, "wall": 4}
            # There was one once, so that a restart makes no other; its name is free again.
            assert not await keys.add(access_key("late", "admin"), AuditEntry(6, "key added"), only_first=True)
            await keys.add(access_key("wall", id="key_new"), AuditEntry(7, "key added"))
            assert [entry.at for entry in await store.audit_log.newest(10)] == [7, 4, 2, 1]
            assert await store.audit_log.delete_old(4, keep=10) == 2
            assert await store.audit_log.delete_old(4, keep=1) == 1
            assert [entry.at for entry in await store.audit_log.newest(10)] == [7]
            assert [await store.audit_log.delete_old(8, keep=10) for _ in range(2)] == [1, 0]

            await store.login_sessions.delete(b"token")
            assert await store.login_sessions.key(b"token", 9) is None

        self.tell(tmp_path, story)

    def test_all_blobs_that_records_name_are_told_and_what_is_stored_agrees(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store)
            await store.rows.commit(lease, [Result(1, True, b"one")])
            await store.files.add(file("file-a", bytes=7))
            await store.uploads.add(upload("upload_1"))
            await store.uploads.add_part(PartRecord("part_1", "upload_1", 5, 1))
            assert await store.upkeep.named_blobs() == [("files/file-a", 7), ("parts/part_1", 5)]
            assert await store.upkeep.disagreements() == [] == await store.upkeep.integrity()
            assert (await store.upkeep.sizes()).bytes > 0

        self.tell(tmp_path, story)

    def test_files_go_with_the_batches_that_alone_name_them(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            for name in ("in-1", "in-2", "out-1", "out-2", "other"):
                await store.files.add(file(name, bytes=10))
            old = {"status": "completed", "completed_at": 100}
            await store.batches.add(batch("old", input_file_id="in-1", output_file_id="out-1", **old))
            await store.batches.add(batch("shares", input_file_id="in-2", output_file_id="out-2", **old))
            await store.batches.add(batch("runs", input_file_id="in-2"))
            await store.batches.add(batch("newest", status="failed", failed_at=300, input_file_id="in-9"))
            assert await store.upkeep.prunable(100) == (0, 0, 0)
            assert await store.upkeep.prunable(101) == (2, 3, 30)
            assert await store.upkeep.delete_files_of(101) == 3
            assert await store.batches.prune(101) == 2
            files = await store.files.page(after=None, limit=9, newest_first=False, purpose=None)
            assert [each.id for each in files.records] == ["in-2", "other"]
            assert await store.upkeep.bytes_by_purpose() == {"batch": 50}
            for name in await store.files.garbage():
                await store.files.mark_erased(name)
            assert await store.upkeep.bytes_by_purpose() == {"batch": 20}
            assert await store.upkeep.forget_remains(1) == 0
            assert await store.upkeep.forget_remains(2) == 3

        self.tell(tmp_path, story)

    def test_what_no_record_names_and_nobody_writes_is_told(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            await store.files.add(file("file-a"))
            await store.files.add(file("file-b"))
            await store.files.delete("file-b")
            await store.files.add(file("file-c"))
            await store.files.mark_erased("file-c")
            await store.blob_writes.begin("files/file-d", "somebody")
            asked = [f"files/file-{letter}" for letter in "abcde"] + ["parts/file-a"]
            assert await store.upkeep.unnamed(asked) == {"files/file-c", "files/file-e", "parts/file-a"}
            await owned_batch(store)
            (lease,) = await store.upkeep.leases()
            assert lease[:2] == ("batch_1", "me")

        self.tell(tmp_path, story)
