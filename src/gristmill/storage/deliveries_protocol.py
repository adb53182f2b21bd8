"""The seam of what is told of batches that have ended, part of that of metadata (``protocol``)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from gristmill.storage.records import Changes, DeliveryRecord, RecordPage


class Deliveries(Protocol):
    """That batches have ended, to be told. ``Batches.change`` adds them: each end has one without a ``webhook``, for
    the server's own, and one for the batch's, where it has one."""

    async def get(self, delivery_id: str) -> DeliveryRecord | None: ...
    async def page(
        self, *, after: str | None, limit: int, status: str | None = None, batch_id: str | None = None
    ) -> RecordPage:
        """Newest first. Raises UnknownCursor."""
        ...

    async def due(
        self,
        now: float,
        longest_pause: float,
        limit: int,
        busy: Collection[str],
        busy_keys: Collection[str],
        under_way: Collection[int],
    ) -> list[DeliveryRecord]:
        """The pending ones to try now, longest due first: none to a target in ``busy``, none of a key in ``busy_keys``
        and none whose ``seq`` is in ``under_way``. One that is due later than ``longest_pause`` seconds from now was
        put off before the clock was set back, and is due."""
        ...

    async def record(self, delivery: DeliveryRecord, changes: Changes) -> bool:
        """What came of an attempt; False where ``delivery`` has changed since it was read: nothing is stored then."""
        ...

    async def send_again(self, delivery_id: str) -> bool:
        """Make it pending and due, as if it were new; False where there is none."""
        ...

    async def drop_unaddressed(self, reason: str) -> int:
        """For a server without a webhook of its own: forget what is pending for one and was never tried, how many; what
        was tried is dead, for ``reason``."""
        ...

    async def delete_ended(self, before: int) -> int:
        """Forget some of what is not pending and was made before then, how many: call again for the rest."""
        ...
