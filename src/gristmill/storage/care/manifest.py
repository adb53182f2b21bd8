"""What a backup consists of. It is whole if its manifest is there, which is written last."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from gristmill.user_error import UserError

NAME = "manifest.json"
FORMAT = 1
#: Of the blobs in a backup, below it: where ``file_blob`` and ``part_blob`` put them.
BLOB_FOLDERS = ("files", "parts")
_BLOB = re.compile(rf"({'|'.join(BLOB_FOLDERS)})/[A-Za-z0-9_-]{{1,128}}")
#: What is made anew for each backup, with the end of its name.
KINDS = {"database": "db", "answers": "db", "scorings": "tar"}
OWN_NAME = re.compile("|".join(rf"{kind}-[0-9a-f]{{16}}\.{end}" for kind, end in KINDS.items()))


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the backup, by its path in it, with its size in bytes and its SHA-256 in hexadecimal."""

    path: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``made_at`` is when the database was copied, in Unix seconds; ``version`` is Gristmill's. ``damaged`` are
    blobs that the database names and that were gone, or not as long as it says. ``scorings`` is a tar file of the
    folders of all of them."""

    version: str
    made_at: int
    database: Entry
    blobs: list[Entry]
    answers: Entry | None = None
    scorings: Entry | None = None
    damaged: list[str] = []
    format: int = FORMAT

    @property
    def entries(self) -> list[Entry]:
        return [*self.made, *self.blobs]

    @property
    def made(self) -> list[Entry]:
        """Everything but the blobs."""
        return [each for each in (self.database, self.answers, self.scorings) if each is not None]


def is_blob_path(path: str) -> bool:
    """Whether it is one of ours, which names nothing outside of the blob store."""
    return _BLOB.fullmatch(path) is not None


def read(content: bytes, of: Path) -> Manifest:
    """Raises UserError for what no backup's manifest says."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{of} is no backup that this version can restore: {NAME} cannot be read ({error}).") from None
    if manifest.format != FORMAT:
        raise UserError(f"{of} was made by a newer version of Gristmill ({manifest.version}): use that one.")
    paths = [entry.path for entry in manifest.entries]
    strange = [entry.path for entry in manifest.made if not OWN_NAME.fullmatch(entry.path)]
    strange += [entry.path for entry in manifest.blobs if not is_blob_path(entry.path)]
    if strange or len(set(paths)) < len(paths):
        raise UserError(f"{of} is damaged or was tampered with: {NAME} names '{(strange or paths)[0][:80]}'.")
    return manifest


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
