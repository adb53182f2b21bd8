"""Answers of earlier batches, for rows that ask exactly what was asked before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from gristmill.inference.answer import Answer
from gristmill.planning.prompt_key import is_repeatable, prompt_length, row_key
from gristmill.storage.answers import AnswerStore
from gristmill.wire.batch import BatchError
from gristmill.wire.json import encode
from gristmill.wire.line_body import default_fields, fields_of

_FLUSHED_AT = 256


class ReusableAnswer(NamedTuple):
    """``key`` is None for a row whose answer may differ each time; ``body`` None where no answer is known."""

    key: bytes | None = None
    body: bytes | None = None


class ReusableAnswers:
    """Of one batch, on an engine whose answers depend on nothing but the request and ``fingerprint``. Each access key
    (``key_id``) has answers of its own: nobody learns from a quick answer what others have asked."""

    def __init__(
        self,
        store: AnswerStore,
        fingerprint: str,
        endpoint: str,
        defaults: dict[str, Any] | None,
        key_id: str | None = None,
    ) -> None:
        self._store = store
        # Without a key as before there were keys: what is kept is still found.
        whose = "" if key_id is None else f"{key_id}\0"
        self._salt = f"{whose}{fingerprint}\0{endpoint}\0".encode()
        self._endpoint = endpoint
        self._defaults = default_fields(defaults)
        self._new: list[tuple[bytes, bytes]] = []

    async def find(self, lines: Sequence[bytes]) -> list[ReusableAnswer]:
        """What is known of each of some lines of the input."""
        keys = [self._key(line) for line in lines]
        found = await self._store.find([key for key in keys if key is not None])
        return [ReusableAnswer(key, found.get(key) if key is not None else None) for key in keys]

    async def keep(self, key: bytes, answer: Answer) -> None:
        """For batches to come; written in groups, see ``flush``."""
        self._new.append((key, encode(answer.body)))
        if len(self._new) >= _FLUSHED_AT:
            await self.flush()

    async def flush(self) -> None:
        new, self._new = self._new, []
        await self._store.add(new)

    def _key(self, line: bytes) -> bytes | None:
        try:
            key = row_key(self._endpoint, fields_of(line), self._defaults).key
        except (ValueError, RecursionError, OverflowError):
            # Odd rows fail when they run.
            return None
        if not is_repeatable(key, prompt_length(key)):
            return None
        return hashlib.blake2b(self._salt + key, digest_size=32).digest()


def cannot_reuse(engine: str) -> BatchError:
    message = (
        f"Answers cannot be reused with the {engine} engine: it does not tell which weights it serves. "
        "Create the batch without reuse_answers."
    )
    return BatchError("invalid_request", message, param="reuse_answers")
