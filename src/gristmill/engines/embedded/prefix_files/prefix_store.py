"""Prefixes on disk: a folder of prefix files, shared by all models and by processes that know nothing of each other.

A file appears whole, by a rename, and is named after what it holds: whose KV state (a digest of ``made_by``), and of
which tokens. The one used longest ago goes first; the time a file was changed says when that was. Who reads a file that
another removes has it open and reads on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from gristmill.engines.embedded.prefix_files.prefix_file import DamagedError, Heading, PrefixFile, PrefixWriter, Slice
from gristmill.engines.embedded.prefix_files.prefix_folder import (
    SUFFIX,
    locked,
    new_file,
    prefix_files,
    remove_unfinished,
)
from gristmill.engines.embedded.prefix_files.prefix_tokens import Tokens, common_tokens, pack_tokens, unpack_tokens
from gristmill.models.cache import make_private, writable_by_others
from gristmill.models.progress import human_size

#: Prefixes take at most one part in so many of what is free on the disk, they themselves counted as free.
_DISK_PARTS = 10


class TooLargeError(Exception):
    """A prefix does not fit into what prefixes may take; the message is a sentence."""


class Found(NamedTuple):
    """The first ``tokens`` tokens of a sequence are on disk, in the file ``path``."""

    path: Path
    tokens: int


class PrefixStore:
    """The files of one model as one engine computes it. ``find`` and ``read`` are for one thread, ``save`` for another.

    Nothing here raises OSError: a disk that cannot be used is told of, and otherwise as if nothing was kept on it.
    """

    def __init__(self, folder: Path, made_by: str, model: str, most_bytes: int, tell: Callable[[str], None]) -> None:
        """``made_by``: all that KV state depends on besides the tokens. ``model``: what people call it. ``most_bytes``:
        what the files of all models may take together. ``tell`` takes sentences for the log, from both threads."""
        self._folder = folder
        self._made_by = made_by
        self._model = model
        self._most_bytes = most_bytes
        self._tell = tell
        self._told: set[str] = set()
        self._whose = hashlib.sha256(made_by.encode()).hexdigest()[:16]
        #: The tokens of our files by name; empty for one that is to be left alone.
        self._known: dict[str, Tokens] = {}
        self._changed: int | None = None
        self.usable = self._open_folder()

    def _open_folder(self) -> bool:
        try:
            make_private(self._folder)
            if writable_by_others(self._folder):
                self._tell_once(
                    f"The folder {self._folder} is not this user's alone, so that no prefixes are kept there. "
                    "Name a folder of your own in GRISTMILL_CACHE."
                )
                return False
            # Who holds the lock now, and may have been stopped, or the next one, does it.
            with contextlib.suppress(BlockingIOError), locked(self._folder, wait=False):
                remove_unfinished(self._folder)
        except OSError as error:
            self._tell_refused(error)
            return False
        return True

    def find(self, tokens: list[int] | Tokens, limit: int) -> Found | None:
        """The file with the most of the first ``limit`` tokens."""
        wanted = np.asarray(tokens[:limit], np.int32)
        name, most = "", 0
        for each, kept in self._index().items():
            common = common_tokens(wanted, kept)
            if common > most:
                name, most = each, common
        return Found(self._folder / name, most) if most else None

    def read(self, found: Found, tokens: list[int], take: Callable[[Slice], None]) -> int:
        """Hand the slices of what was found for ``tokens`` to ``take``. Returns of how many tokens: fewer than were
        found where the file is damaged, which is told of; it is removed."""
        taken = 0
        try:
            with PrefixFile(found.path) as file:
                if not self._holds(file, tokens[: found.tokens]):
                    raise DamagedError("holds another prefix than its name says")
                for piece in file.slices(found.tokens):
                    take(piece)
                    taken = min(piece.end, found.tokens)
                os.utime(found.path)
        except FileNotFoundError:
            self._known.pop(found.path.name, None)
        except (DamagedError, OSError) as error:
            self._drop(found.path, error)
        return taken

    def _holds(self, file: PrefixFile, tokens: list[int]) -> bool:
        return (
            file.heading.made_by == self._made_by
            and unpack_tokens(file.heading.tokens)[: len(tokens)].tolist() == tokens
        )

    def touch(self, found: Found) -> None:
        """It has been used, though not read."""
        with contextlib.suppress(OSError):
            os.utime(found.path)

    def save(self, tokens: list[int], slice_tokens: int, slices: Iterable[bytes | memoryview]) -> bool:
        """Keep a prefix: ``slices`` are its KV state. Nothing is left of one that is not kept, be it that the disk is
        full, which is told, or that ``slices`` raises something, which is passed on."""
        heading = Heading(self._made_by, self._model, pack_tokens(tokens), slice_tokens)
        try:
            self._save(heading, slices)
        except OSError as error:
            self._tell_refused(error)
            return False
        except TooLargeError as error:
            self._tell_once(str(error))
            return False
        return True

    def _save(self, heading: Heading, slices: Iterable[bytes | memoryview]) -> None:
        make_private(self._folder)
        with locked(self._folder):
            descriptor, path = new_file(self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                self._write(file, heading, slices)
                file.flush()
                # Not forced onto the disk: what a power failure leaves of it, its digests tell.
                with locked(self._folder):
                    self._make_room(file.tell(), unpack_tokens(heading.tokens))
                    path.replace(self._folder / self._name(heading.tokens))
        finally:
            path.unlink(missing_ok=True)

    def _write(self, file: BinaryIO, heading: Heading, slices: Iterable[bytes | memoryview]) -> None:
        room = self._room()
        writer = PrefixWriter(file, heading)
        for data in slices:
            if file.tell() + len(data) > room:
                raise TooLargeError(
                    f"A prefix of {heading.count:,} tokens was not kept on disk: prefixes may take {human_size(room)} "
                    "there, the least of prefix_disk_gb and a tenth of what is free."
                )
            writer.add(data)

    def _room(self, unfinished: int = 0) -> int:
        """Bytes that the files of all models may take, of which ``unfinished`` are written to one without a name."""
        free = shutil.disk_usage(self._folder).free
        taken = sum(each.size for each in prefix_files(self._folder))
        return min(self._most_bytes, (free + taken + unfinished) // _DISK_PARTS)

    def _make_room(self, size: int, tokens: Tokens) -> None:
        """For a file of ``size`` bytes: shorter beginnings of the same tokens go, then what was used longest ago."""
        for path in self._ours():
            with contextlib.suppress(OSError, DamagedError), PrefixFile(path) as file:
                kept = unpack_tokens(file.heading.tokens)
                if len(kept) < len(tokens) and common_tokens(tokens, kept) == len(kept):
                    path.unlink(missing_ok=True)
        excess = size - self._room(size)
        files = sorted(prefix_files(self._folder), key=lambda each: each.used)
        excess += sum(each.size for each in files)
        for oldest in files:
            if excess <= 0:
                break
            oldest.path.unlink(missing_ok=True)
            excess -= oldest.size

    def _index(self) -> dict[str, Tokens]:
        """Read again where files have come or gone."""
        try:
            changed = self._folder.stat().st_mtime_ns
            if changed != self._changed:
                self._changed = changed
                self._known = {path.name: self._known_tokens(path) for path in self._ours()}
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._tell_refused(error)
            self._known, self._changed = {}, None
        return self._known

    def _known_tokens(self, path: Path) -> Tokens:
        known = self._known.get(path.name)
        if known is not None:
            return known
        try:
            with PrefixFile(path) as file:
                if self._holds(file, []):
                    return unpack_tokens(file.heading.tokens)
                raise DamagedError("is not of the model that its name says")
        except FileNotFoundError:
            pass
        except (DamagedError, OSError) as error:
            self._drop(path, error)
        return np.zeros(0, np.int32)

    def _ours(self) -> list[Path]:
        return list(self._folder.glob(f"{self._whose}-*{SUFFIX}"))

    def _drop(self, path: Path, error: DamagedError | OSError) -> None:
        """What cannot be used is removed; what cannot be removed is left alone from now on."""
        self._known[path.name] = np.zeros(0, np.int32)
        if isinstance(error, DamagedError):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            self._tell_once(f"The prefix file {path} {error}: it was removed, and is computed again.")
        else:
            self._tell_once(f"The prefix file {path} cannot be read ({error.strerror}): it is computed again.")

    def _name(self, tokens: bytes) -> str:
        return f"{self._whose}-{hashlib.sha256(tokens).hexdigest()[:32]}{SUFFIX}"

    def _tell_refused(self, error: OSError) -> None:
        self._tell_once(f"Prefixes cannot be kept on disk in {self._folder}: {error.strerror or error}.")

    def _tell_once(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._tell(sentence)
