"""Files and uploads."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

UPLOAD_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
FILE_LIFETIME_SECONDS = (3600, 2_592_000)
MAX_FILENAME = 512

#: What a client names an object by; ours are shorter.
ObjectId = Annotated[str, msgspec.Meta(max_length=128)]


class File(msgspec.Struct):
    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | None = None
    #: Deprecated but required; clients wait for "processed", and our files are ready when the upload returns.
    status: str = "processed"
    status_details: str | None = None
    object: str = "file"


class FileDeleted(msgspec.Struct):
    id: str
    deleted: bool = True
    object: str = "file"


class ExpiresAfter(msgspec.Struct):
    anchor: Literal["created_at"]
    seconds: Annotated[int, msgspec.Meta(ge=FILE_LIFETIME_SECONDS[0], le=FILE_LIFETIME_SECONDS[1])]


class CreateUploadRequest(msgspec.Struct, forbid_unknown_fields=True):
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    filename: Annotated[str, msgspec.Meta(max_length=MAX_FILENAME)]
    mime_type: str
    purpose: str
    expires_after: ExpiresAfter | None = None


class CompleteUploadRequest(msgspec.Struct, forbid_unknown_fields=True):
    part_ids: list[str]
    md5: str | None = None


class Upload(msgspec.Struct):
    id: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: File | None = None
    object: str = "upload"


class UploadPart(msgspec.Struct):
    id: str
    created_at: int
    upload_id: str
    object: str = "upload.part"
