"""What an access key looks like, and how it is known again. Pure.

A key is ``sk-gristmill-`` (some clients send nothing that does not begin with ``sk-``), a public part by which it is
looked up, and 192 random bits. Nobody can guess that many, in any number of tries, so that a plain SHA-256 keeps the
secret: slow hashes such as argon2 are for passwords, which people choose, and would cost each request a tenth of a
second. Hashes are compared in constant time, so that how long a refusal takes tells nothing about the hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

_PREFIX = "sk-gristmill-"
_ID_PREFIX = "key_"
_FORM = re.compile(rf"{_PREFIX}([0-9a-f]{{12}})-([0-9a-f]{{48}})")
_NO_HASH = bytes(32)


class PresentedKey(NamedTuple):
    key_id: str
    secret: str


def new_key() -> PresentedKey:
    return PresentedKey(_ID_PREFIX + secrets.token_hex(6), secrets.token_hex(24))


def written(key: PresentedKey) -> str:
    """As its holder writes it."""
    return f"{_PREFIX}{key.key_id.removeprefix(_ID_PREFIX)}-{key.secret}"


def read(text: str) -> PresentedKey:
    """Of what is no key, one that nobody has: it goes the way of a wrong one."""
    found = _FORM.fullmatch(text)
    return PresentedKey(_ID_PREFIX + found[1], found[2]) if found else PresentedKey("", text)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def matches(secret: str, expected: bytes | None) -> bool:
    """``expected`` is None where there is no such key; it takes as long."""
    equal = hmac.compare_digest(digest(secret), _NO_HASH if expected is None else expected)
    return equal and expected is not None


def masked(text: str) -> str:
    """As a message may repeat what was sent: enough for its sender to know it, and no secret."""
    return f"{text[:3]}***" if len(text) < 24 else f"{text[:8]}***{text[-4:]}"
