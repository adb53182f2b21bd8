"""The access keys of a server: who a presented one is, new ones, and their end.

A key is looked up at every request, and so is one of a session: one that is revoked, by this process or another, is not
taken any more from then on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from gristmill.access import api_key
from gristmill.access.caller import Caller, Role
from gristmill.storage.errors import NameTaken
from gristmill.storage.protocol import MetadataStore
from gristmill.storage.records import AccessKey, AuditEntry
from gristmill.storage.scope import NOTHING, KeyLimits, Scope
from gristmill.user_error import UserError

#: Of the key that a server makes itself, for its owner.
FIRST_NAME = "admin"
#: The largest number that a database holds.
_LARGEST_LIMIT = 2**63 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


class Keyring:
    def __init__(self, metadata: MetadataStore) -> None:
        self._keys = metadata.access_keys

    async def caller(self, presented: str) -> Caller | None:
        """Whose key it is; None where it is nobody's, or revoked. Raises StorageError."""
        key_id, secret = api_key.read(presented)
        key = await self._keys.get(key_id)
        if not api_key.matches(secret, None if key is None else key.secret_hash) or key is None:
            return None
        return await self.caller_with(key)

    async def caller_with(self, key: AccessKey) -> Caller | None:
        """None where it is revoked."""
        if key.revoked_at is not None:
            return None
        role = Role(key.role)
        return Caller(key.id, role, await self._scope(key, role), key.name)

    async def _scope(self, key: AccessKey, role: Role) -> Scope:
        limits = KeyLimits(key.max_rows, key.max_bytes, key.max_batches)
        match role:
            case Role.ADMIN:
                return Scope(key.id, everything=True, limits=limits)
            case Role.USER:
                return Scope(key.id, limits=limits)
            case Role.READ_ONLY:
                seen = None if key.made_for is None else await self._keys.get(key.made_for)
                if seen is None:
                    return NOTHING
                return Scope(seen.id, everything=seen.role == Role.ADMIN)

    async def add(self, name: str, role: Role, limits: KeyLimits = KeyLimits(), made_for: str | None = None) -> str:  # noqa: B008
        """The new key, as its holder writes it: it is told this once. Raises UserError."""
        if _NAME.fullmatch(name) is None:
            raise UserError(f"'{name}' cannot be the name of a key: use up to 64 letters, digits and . _ - @ +")
        if made_for is not None and role is not Role.READ_ONLY:
            raise UserError("Only a read-only key is made for another: add '--role read-only', or leave out '--for'.")
        if limits != KeyLimits() and role is Role.READ_ONLY:
            raise UserError("A read-only key adds nothing that a limit could be for: leave the limits out.")
        if any(limit is not None and limit > _LARGEST_LIMIT for limit in limits):
            raise UserError(f"More than {_LARGEST_LIMIT:,} is no limit: leave it out.")
        owner = None if made_for is None else (await self.find(made_for)).id
        presented, record = _made(name, role, limits, owner)
        try:
            await self._keys.add(record, _entry("key added", record.id))
        except NameTaken:
            raise UserError(
                f"There is a key named '{name}' already: choose another name, or revoke that one."
            ) from None
        return presented

    async def add_first(self) -> str | None:
        """An admin's key, where there is and was none; else None."""
        presented, record = _made(FIRST_NAME, Role.ADMIN, KeyLimits(), None)
        made = await self._keys.add(record, _entry("first key made", record.id), only_first=True)
        return presented if made else None

    async def all(self) -> Sequence[AccessKey]:
        """Oldest first, with the revoked ones."""
        return await self._keys.all()

    async def count(self) -> int:
        """Of those that are not revoked."""
        return sum(key.revoked_at is None for key in await self._keys.all())

    async def find(self, name: str) -> AccessKey:
        """One that is not revoked, by its name or id. Raises UserError."""
        for key in await self._keys.all():
            if name in (key.id, key.name) and key.revoked_at is None:
                return key
        raise UserError(f"There is no key '{name}': 'gristmill admin key list' shows those there are.")

    async def revoke(self, name: str) -> tuple[AccessKey, int]:
        """By its name or id, with those that were made for it: how many that were. Raises UserError."""
        key = await self.find(name)
        revoked = await self._keys.revoke(key.id, _entry("key revoked", key.id))
        return key, revoked - 1


def _made(name: str, role: Role, limits: KeyLimits, made_for: str | None) -> tuple[str, AccessKey]:
    key = api_key.new_key()
    record = AccessKey(
        id=key.key_id,
        name=name,
        role=role.value,
        secret_hash=api_key.digest(key.secret),
        created_at=int(time.time()),
        made_for=made_for,
        max_rows=limits.rows,
        max_bytes=limits.bytes,
        max_batches=limits.batches,
    )
    return api_key.written(key), record


def _entry(action: str, key_id: str) -> AuditEntry:
    return AuditEntry(int(time.time()), action, target=key_id)
