"""Which endpoint of a pool a request goes to. Pure, but for the memory of the last prefixes.

Usually the one with the fewest requests in flight: a prefix that all rows share is soon in every endpoint's cache.
Only where the rows have more prefixes than one endpoint can hold does it pay to send a prefix always to the same one:
then the pool's caches add up, instead of holding the same few prefixes each.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from gristmill.engines.prompt_parts import prompt_parts
from gristmill.engines.protocol import ForwardRequest, Request

#: Of a prompt without leading messages (bytes): enough to tell rubrics apart.
_TEXT_PREFIX = 1024
#: The last requests whose prefixes count as in use.
_RECENT = 1000
#: Bytes a token, a fair average for English.
_TOKEN_BYTES = 4
#: No endpoint gets more than its fair share of what is in flight, times this, for the sake of a prefix.
_LOAD_BOUND = 1.25


class Candidate(NamedTuple):
    """``load``: requests in flight, and as many more as failed in a row."""

    name: str
    load: int


class Holds(NamedTuple):
    """What an endpoint's prefix cache holds; None where the server does not tell."""

    prefixes: int | None = None
    tokens: int | None = None


class Prefix(NamedTuple):
    key: bytes
    size: int  # bytes


def prefix_of(request: Request | ForwardRequest) -> Prefix:
    """What a request is likely to share with others: its messages but for the last."""
    parts = prompt_parts(request)
    data = b"\0".join(parts[:-1]) if len(parts) > 1 else b"".join(parts)[:_TEXT_PREFIX]
    return Prefix(hashlib.blake2b(data, digest_size=16).digest(), len(data))


class RecentPrefixes:
    """The prefixes of the last requests."""

    def __init__(self) -> None:
        self._order: deque[Prefix] = deque()
        self._counts: Counter[Prefix] = Counter()
        self._bytes = 0

    def note(self, prefix: Prefix) -> None:
        self._order.append(prefix)
        self._counts[prefix] += 1
        if self._counts[prefix] == 1:
            self._bytes += prefix.size
        if len(self._order) > _RECENT:
            oldest = self._order.popleft()
            self._counts[oldest] -= 1
            if self._counts[oldest] == 0:
                del self._counts[oldest]
                self._bytes -= oldest.size

    def exceed(self, holds: Holds) -> bool:
        """Whether there are more than that."""
        if holds.prefixes is not None and len(self._counts) > holds.prefixes:
            return True
        return holds.tokens is not None and self._bytes > holds.tokens * _TOKEN_BYTES


def least_busy(candidates: Sequence[Candidate]) -> Candidate:
    return min(candidates, key=lambda candidate: candidate.load)


def by_prefix(prefix: Prefix, candidates: Sequence[Candidate]) -> Candidate:
    """Rendezvous hashing with bounded loads: the same endpoint for the same prefix, unless it has too much to do.

    When an endpoint comes or goes, only the prefixes it had or gets move (Thaler and Ravishankar, 1998; the bound:
    Mirrokni, Thorup and Zadimoghaddam, 2018).
    """
    bound = math.ceil(_LOAD_BOUND * (sum(each.load for each in candidates) + 1) / len(candidates))
    ranked = sorted(candidates, key=lambda each: _weight(prefix, each.name), reverse=True)
    return next(each for each in ranked if each.load < bound)


def _weight(prefix: Prefix, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), key=prefix.key, digest_size=8).digest()
