"""The folder beside an output that is being made: what has been done for it, so that the same command goes on after a
kill; and, once the output is in place, what the command has still to say."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from gristmill.held_file import HeldElsewhere, hold
from gristmill.storage.private import private_file, private_folder
from gristmill.user_error import UserError

#: Written when work begins; it names what the job was started with.
NOTE = "job.json"
_ENDING = "ending.json"
_LOCK = "held"
_INPUT = "input"
_CHUNK = 1024 * 1024


class Ending(msgspec.Struct):
    """The output is in place. ``identity`` names what it was made of, ``lines`` and ``report`` say what came of it;
    ``failed`` rows decide the exit code."""

    identity: dict[str, Any]
    lines: list[str]
    failed: int
    report: dict[str, Any] = {}


class JobFolder:
    """Use it ``with folder.held()``; ``end`` before the last words, and the folder goes when they are said."""

    def __init__(self, output: Path) -> None:
        self.path = output.parent / f".{output.name}.gristmill"
        self._output = output
        self._lock = -1
        #: Whether the folder is there, and ours: once it is removed, the next one of this name is somebody else's.
        self._ours = False
        #: Whether the same job has been done before, and only its output is no longer there.
        self._taken_away = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """By one process at a time. Afterwards the folder stays only if there is something to go on from."""
        self._acquire()
        try:
            shutil.rmtree(self._removed, ignore_errors=True)
            yield
            if self._read_ending() is not None:
                self._remove_ended()
        finally:
            if self._ours and not self.begun() and self._read_ending() is None:
                self.discard()
            os.close(self._lock)

    def begun(self) -> bool:
        return (self.path / NOTE).exists()

    def check_output(self, overwrite: bool, *beside: Path) -> None:
        """Raises UserError where the output, or what is written ``beside`` it, exists and is no part of this job."""
        if overwrite or self._taken_away or self.begun():
            return
        for path in (self._output, *beside):
            if path.exists():
                raise UserError(f"{path} exists already: choose another name, or replace it with --overwrite.")

    def keep_input(self, stream: BinaryIO | None) -> tuple[Path, str]:
        """An input that can be read only once, kept for as long as there is something to go on from; and its SHA-256.

        Where the job has begun, the input must be the same again, or none (None, or nothing in it): then it is the one
        that was kept. Whether it is the same is for the caller to see, by the digest. Raises UserError.
        """
        kept, partial = self.path / _INPUT, self.path / f"{_INPUT}.part"
        try:
            private_file(partial)
            digest, size = hashlib.sha256(), 0
            with partial.open("wb") as file:
                while chunk := stream.read(_CHUNK) if stream is not None else b"":
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
            if self.begun() and kept.exists():
                partial.unlink()
                if not size:
                    with kept.open("rb") as file:
                        return kept, hashlib.file_digest(file, "sha256").hexdigest()
            else:
                partial.replace(kept)
        except OSError as error:
            raise UserError(f"The input cannot be kept beside {self._output}: {error.strerror}.") from None
        return kept, digest.hexdigest()

    def begin(self, identity: dict[str, Any]) -> None:
        """From here on there is something to go on from."""
        write_whole(self.path / NOTE, msgspec.json.encode(identity))

    def ending(self, identity: dict[str, Any]) -> Ending | None:
        """Of an earlier command that was killed after it had put its output in place; None if there was none, or if it
        was about something else."""
        found = self._read_ending()
        if found is None:
            return None
        if found.identity == msgspec.to_builtins(identity):
            if self._output.exists():
                return found
            self._taken_away = True
        self._remove_ended(_INPUT)
        self._acquire()
        return None

    def end(self, ending: Ending) -> None:
        """From here on the same command only repeats what is to be said."""
        write_whole(self.path / _ENDING, msgspec.json.encode(ending))

    def discard(self) -> None:
        """In one step: half a folder, left behind by a kill, would look like a job to go on with."""
        self._ours = False
        try:
            self.path.replace(self._removed)
        except FileNotFoundError:
            return
        shutil.rmtree(self._removed, ignore_errors=True)

    @property
    def _removed(self) -> Path:
        return self.path.with_name(self.path.name + ".removed")

    def _read_ending(self) -> Ending | None:
        try:
            return msgspec.json.decode((self.path / _ENDING).read_bytes(), type=Ending)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _remove_ended(self, *keep: str) -> None:
        """The ending after all else: as long as it is there, nothing else is looked at."""
        for entry in self.path.iterdir():
            if entry.name not in (_ENDING, _LOCK, *keep):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        (self.path / _ENDING).unlink()
        self._ours = False
        (self.path / _LOCK).unlink()
        with suppress(OSError):  # Another process has begun anew in it.
            self.path.rmdir()

    def _acquire(self) -> None:
        if not self._output.parent.is_dir():
            raise UserError(f"There is no folder {self._output.parent} for the output: create it first.")
        try:
            lock = self._hold()
        except HeldElsewhere as other:
            raise UserError(
                f"{self._output} is being written by another Gristmill (process {other.holder}): wait for that one, or "
                "choose another name."
            ) from None
        except OSError as error:
            raise UserError(f"Nothing can be written beside {self._output}: {error.strerror}.") from None
        if self._lock >= 0:
            os.close(self._lock)
        self._lock, self._ours = lock, True

    def _hold(self) -> int:
        while True:
            private_folder(self.path)
            try:
                return hold(self.path / _LOCK, named=True)
            except FileNotFoundError:
                continue  # Another process has just ended, and removed the folder.


def write_whole(path: Path, content: bytes) -> None:
    """A file that is there is whole, whenever the process is killed."""
    partial = path.with_name(path.name + ".part")
    private_file(partial)
    partial.write_bytes(content)
    partial.replace(path)
