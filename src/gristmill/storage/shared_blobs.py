"""Whether a server that joins others on their database keeps its files where they do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from gristmill.storage.blob_store import BlobStore
from gristmill.storage.errors import BlobLost
from gristmill.storage.protocol import MetadataStore
from gristmill.storage.records import file_blob
from gristmill.telemetry.log import get_logger
from gristmill.user_error import UserError

log = get_logger(__name__)

#: One that is there is enough.
_LOOKED_AT = 5
_LOOK_SECONDS = 0.5


async def require_shared(metadata: MetadataStore, blobs: BlobStore) -> None:
    """Raises UserError where other servers run and none of their newest files is in ``blobs``: this one would fail
    their batches, whose input it takes for lost. Who is alone may have lost its files, and is to start. One that was
    killed is announced for a while yet: until another is seen to be there, or none can be, this waits."""
    announced = await metadata.servers.announced_until() if metadata.shared else None
    if announced is None or await _shows_any(metadata, blobs):
        return
    until = datetime.fromtimestamp(announced, UTC).isoformat(timespec="seconds")
    log.warning("waits to see whether another server still runs: none of its files is here", at_most_until=until)
    while (latest := await metadata.servers.announced_until()) is not None:
        if latest > announced:
            raise UserError(
                f"None of the files of the servers that run on this database is in {blobs.location}: give --blobs as "
                "they have it."
            )
        announced = latest
        await asyncio.sleep(_LOOK_SECONDS)


async def _shows_any(metadata: MetadataStore, blobs: BlobStore) -> bool:
    """Whether one of the newest files is here, or there is no file yet."""
    newest = await metadata.files.page(after=None, limit=_LOOKED_AT, newest_first=True, purpose=None)
    for record in newest.records:
        try:
            await blobs.size(file_blob(record.id))
            return True
        except BlobLost:
            continue
    return not newest.records
