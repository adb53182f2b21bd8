"""The seam of metadata; that of blobs is ``blob_store``. What every backend of both has to hold:

1. A counted result is durable: what a method has returned from survives a kill and a power failure.
2. A row has at most one result, and is counted once.
3. No result means that running the row again is safe: nothing has been counted for it.
4. One runner owns a batch at a time, by a lease that runs out by the store's own clock and that a heartbeat renews;
   who lost it stores nothing. Whatever takes a ``lease`` checks it in the step that stores, and raises LeaseLost.
5. Everything after the last result is a pure function of what is stored: files may be written again, and are the same.
6. The step that ends a batch stores that its end is to be told, once for each ending: ``Deliveries``.

Every method happens whole or not at all. What frees space or changes a batch's status (delete, erase, end, change,
release) works on a full disk, too.

A store is seen in a scope (``seen_by``): what takes the id of a file, an upload or a batch, or lists them, has what is
in the scope and nothing else, by the same steps whether an id is another's or nobody's; what is added is the scope's
own. Idempotency keys are each scope's own. ``tests/storage/metadata_contract.py`` tests a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gristmill.storage.access_protocol import AccessKeys, AuditLog, LoginSessions
from gristmill.storage.blob_store import BlobStore, NewBlobs
from gristmill.storage.deliveries_protocol import Deliveries
from gristmill.storage.files_protocol import BlobWrites, Files, Uploads
from gristmill.storage.records import (
    BatchRecord,
    Changes,
    Claim,
    FileRecord,
    Lease,
    RecordPage,
    RunnerReport,
    ServerRecord,
    Stage,
    UnfinishedBatch,
    UsedKey,
)
from gristmill.storage.row_records import (
    ErrorRow,
    Follower,
    PendingRow,
    Result,
    ResultPlace,
    Row,
    RowFilter,
    SeenRow,
)
from gristmill.storage.scope import Scope
from gristmill.storage.servers_protocol import Servers
from gristmill.storage.upkeep_protocol import Upkeep
from gristmill.wire.prefix_tree import PrefixBox


class IdempotencyKeys(Protocol):
    """What creates something takes a key, too, and stores it in the same step, or raises KeyUsed and stores nothing."""

    async def check(self, used: UsedKey) -> None:
        """Raises KeyUsed."""
        ...

    async def delete_expired(self, now: int) -> int: ...


class Batches(Protocol):
    async def add(
        self, batch: BatchRecord, key: UsedKey | None = None, files: Sequence[FileRecord] = ()
    ) -> BatchRecord:
        """Store a new batch, and ``files`` in the same step; the answer has its ``seq``. If it is a retry, the batch
        that it is a retry of says so from then on. Raises KeyUsed, OverLimit, AlreadyRetried."""
        ...

    async def get(self, batch_id: str) -> BatchRecord | None:
        """None for unknown and deleted batches."""
        ...

    async def prefix_tree(self, batch_id: str) -> list[PrefixBox] | None:
        """None where the batch is not there, has not been planned, or was by an earlier version."""
        ...

    async def page(
        self,
        *,
        after: str | None,
        limit: int,
        before: str | None = None,
        endpoint: str | None = None,
        ended: bool | None = None,
    ) -> RecordPage:
        """Newest first, without their ``defaults``; those next to the cursor, of which there is at most one. With
        ``ended`` only those that have, or have not."""
        ...

    async def unfinished(self, limit: int) -> tuple[list[UnfinishedBatch], dict[str, int]]:
        """The batches that have not ended: at most ``limit`` of them, first those that
        somebody holds, then in the order they are next in line; and how many there are of each status."""
        ...

    async def change(
        self,
        batch_id: str,
        changes: Changes,
        *,
        expected: str,
        lease: Lease | None = None,
        files: Sequence[FileRecord] = (),
    ) -> bool:
        """Apply ``changes`` and add ``files`` in one step, if the status is still ``expected``; else False. Without a
        ``lease`` for whoever may change a batch that another works on. Changes that end the batch add the deliveries of
        its end."""
        ...

    async def delete(self, batch_id: str, files: Sequence[str]) -> bool:
        """Forget a batch that has ended, with what it told, and delete ``files`` in the same step; what it was a retry
        of may be retried anew. False where it has not ended or there is none."""
        ...

    async def enqueued_rows(self, key_id: str, but_batch: str) -> int:
        """Rows without result of the batches of a key that have not ended, but of one."""
        ...

    async def prune(self, ended_before: int) -> int:
        """Forget some of the batches that ended before then, how many: call again for the rest. Never the newest batch,
        whose ``seq`` would be given again, and none that still has rows."""
        ...

    async def claim(
        self, owner: str, now: float, lease_seconds: float, stage: Stage, only_for: ServerRecord | None = None
    ) -> Claim | None:
        """Take the lease on the batch that is next in line at ``stage``; None where nobody is in line there. ``now``,
        in Unix seconds, is what windows end by; leases run out by the store's clock. Never what ``owner`` has a lease
        on, though it has run out: that is to be renewed, or released. ``only_for``: only what this server serves, as
        far as it is known which model a batch asks for."""
        ...

    async def next_in_line(self, now: float, stage: Stage, only_for: ServerRecord | None = None) -> BatchRecord | None:
        """Of the unfinished batches that nobody holds: highest priority first, then the one that was given back
        longest ago (or never held), then the oldest."""
        ...

    async def renew(
        self, owner: str, lease_seconds: float, reports: Mapping[int, RunnerReport] | None = None
    ) -> list[Lease]:
        """Extend every lease of ``owner``, also those that have run out and nobody has claimed; all it holds. Store
        ``reports``, by the ``seq`` of batches, of those that it holds: they are told for as long as the lease lasts."""
        ...

    async def release(self, lease: Lease, pause: float = 0, report: RunnerReport | None = None) -> None:
        """Give the lease back, if it is held; nobody may claim the batch for ``pause`` seconds, and ``report`` is told
        meanwhile."""
        ...

    async def release_all(self) -> None:
        """Void every lease. Only for a process that knows it is alone with this store."""
        ...


class Rows(Protocol):
    async def add(self, lease: Lease, rows: Sequence[Row]) -> None: ...
    async def duplicates(self, batch_seq: int, limit: int) -> list[tuple[int, str]]:
        """Line and custom_id of every row whose custom_id an earlier row has, in line order."""
        ...

    async def clear(self, lease: Lease) -> None:
        """Drop rows and results: validation starts again."""
        ...

    async def clear_ended(self, batch_seq: int) -> None:
        """Drop rows and results of a batch that has ended, whoever owns it: its files are written."""
        ...

    async def leftovers(self) -> list[int]:
        """Ended batches that still have rows: a kill came between their end and ``clear_ended``."""
        ...

    async def arrange(self, lease: Lease, place: int, lines: Sequence[int]) -> None:
        """``lines`` run at the places from ``place`` on, counted from 1. Where no line of a batch has a place, rows run
        in the order of their lines; else every line but the followers needs one. Once only after ``clear``."""
        ...

    async def follow(self, lease: Lease, followers: Sequence[tuple[int, int]]) -> None:
        """Pairs of a line and the one whose answer it gets. Once only after ``clear``."""
        ...

    async def update_statistics(self, lease: Lease) -> None:
        """Much has been added since the last time: what is read from now on is found by what is there now."""
        ...

    async def pending(self, batch_seq: int, after_place: int, limit: int) -> list[PendingRow]:
        """Rows without a result, but no followers, in the order to run in."""
        ...

    async def count_followers(self, batch_seq: int, lines: Sequence[int]) -> dict[int, int]:
        """How many rows get the answer of each of ``lines``, with a result or without; no entry for none."""
        ...

    async def followers(self, batch_seq: int, lines: Sequence[int]) -> dict[int, list[Follower]]:
        """Those without a result, by the line whose answer they get, in line order."""
        ...

    async def commit(self, lease: Lease, results: Sequence[Result]) -> None:
        """Store results and count them, in one step."""
        ...

    async def succeeded(self, batch_seq: int, after_line: int, limit: int) -> list[tuple[int, bytes]]: ...
    async def not_succeeded(self, batch_seq: int, after_line: int, limit: int) -> list[ErrorRow]: ...
    async def seen(
        self, batch_seq: int, wanted: RowFilter, after_line: int, upto_line: int, limit: int
    ) -> list[SeenRow]:
        """In line order; no line behind ``upto_line`` is looked at."""
        ...

    async def last_line(self, batch_seq: int) -> int:
        """The number of the last row's line; 0 where there are no rows."""
        ...

    async def offsets(self, batch_seq: int, lines: Sequence[int]) -> dict[int, int]:
        """Where ``lines`` begin in the input file."""
        ...

    async def place(self, lease: Lease, places: Sequence[ResultPlace]) -> None:
        """Remember these places in the result files, and no others. They outlive the rows, and go with the batch."""
        ...

    async def places(self, batch_seq: int) -> list[ResultPlace]:
        """Those of the output file first, each file's in line order."""
        ...


class MetadataStore(Protocol):
    @property
    def files(self) -> Files: ...
    @property
    def keys(self) -> IdempotencyKeys: ...
    @property
    def blob_writes(self) -> BlobWrites: ...
    @property
    def uploads(self) -> Uploads: ...
    @property
    def batches(self) -> Batches: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def upkeep(self) -> Upkeep: ...
    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def access_keys(self) -> AccessKeys: ...
    @property
    def login_sessions(self) -> LoginSessions: ...
    @property
    def audit_log(self) -> AuditLog: ...
    @property
    def servers(self) -> Servers: ...

    @property
    def shared(self) -> bool:
        """Whether several servers may use the store at the same time."""
        ...

    def seen_by(self, scope: Scope) -> MetadataStore:
        """The same store in another scope."""
        ...

    def listen(self, heard: Callable[[str | None], None]) -> None:
        """From now until ``stop``, call ``heard`` in the event loop with the id of a batch that was added, changed by
        somebody who does not work on it, or given back, on any server; with None where that may have been missed. It
        is a hint only, of what is found by looking, too: any of them may never come."""
        ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Storage(NamedTuple):
    """``server_id``: who uses it here, as owner of leases and of what is being written."""

    metadata: MetadataStore
    blobs: BlobStore
    new_blobs: NewBlobs
    server_id: str

    def seen_by(self, scope: Scope) -> Storage:
        return self._replace(metadata=self.metadata.seen_by(scope))
