"""What storage raises. Those that a person can mend say how."""

from __future__ import annotations

from gristmill.storage.records import UsedKey


class LeaseLost(Exception):
    """Another runner owns the batch now; what was about to be stored was not."""


class StorageError(Exception):
    """The disk or the database refuses; the message says what to do."""


class DiskFull(StorageError):
    """There is no room for what was to be written."""


class BlobLost(StorageError):
    """Bytes that a record names are gone, or there are fewer than it says. No retry brings them back."""


class Unreachable(StorageError):
    """Nobody answered, or only to say that it is too much now: what waits for it goes on when it is back."""


class NoCredentials(Unreachable):
    """There are none to ask an object store with; what waits for it goes on when there are."""


class OutcomeUnknown(StorageError):
    """It may have been stored, or not: whoever asked for it has to look, and may not simply ask again."""


class WriteGivenUp(StorageError):
    """The server took so long to write the bytes of ``path`` that others took it for dead, and freed them; nothing was
    stored now. What is written anew is whole."""

    def __init__(self, path: str) -> None:
        super().__init__(f"The server hung while it stored {path}, and its bytes were freed: send it again.")


class OverLimit(Exception):
    """An access key has ``used`` what it may hold of ``what`` (as ``KeyLimits`` calls it), and ``more`` is above its
    ``limit``; nothing was stored."""

    def __init__(self, what: str, limit: int, used: int, more: int) -> None:
        super().__init__(what)
        self.what = what
        self.limit = limit
        self.used = used
        self.more = more


class NameTaken(Exception):
    """An access key that is not revoked has this name."""


class UnknownCursor(Exception):
    """``after`` names nothing in the list."""


class AlreadyRetried(Exception):
    """Another batch asks the unanswered rows of that batch again, or it was forgotten; nothing was stored now."""


class KeyUsed(Exception):
    """The idempotency key ``given`` was used in the last 24 hours, as ``first`` says; nothing was stored now."""

    def __init__(self, given: UsedKey, first: UsedKey) -> None:
        super().__init__(given.key)
        self.given = given
        self.first = first
