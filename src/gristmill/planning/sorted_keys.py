"""Sorting more keys than memory holds: sorted runs on disk, then a merge of the runs.

Keys of one job share most of their bytes. A run stores of each key only what it does not share with the one before, so
that a job of many gigabytes with one shared prompt takes little disk.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gristmill.common_prefix import common_prefix

#: Bytes of keys in memory before they become a run, and what a key takes besides.
_RUN_BYTES = 96 * 1024 * 1024
_KEY_OVERHEAD = 200
#: Files open at once; more runs are merged into one first.
_MAX_RUNS = 200
_BUFFER = 256 * 1024

#: Bytes shared with the key before, bytes of its own, line, output limit.
_record = struct.Struct("<IIQI")
_MAX_LIMIT = 2**32 - 1


class KeyedRow(NamedTuple):
    """Ordered by key, then by line. ``output_limit`` is in tokens, 0 where unknown."""

    key: bytes
    line: int
    output_limit: int


class SortedKeys:
    """``add`` rows, then iterate over them in order, once. ``folder`` is an empty one, for the runs."""

    def __init__(self, folder: Path, run_bytes: int = _RUN_BYTES) -> None:
        self._folder = folder
        self._run_bytes = run_bytes
        self._rows: list[KeyedRow] = []
        self._bytes = 0
        self._runs: list[Path] = []
        self._written = 0

    def add(self, key: bytes, line: int, output_limit: int = 0) -> None:
        self._rows.append(KeyedRow(key, line, min(output_limit, _MAX_LIMIT)))
        self._bytes += len(key) + _KEY_OVERHEAD
        if self._bytes >= self._run_bytes:
            self._spill()

    def __iter__(self) -> Iterator[KeyedRow]:
        if not self._runs:
            self._rows.sort()
            yield from self._rows
            return
        if self._rows:
            self._spill()
        yield from heapq.merge(*map(_read, self._runs))

    def _spill(self) -> None:
        self._rows.sort()
        self._runs.append(self._write(self._rows))
        self._rows, self._bytes = [], 0
        if len(self._runs) >= _MAX_RUNS:
            merged = self._write(heapq.merge(*map(_read, self._runs)))
            for run in self._runs:
                run.unlink()
            self._runs = [merged]

    def _write(self, rows: Iterable[KeyedRow]) -> Path:
        path = self._folder / f"run-{self._written}"
        self._written += 1
        before, shared = b"", 0
        with path.open("wb", _BUFFER) as file:
            for key, line, limit in rows:
                shared = common_prefix(before, key, shared)
                file.write(_record.pack(shared, len(key) - shared, line, limit))
                file.write(key[shared:])
                before = key
        return path


def _read(path: Path) -> Iterator[KeyedRow]:
    key = b""
    with path.open("rb", _BUFFER) as file:
        while header := file.read(_record.size):
            shared, rest, line, limit = _record.unpack(header)
            key = key[:shared] + file.read(rest)
            yield KeyedRow(key, line, limit)
