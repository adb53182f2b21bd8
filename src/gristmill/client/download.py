"""Downloading a file so that it is whole or not there: what is here already is gone on from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import httpx

from gristmill.client.connection import NoAnswer, ServerConnection
from gristmill.held_file import HeldElsewhere, hold
from gristmill.http_values import object_path
from gristmill.user_error import UserError

#: Called with the bytes received so far, and with those of the whole file.
OnBytes = Callable[[int, int], None]

_UNSAFE_IN_NAMES = re.compile(r"[^\w-]", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")


def download_whole(
    connection: ServerConnection, file_id: str, size: int, target: Path, on_bytes: OnBytes | None = None
) -> None:
    """Write the file of ``size`` bytes to ``target``. Raises UserError; what has come is kept for the next time."""
    # Named after the file, so that what is left of another download is not taken for its beginning.
    part = target.with_name(f"{target.name}.{_UNSAFE_IN_NAMES.sub('_', file_id)[:80]}.part")
    try:
        with opened(part, target) as file:
            have = os.fstat(file.fileno()).st_size
            _Download(connection, file_id, size, file, on_bytes or (lambda done, total: None), have).complete()
            os.fsync(file.fileno())
            part.replace(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None


def stream_whole(connection: ServerConnection, file_id: str, size: int, write: Callable[[bytes], object]) -> None:
    """Hand the file's bytes to ``write``, in order, each once, whatever connections break. Raises UserError."""
    _Download(connection, file_id, size, _OneWay(write), lambda done, total: None).complete()


class _Target(Protocol):
    def seek(self, position: int, /) -> object: ...

    def truncate(self, size: int, /) -> object: ...

    def write(self, chunk: bytes, /) -> object: ...


class _OneWay:
    """What is written to it cannot be taken back."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._begun = False

    def seek(self, position: int) -> None:
        pass

    def truncate(self, size: int) -> None:
        if self._begun:
            raise UserError(
                "The download broke off, and the server does not go on where it stopped: what has been written is not "
                "the whole file. Download it to a file instead, with -o FILE."
            )

    def write(self, chunk: bytes) -> None:
        self._begun = True
        self._write(chunk)


@contextmanager
def opened(part: Path, target: Path) -> Iterator[BinaryIO]:
    """By one process at a time."""
    try:
        descriptor = hold(part)
    except HeldElsewhere:
        raise UserError(f"{target} is being downloaded by another process: wait for that one.") from None
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        yield file


class _Download:
    def __init__(
        self, connection: ServerConnection, file_id: str, size: int, file: _Target, on_bytes: OnBytes, have: int = 0
    ) -> None:
        """``have``: how much of it ``file`` holds already, in bytes."""
        self._connection = connection
        self._path = object_path("files", file_id, "content")
        self._size = size
        self._file = file
        self._on_bytes = on_bytes
        self._have = have
        #: Of the file as it was when this download began, where the server gives one.
        self._etag: str | None = None

    def complete(self) -> None:
        if self._have > self._size:
            self._start_over()
        while self._have < self._size:
            # Patience is for a server that sends nothing: whatever comes renews it.
            before = self._have
            self._connection.patiently(lambda before=before: self._unless_moved(before))  # type: ignore[misc]

    def _unless_moved(self, before: int) -> None:
        try:
            self._receive()
        except NoAnswer:
            if self._have <= before:
                raise

    def _receive(self) -> None:
        headers = {"Accept-Encoding": "identity"}
        if self._have:
            headers["Range"] = f"bytes={self._have}-"
            if self._etag is not None:
                headers["If-Range"] = self._etag
        with self._connection.stream(self._path, headers) as answer:
            if not self._continues(answer):
                asked_whole = self._have == 0
                self._start_over()
                if answer.status_code != 200:
                    if asked_whole:
                        reason = f"it answered {answer.status_code}, another part than was asked for"
                        raise NoAnswer(f"The server at {self._connection.shown} is of no use: {reason}.", reason)
                    return
            etag = answer.headers.get("etag", "")
            # A weak one may be the same for other bytes.
            self._etag = etag if etag.startswith('"') else None
            self._file.seek(self._have)
            for chunk in answer.iter_bytes():
                if self._have + len(chunk) > self._size:
                    self._start_over()
                    raise UserError(f"{answer.url.path} on the server is longer than its {self._size:,} bytes.")
                self._file.write(chunk)
                self._have += len(chunk)
                self._on_bytes(self._have, self._size)
        if self._have < self._size and answer.status_code == 200:
            have = self._have
            self._start_over()
            reason = f"it sent {have:,} of the file's {self._size:,} bytes"
            raise NoAnswer(f"The server at {self._connection.shown} has no more: {reason}.", reason)

    def _continues(self, answer: httpx.Response) -> bool:
        """Whether what comes belongs behind what is here."""
        if answer.status_code != 206 or answer.headers.get("content-encoding", "identity") != "identity":
            return self._have == 0 and answer.status_code == 200
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        return found is not None and int(found[1]) == self._have and found[2] in ("*", str(self._size))

    def _start_over(self) -> None:
        self._file.truncate(0)
        self._have = 0
        self._etag = None
