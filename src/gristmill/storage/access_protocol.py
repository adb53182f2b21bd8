"""The seam of who may call, part of that of metadata (``protocol``): access keys, browsers' sessions, the audit log."""

from __future__ import annotations

from typing import Protocol

from gristmill.storage.records import AccessKey, AuditEntry, LoginSession


class AccessKeys(Protocol):
    async def add(self, key: AccessKey, entry: AuditEntry, *, only_first: bool = False) -> bool:
        """With its entry in the audit log. ``only_first``: False, and nothing is added, where there is or was any key.
        Raises NameTaken."""
        ...

    async def get(self, key_id: str) -> AccessKey | None:
        """Revoked ones, too."""
        ...

    async def all(self) -> list[AccessKey]:
        """Oldest first, with the revoked ones."""
        ...

    async def revoke(self, key_id: str, entry: AuditEntry) -> int:
        """Also the keys that were made for it; how many were not revoked before. Works on a full disk."""
        ...


class LoginSessions(Protocol):
    async def add(self, session: LoginSession) -> None: ...
    async def key(self, token_hash: bytes, now: int) -> AccessKey | None:
        """Of a session that has not expired; the key may be revoked."""
        ...

    async def delete(self, token_hash: bytes) -> None: ...
    async def delete_expired(self, now: int) -> int: ...


class AuditLog(Protocol):
    async def add(self, entry: AuditEntry) -> None: ...
    async def newest(self, limit: int, key_id: str | None = None) -> list[AuditEntry]:
        """Newest first; of one key, or of all and of nobody."""
        ...

    async def delete_old(self, before: int, keep: int) -> int:
        """What was noted ``before`` then, and all but the newest ``keep``; how many entries."""
        ...
