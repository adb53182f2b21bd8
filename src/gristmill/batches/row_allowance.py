"""How many rows the key that a batch belongs to may have enqueued."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.access.refusals import enqueued_rows
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord
from gristmill.wire.batch import BatchError


class RowAllowance(NamedTuple):
    """``limit`` None: any number. ``used`` are those of its other batches."""

    limit: int | None
    used: int

    def refusal(self, rows: int) -> BatchError | None:
        """With the code by which clients know that a batch may be sent again once others have ended."""
        if self.limit is None or self.used + rows <= self.limit:
            return None
        return BatchError("token_limit_exceeded", enqueued_rows(self.limit, self.used, rows))


async def row_allowance(storage: Storage, batch: BatchRecord) -> RowAllowance:
    key = None if batch.key_id is None else await storage.metadata.access_keys.get(batch.key_id)
    if key is None or key.max_rows is None:
        return RowAllowance(None, 0)
    return RowAllowance(key.max_rows, await storage.metadata.batches.enqueued_rows(key.id, batch.id))
