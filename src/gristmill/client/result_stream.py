"""What a batch and its retries have answered so far, line by line: gone on with where a connection breaks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import urlencode

import msgspec

from gristmill.batches.output_lines import errors_beside
from gristmill.client.connection import NoAnswer, ServerConnection
from gristmill.client.download import opened
from gristmill.http_values import object_path
from gristmill.user_error import UserError

ResultKind = Literal["output", "error"]


class _Identified(msgspec.Struct):
    custom_id: str


class ResultStream:
    """Each line is handed to ``write`` once, and none of which only a part has come."""

    def __init__(
        self, connection: ServerConnection, batch_id: str, kind: ResultKind, write: Callable[[bytes], object]
    ) -> None:
        self._connection = connection
        self._path = object_path("batches", batch_id, "results")
        self._kind = kind
        self._write = write
        self._count = 0
        self._last = b""

    def complete(self) -> int:
        """How many lines there were. Raises UserError."""
        ended = False
        while not ended:
            # Patience is for a server that sends nothing: whatever comes renews it.
            before = self._count
            ended = self._connection.patiently(lambda before=before: self._unless_moved(before))  # type: ignore[misc]
        return self._count

    def _unless_moved(self, before: int) -> bool:
        try:
            self._receive()
        except NoAnswer:
            if self._count == before:
                raise
            return False
        return True

    def _receive(self) -> None:
        query: dict[str, str] = {"kind": self._kind}
        if self._last:
            query["after"] = msgspec.json.decode(self._last, type=_Identified).custom_id
        pieces: list[bytes] = []
        with self._connection.stream(f"{self._path}?{urlencode(query)}", {}) as answer:
            for chunk in answer.iter_bytes():
                head, end, tail = chunk.rpartition(b"\n")
                if not end:
                    pieces.append(chunk)
                    continue
                whole = b"".join((*pieces, head))
                pieces = [tail]
                self._write(whole + end)
                self._count += whole.count(b"\n") + 1
                self._last = whole[whole.rfind(b"\n") + 1 :]


def save_lines(output: Path, stream: Callable[[ResultKind, Callable[[bytes], object]], int]) -> list[Path]:
    """``stream`` both kinds to ``output`` and to the file beside it, each whole or not at all, as what there is may
    change from one try to the next; those that have a line. Raises UserError."""
    written = []
    targets: tuple[tuple[ResultKind, Path], ...] = (("output", output), ("error", errors_beside(output)))
    for kind, path in targets:
        with _written_whole(path) as file:
            lines = stream(kind, file.write)
        if lines:
            written.append(path)
        else:
            path.unlink(missing_ok=True)
    return written


@contextmanager
def _written_whole(target: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``target`` once all is written, and is gone where that fails. Raises UserError."""
    part = target.with_name(f"{target.name}.part")
    try:
        with opened(part, target) as file:
            try:
                file.truncate(0)
                yield file
                os.fsync(file.fileno())
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None
