"""Whose objects a view of the store has, and whose those are that it adds."""

from __future__ import annotations

from typing import NamedTuple


class KeyLimits(NamedTuple):
    """What one access key may hold at a time; None: as much as there is."""

    #: Rows of batches that have not ended.
    rows: int | None = None
    #: Of all its files together.
    bytes: int | None = None
    #: Batches that have not ended.
    batches: int | None = None


class Room(NamedTuple):
    """Bytes: how many there may be in a scope, and how many there are."""

    limit: int
    used: int


class Scope(NamedTuple):
    """What is added belongs to the access key ``key_id`` (None: to nobody, as on a server without keys) and has to keep
    within its ``limits``. What belongs to others is not there, but with ``everything``."""

    key_id: str | None = None
    everything: bool = False
    limits: KeyLimits = KeyLimits()

    def has(self, key_id: str | None) -> bool:
        """Whether what belongs to the key ``key_id`` is in it: what ``sql/scoped.py`` says of what is stored."""
        return self.everything or (self.key_id is not None and self.key_id == key_id)


#: Of the server itself, and of everybody where there are no keys.
EVERYTHING = Scope(everything=True)
#: Of whoever has no key: nothing is there.
NOTHING = Scope()
