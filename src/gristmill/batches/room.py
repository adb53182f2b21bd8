"""Whether the results of a batch fit on the disk, judged before it runs: by what its rows need at the least, so that
none is refused that could have been answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gristmill.batches.output_lines import shortest_line_bytes
from gristmill.batches.row_allowance import row_allowance
from gristmill.batches.validation import Validation
from gristmill.counted import counted
from gristmill.storage.disk_room import DiskRoom
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, UnfinishedBatch
from gristmill.telemetry.log import get_logger
from gristmill.wire.batch import BatchError

log = get_logger(__name__)

#: Batches looked at besides the one that is about to run.
_OTHERS = 1_000
#: Of an answer's line besides the text, as our own engines write it, and of a token; only for a warning.
_USUAL_LINE_BYTES, _TOKEN_BYTES = 500, 4


class Judgement(NamedTuple):
    """With any ``errors`` the batch does not run; ``warning`` says that it may not fit."""

    errors: list[BatchError]
    warning: str | None = None


class RowsToStore(NamedTuple):
    """Of a batch that runs: all of them, and those without a result."""

    total: int
    left: int


class RoomForResults(NamedTuple):
    """What there is, in bytes: on the disks of the database and of the files, None where those are on no disk of this
    machine, and free inside the database."""

    database: DiskRoom | None
    blobs: DiskRoom | None
    inside: int


class Need(NamedTuple):
    """Bytes that the database and the files will grow by."""

    database: int
    files: int

    def exceeds(self, room: RoomForResults) -> tuple[int, int] | None:
        """What is needed and what is free, where that is less."""
        on_disks: dict[int, tuple[int, int]] = {}
        for disk, need in ((room.database, self.database), (room.blobs, self.files)):
            if disk is not None:
                before, _ = on_disks.get(disk.device, (0, 0))
                on_disks[disk.device] = before + need, disk.free
        return next(((need, free) for need, free in on_disks.values() if need > free), None)


def need_of(batches: Sequence[RowsToStore], line_bytes: int, inside: int) -> Need:
    """Of batches that run at the same time, with lines of ``line_bytes``. A result is in the database until the files
    of its batch are written: batches that end one after another use that space in turn. Their files stay."""
    database = max((rows.left for rows in batches), default=0) * line_bytes
    return Need(max(database - inside, 0), sum(rows.total for rows in batches) * line_bytes)


async def judge(storage: Storage, batch: BatchRecord, validation: Validation) -> Judgement:
    """Whether a batch runs that has been validated."""
    if validation.errors:
        return Judgement(validation.errors)
    # Looked at only now: while its input was read, its key may have enqueued other batches.
    allowance = await row_allowance(storage, batch)
    if (refusal := allowance.refusal(validation.total)) is not None:
        return Judgement([refusal])
    try:
        room = await look(storage)
        others, _ = await storage.metadata.batches.unfinished(_OTHERS)
    except OSError as error:
        log.warning("the room on the disk is not known", reason=str(error))
        return Judgement([])
    rows = [RowsToStore(validation.total, validation.total), *rows_of(others)]
    if (found := need_of(rows, shortest_line_bytes(), room.inside).exceeds(room)) is not None:
        return Judgement([_too_large(*found, others=len(rows) - 1)])
    plan = validation.plan
    tokens = (plan.estimated_output_tokens or 0) if plan is not None else 0
    usual = _USUAL_LINE_BYTES + _TOKEN_BYTES * tokens // max(validation.total, 1)
    if (found := need_of(rows, usual, room.inside).exceeds(room)) is None:
        return Judgement([])
    log.warning("the batch may not fit on the disk", batch=batch.id, may_need_bytes=found[0], free_bytes=found[1])
    return Judgement([], _may_be_too_large(*found, others=len(rows) - 1))


def rows_of(batches: Sequence[UnfinishedBatch]) -> list[RowsToStore]:
    """Of those that have been validated."""
    return [
        RowsToStore(each.total, each.total - each.completed - each.failed)
        for each in batches
        if each.in_progress_at is not None
    ]


async def need_of_unfinished(storage: Storage) -> int:
    """At the least, in bytes, of the disk; for whoever looks at it."""
    batches, _ = await storage.metadata.batches.unfinished(_OTHERS)
    inside = (await storage.metadata.upkeep.sizes()).free
    need = need_of(rows_of(batches), shortest_line_bytes(), inside)
    database = need.database if await storage.metadata.upkeep.disk() is not None else 0
    return database + (need.files if await storage.blobs.room() is not None else 0)


async def look(storage: Storage) -> RoomForResults:
    """Raises OSError."""
    blobs = await storage.blobs.room()
    sizes, database = await storage.metadata.upkeep.sizes(), await storage.metadata.upkeep.disk()
    return RoomForResults(database, blobs, sizes.free)


def _too_large(need: int, free: int, others: int) -> BatchError:
    message = (
        f"The results{_beside(others)} need at least {need:,} bytes, and {free:,} are free on the disk of the data "
        "folder. Free some space, or split the input, and create the batch again."
    )
    return BatchError("insufficient_disk_space", message)


def _may_be_too_large(need: int, free: int, others: int) -> str:
    return (
        f"The results{_beside(others)} may need {need:,} bytes, and {free:,} were free on the disk of the data folder "
        "when the batch began."
    )


def _beside(others: int) -> str:
    return f", beside {counted(others, 'other batch', 'other batches')}," if others else ""
