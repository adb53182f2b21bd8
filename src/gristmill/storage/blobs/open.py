"""Opening the blob store at a location: a folder, or the URL of an object store."""

from __future__ import annotations

from pathlib import Path

from gristmill.storage.blob_store import BlobStore
from gristmill.storage.blobs.local import LocalBlobStore
from gristmill.storage.blobs.objects import SCHEMES, ObjectBlobStore
from gristmill.user_error import UserError


def open_blobs(location: str) -> BlobStore:
    """By ``BlobStore.location``, which says where the bytes are, never a secret. Raises UserError."""
    folder = blob_folder(location)
    return ObjectBlobStore(location) if folder is None else LocalBlobStore(folder)


def blob_folder(location: str) -> Path | None:
    """The folder that ``location`` names; None where it names an object store. Raises UserError."""
    scheme, mark, _ = location.partition("://")
    if not mark:
        return Path(location).absolute()
    if scheme == "file":
        return Path(location.removeprefix("file://")).absolute()
    if scheme in SCHEMES:
        return None
    raise UserError(
        f"The blob store '{scheme}://...' is not supported: --blobs takes a folder, or a URL as s3://BUCKET/PREFIX, "
        "gs://BUCKET/PREFIX or az://CONTAINER/PREFIX."
    )
