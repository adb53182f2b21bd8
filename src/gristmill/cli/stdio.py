"""``-`` for standard input and output: bytes in and out, while messages go to standard error."""

from __future__ import annotations

import codecs
import hashlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import typer

from gristmill.cli import config, jsonl, show
from gristmill.client import Client
from gristmill.printable import printable_lines
from gristmill.scratch import scratch_folder
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

DASH = "-"
_HEADING_BYTES = 1024 * 1024


def is_dash(path: Path | str | None) -> bool:
    return str(path) == DASH


def standard_input() -> BinaryIO:
    """Tells a person at a terminal that they are waited for."""
    if sys.stdin.isatty():
        show.console.print("Reading from the terminal: end with Ctrl-D on a line of its own.")
    return sys.stdin.buffer


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A file that can be read more than once. Standard input is kept for the time of the command. Raises UserError."""
    if not is_dash(path):
        jsonl.check_readable(path)
        yield path
        return
    with scratch_folder(config.default_data_folder() / "piped") as folder:
        kept = folder / "stdin.jsonl"
        with kept.open("wb") as file:
            shutil.copyfileobj(standard_input(), file)
        yield kept


class Output:
    """Standard output for files as they are; on a terminal without what it would obey."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if sys.stdout.isatty() else None

    def write(self, data: bytes) -> None:
        """Raises Exit, with code 0, where whoever reads has had enough."""
        try:
            if self._decoder is None:
                sys.stdout.buffer.write(data)
            else:
                sys.stdout.write(printable_lines(self._decoder.decode(data)))
        except BrokenPipeError:
            raise typer.Exit from None

    def copy(self, path: Path) -> None:
        with path.open("rb") as file:
            while chunk := file.read(1024 * 1024):
                self.write(chunk)
        self.flush()

    def flush(self) -> None:
        """As ``write``."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise typer.Exit from None


class PipedTable(NamedTuple):
    """``digest`` tells what came on standard input from other tables; None for a table that is not piped in."""

    source: str
    digest: str | None = None


@contextmanager
def readable_table(table: str) -> Iterator[PipedTable]:
    """A table's name, or where standard input is kept for the time of the command, under the ending of what it is."""
    if not is_dash(table):
        yield PipedTable(table)
        return
    with scratch_folder(config.default_data_folder() / "piped") as folder:
        kept = folder / "stdin"
        with kept.open("wb+") as file:
            shutil.copyfileobj(standard_input(), file)
            if not file.tell():
                raise UserError("Nothing came on standard input: pipe a table in.")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            suffix = _table_suffix(file.readline(_HEADING_BYTES))
        yield PipedTable(str(kept.rename(kept.with_suffix(suffix))), digest)


def _table_suffix(heading: bytes) -> str:
    if heading.startswith(b"PAR1"):
        return ".parquet"
    if heading.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return ".jsonl"
    return ".tsv" if b"\t" in heading and b"," not in heading else ".csv"


@contextmanager
def resting_place(output: Path, suffix: str = ".jsonl") -> Iterator[Path]:
    """Where an output is made: in its place, or, for standard output, in a folder for the time of the command."""
    if not is_dash(output):
        yield output
        return
    with scratch_folder(config.default_data_folder() / "piped") as folder:
        yield folder / f"output{suffix}"


def write_files(*paths: Path) -> None:
    """One after another, as far as they exist, to standard output."""
    output = Output()
    for path in paths:
        if path.exists():
            output.copy(path)


def write_downloads(client: Client, file_ids: Sequence[str]) -> None:
    output = Output()
    for file_id in file_ids:
        client.stream(file_id, output.write)
    output.flush()


def write_results(client: Client, batch: Batch) -> None:
    """As far as there are any; failed rows last."""
    if client.is_whole(batch):
        write_downloads(client, [file for file in (batch.output_file_id, batch.error_file_id) if file])
        return
    output = Output()
    client.stream_results(batch, "output", output.write)
    client.stream_results(batch, "error", output.write)
    output.flush()


def check_json(as_json: bool, output: Path | str | None) -> None:
    """Raises UserError where two things would be written to standard output."""
    if as_json and is_dash(output):
        raise UserError("With -o -, standard output holds what is made: leave out --json, or name a file with -o.")
