"""Whether a server that joins others on their database keeps its files where they do."""

from __future__ import annotations

from gristmill.storage.blob_store import BlobStore
from gristmill.storage.errors import BlobLost
from gristmill.storage.protocol import MetadataStore
from gristmill.storage.records import file_blob
from gristmill.user_error import UserError

#: One that is there is enough.
_LOOKED_AT = 5


async def require_shared(metadata: MetadataStore, blobs: BlobStore) -> None:
    """Raises UserError where other servers run and none of their newest files is in ``blobs``: this one would fail
    their batches, whose input it takes for lost. Who is alone may have lost its files, and is to start."""
    if not metadata.shared or not await metadata.servers.alive():
        return
    newest = await metadata.files.page(after=None, limit=_LOOKED_AT, newest_first=True, purpose=None)
    for record in newest.records:
        try:
            await blobs.size(file_blob(record.id))
            return
        except BlobLost:
            continue
    if newest.records:
        raise UserError(
            f"None of the files of the servers that run on this database is in {blobs.location}: give --blobs as they "
            "have it."
        )
