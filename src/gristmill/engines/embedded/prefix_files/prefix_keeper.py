"""Writing prefixes to disk and reading them back, between the steps of one engine."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from gristmill.engines.embedded.kv.kv_memory import KvMemory
from gristmill.engines.embedded.pictures.picture import text_before
from gristmill.engines.embedded.prefix_files.kv_transfer import KvTransfer
from gristmill.engines.embedded.prefix_files.prefix_file import DamagedError, Slice
from gristmill.engines.embedded.prefix_files.prefix_store import Found, PrefixStore
from gristmill.engines.embedded.prefix_files.shared_prefixes import LEAST_TOKENS, SharedPrefix, SharedPrefixes
from gristmill.engines.embedded.scheduling.sequence import Sequence

#: Seconds between two steps in which slices are exported; the last one may end later. In two such turns a small model's
#: rubric is on its way.
_TURN_SECONDS = 0.03
#: Seconds that an engine without requests waits for the disk before it looks for requests again.
_IDLE_SECONDS = 0.05
#: Slices of so many bytes together may wait for the disk, and one more.
_AHEAD_BYTES = 64 * 2**20
#: Seconds after which the use of a prefix in memory is noted on disk again.
_TOUCH_SECONDS = 60.0
#: Prefixes that may wait for being written. More come only where rubrics change faster than the disk takes them.
_WAITING = 64


class PrefixKeeper:
    """For the engine's thread. Prefixes that rows of batches share are exported slice by slice, and written by a thread
    of their own; their KV memory is held meanwhile, by a sequence that is never computed."""

    def __init__(
        self,
        store: PrefixStore,
        transfer: KvTransfer[Any],
        memory: KvMemory[Any, Any],
        make_moves: Callable[[list[Any]], None],
    ) -> None:
        """``make_moves`` is the runner's."""
        self._store = store
        self._transfer = transfer
        self._memory = memory
        self._make_moves = make_moves
        self._shared = SharedPrefixes()
        self._waiting: deque[SharedPrefix] = deque(maxlen=_WAITING)
        self._holder: Sequence | None = None
        self._writing: _Writing | None = None

    @property
    def busy(self) -> bool:
        return self._writing is not None or bool(self._waiting)

    def find(self, sequence: Sequence, computed: int) -> Found | None:
        """What is on disk of the beginning of a sequence whose first ``computed`` tokens have KV state; None where that
        is too little to be read."""
        if sequence.reusable - computed < LEAST_TOKENS:
            return None
        # Tokens of pictures mean nothing to another process.
        found = self._store.find(sequence.tokens, min(sequence.reusable, text_before(sequence.tokens)))
        return found if found is not None and found.tokens - computed >= LEAST_TOKENS else None

    def read(self, sequence: Sequence, found: Found, computed: int) -> int:
        """Put what was found into the KV cache, after the sequence's first ``computed`` tokens. Returns how many have
        KV state then: fewer than were found where the file turns out to be damaged, or there is no room."""
        place = self._memory.place(sequence)

        def take(piece: Slice) -> None:
            nonlocal computed
            end = min(piece.end, found.tokens)
            if computed < end:
                try:
                    self._transfer.import_kv(place, piece, max(piece.begin, computed), end)
                except ValueError as error:
                    raise DamagedError(f"holds what the engine cannot use: {error}") from None
                computed = end

        # Without room for it, the rest is computed like any other.
        with contextlib.suppress(MemoryError):
            self._store.read(found, sequence.tokens, take)
        return computed

    def note(self, request: int, sequence: Sequence) -> None:
        """A sequence of the request with that number has begun; its first ``computed`` tokens had KV state."""
        # What somebody asks in passing is not kept.
        tokens = sequence.tokens[: sequence.computed]
        prefix = None if sequence.interactive else self._shared.find(request, tokens[: text_before(tokens)])
        if prefix is None:
            return
        now = time.monotonic()
        if not prefix.offered:
            prefix.offered, prefix.noted = True, now
            self._waiting.append(prefix)
        elif now - prefix.noted >= _TOUCH_SECONDS:
            prefix.noted = now
            if found := self._store.find(prefix.tokens, len(prefix.tokens)):
                self._store.touch(found)

    def work(self, idle: bool) -> None:
        """Go on with writing, for some milliseconds. ``idle``: the engine has no requests."""
        until = time.monotonic() + (_IDLE_SECONDS if idle else _TURN_SECONDS)
        while (left := until - time.monotonic()) > 0 and (writing := self._writing or self._begin_next()):
            if writing.ended:
                # Also where the disk refused it.
                self._release()
                self._writing = None
            elif writing.wait(left if idle else 0.0) and self._holder is not None:
                self._export(self._holder, writing)
            elif not idle:
                return

    def give_up(self) -> bool:
        """Write no further what is being written, so that its KV memory is free. False where it holds none."""
        if self._writing is None or self._holder is None:
            return False
        self._writing.give_up()
        self._release()
        return True

    def _begin_next(self) -> _Writing | None:
        while self._waiting:
            prefix = self._waiting.popleft()
            tokens: list[int] = prefix.tokens.tolist()
            found = self._store.find(tokens, len(tokens))
            if found is not None and len(tokens) - found.tokens < LEAST_TOKENS:
                continue
            # One token more than what is held: of its last token a sequence wants logits.
            holder = Sequence([*tokens, 0])
            holder.computed = self._memory.match(holder)
            if holder.computed < LEAST_TOKENS:
                # Others have taken its place meanwhile. Who finds it next offers it again.
                prefix.offered = False
                continue
            if not self._memory.begin(holder, holder.computed):
                self._waiting.appendleft(prefix)
                return None
            self._make_moves(self._memory.take_moves())
            self._holder = holder
            self._writing = _Writing(self._store, tokens[: holder.computed], self._transfer.slice_tokens)
            return self._writing
        return None

    def _export(self, holder: Sequence, writing: _Writing) -> None:
        begin = writing.exported
        end = min(begin + self._transfer.slice_tokens, holder.computed)
        try:
            data = self._transfer.export_kv(self._memory.place(holder), begin, end)
        except ValueError:
            self.give_up()
            return
        writing.put(data, end)
        if end == holder.computed:
            self._release()

    def _release(self) -> None:
        if self._holder is not None:
            self._memory.release(self._holder)
            self._holder = None


class _GivenUp(Exception):
    pass


class _Writing:
    """A prefix on its way from the engine's thread to the disk, by a thread that ends with it."""

    def __init__(self, store: PrefixStore, tokens: list[int], slice_tokens: int) -> None:
        self._store = store
        self._tokens = tokens
        self._slice_tokens = slice_tokens
        self._slices: queue.SimpleQueue[bytes | memoryview | None] = queue.SimpleQueue()
        self._taking = threading.Condition()
        #: Bytes that wait for the disk.
        self._ahead = 0
        self._thread = threading.Thread(target=self._write, name="keep-prefix", daemon=True)
        #: Tokens whose KV state has been handed over.
        self.exported = 0
        #: Nothing more will be.
        self._complete = False
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """For room for another slice, or for the end where no more will come. False where that takes longer."""
        if self._complete:
            self._thread.join(seconds)
            return self.ended
        with self._taking:
            return self._taking.wait_for(lambda: self._ahead < _AHEAD_BYTES, seconds)

    def put(self, data: bytes | memoryview, end: int) -> None:
        with self._taking:
            self._ahead += len(data)
        self._slices.put(data)
        self.exported = end
        self._complete = end == len(self._tokens)

    def give_up(self) -> None:
        self._slices.put(None)
        self._complete = True

    def _write(self) -> None:
        with contextlib.suppress(_GivenUp):
            self._store.save(self._tokens, self._slice_tokens, self._taken())

    def _taken(self) -> Iterator[bytes | memoryview]:
        for _ in range(0, len(self._tokens), self._slice_tokens):
            data = self._slices.get()
            if data is None:
                raise _GivenUp
            yield data
            with self._taking:
                self._ahead -= len(data)
                self._taking.notify()
