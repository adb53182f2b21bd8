"""Pictures in prompts: each is a run of token ids of its own, so that a prefix with one is found again like any other.

A picture takes as many positions as vectors are made of it. Their token ids are negative and spell the picture: the
same one has the same ids in every prompt, so that the KV state of a prefix that holds it is computed once.
"""

from __future__ import annotations

import hashlib
import secrets
import weakref
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: Bits of a token id that say which of a part's vectors it is.
_PLACE_BITS = 15
MOST_VECTORS = 1 << _PLACE_BITS
#: Of the process: nobody can make a picture whose ids are another's.
_SECRET = secrets.token_bytes(16)


class PicturePart:
    """Vectors that follow one another, shape (vectors, width of the hidden state); a model may see them all at once."""

    def __init__(self, digest: bytes, number: int, vectors: NDArray[np.float32]) -> None:
        """Part ``number`` of the picture whose content has that digest."""
        named = hashlib.blake2b(digest + number.to_bytes(4, "little"), digest_size=6, key=_SECRET).digest()
        self.key = int.from_bytes(named, "little")
        self.vectors = vectors
        _parts[self.key] = self

    @property
    def tokens(self) -> list[int]:
        first = -1 - (self.key << _PLACE_BITS)
        return list(range(first, first - len(self.vectors), -1))


#: As long as any request has them. Who makes parts makes those of a picture once, as long as they are there.
_parts: weakref.WeakValueDictionary[int, PicturePart] = weakref.WeakValueDictionary()


class Picture:
    """``tokens``: all that stands for it in a prompt, text that the model wants around it included."""

    def __init__(self, digest: str, tokens: list[int], parts: list[PicturePart]) -> None:
        self.digest = digest
        self.tokens = tokens
        self.parts = parts

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(part.vectors.nbytes for part in self.parts)


class Eyes(Protocol):
    """What makes pictures of image files; used by several threads at a time."""

    def look(self, data: bytes) -> Picture:
        """Raises EngineError (invalid request) for a file that is no image, or too large."""
        ...


def part_of(token: int) -> int | None:
    """Which picture part a token stands for; None for a token of text."""
    return None if token >= 0 else (-1 - token) >> _PLACE_BITS


def picture_parts(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same for tokens of pictures, all at once."""
    return (-1 - tokens) >> _PLACE_BITS


def vectors_of(tokens: list[int]) -> NDArray[np.float32]:
    """Those that tokens of pictures stand for, in their order. The requests they are of must still be there."""
    places = [-1 - token for token in tokens]
    return np.stack([_parts[each >> _PLACE_BITS].vectors[each & (MOST_VECTORS - 1)] for each in places])


def text_before(tokens: list[int]) -> int:
    """How many tokens of text a prompt begins with, before its first picture. Pure."""
    return next((place for place, token in enumerate(tokens) if token < 0), len(tokens))


def whole_parts(tokens: list[int], start: int, count: int) -> int:
    """How many tokens from ``start`` on to compute, about ``count``, so that no picture part is cut in two: its vectors
    may have to see each other. Pure."""
    end = start + count
    if not _inside(tokens, end):
        return count
    begin = end - 1
    while begin > start and _inside(tokens, begin):
        begin -= 1
    if begin > start:
        return begin - start
    while _inside(tokens, end):
        end += 1
    return end - start


def _inside(tokens: list[int], place: int) -> bool:
    """Whether the tokens before and at ``place`` are of one picture part."""
    if not 0 < place < len(tokens) or tokens[place] >= 0:
        return False
    return part_of(tokens[place - 1]) == part_of(tokens[place])
