"""Logins of browsers: a key given once, for a cookie that is as good as the key until it expires.

The cookie is a random token of which the SHA-256 is stored. Its key is looked up at each use, so that a session ends
with its key.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from typing import NamedTuple

from gristmill.access.caller import Caller
from gristmill.access.keyring import Keyring
from gristmill.access.refusals import too_many_logins, wrong_key
from gristmill.storage.protocol import MetadataStore
from gristmill.storage.records import AuditEntry, LoginSession

COOKIE = "gristmill_session"
#: Two weeks, for who watches a long batch from a phone.
LIFETIME_SECONDS = 14 * 86400
#: Keys that are not right, from one address in so many seconds. The right key is always taken, so that nobody is locked
#: out by others behind the same address; nobody can guess one (``api_key``), so that this only bounds what is logged.
MAX_FAILURES = 10
FAILURE_SECONDS = 60.0
_MAX_ADDRESSES = 1_000


class Login(NamedTuple):
    token: str
    caller: Caller


class Logins:
    def __init__(self, metadata: MetadataStore, keyring: Keyring) -> None:
        self._sessions = metadata.login_sessions
        self._audit = metadata.audit_log
        self._keyring = keyring
        self._failures = FailedLogins()

    async def log_in(self, presented: str, address: str | None) -> Login:
        """Raises ApiError 401 for a key that is not right, 429 after too many of them; StorageError."""
        now = int(time.time())
        caller = await self._keyring.caller(presented)
        if caller is None or caller.key_id is None:
            wait = self._failures.note(address or "", time.monotonic())
            if wait is not None:
                raise too_many_logins(wait)
            await self._audit.add(AuditEntry(now, "login refused", address=address, status=401))
            raise wrong_key(presented)
        token = secrets.token_urlsafe(32)
        await self._sessions.add(LoginSession(_digest(token), caller.key_id, now + LIFETIME_SECONDS))
        await self._audit.add(AuditEntry(now, "login", caller.key_id, address=address, status=200))
        return Login(token, caller)

    async def caller(self, token: str) -> Caller | None:
        """None where the session has ended, or its key was revoked. Raises StorageError."""
        key = await self._sessions.key(_digest(token), int(time.time()))
        return None if key is None else await self._keyring.caller_with(key)

    async def log_out(self, token: str) -> None:
        await self._sessions.delete(_digest(token))


class FailedLogins:
    """Counts them by address, those of the last addresses. Pure but for what it remembers."""

    def __init__(self) -> None:
        #: When the first of a row was, and how many.
        self._rows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, address: str, now: float) -> int | None:
        """One more, at ``now`` in seconds: None, or for how many seconds that address is told nothing but to wait."""
        since, count = self._rows.pop(address, (now, 0))
        if now - since >= FAILURE_SECONDS:
            since, count = now, 0
        self._rows[address] = since, count + 1
        if len(self._rows) > _MAX_ADDRESSES:
            self._rows.popitem(last=False)
        return None if count < MAX_FAILURES else max(1, round(FAILURE_SECONDS - (now - since)))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
