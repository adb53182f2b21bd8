"""Our own kernels, such as attention (attention.c): compiled once for this machine, kept in the cache folder, called by
ctypes.

They need a C compiler (``cc``, ``gcc`` or ``clang``, or the one that ``CC`` names). Without one the engine uses
OpenVINO's kernels; its attention reads a shared prefix once for every row.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from gristmill.engines.embedded.processor import processor_digest
from gristmill.models.cache import cache_folder, make_private, writable_by_others

#: As in attention.c: BLOCK, CHUNK and TILE_ROWS.
BLOCK_SIZE = 32
CHUNK_BLOCKS = 4
TILE_ROWS = 192
_MAX_DIM = 256

ATTENTION = Path(__file__).with_name("attention.c")
_DIGEST = "sha256"
_FLAGS = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared")


class KernelMissingError(Exception):
    """There is no kernel for this machine; the message says why."""


class AttentionShape(ctypes.Structure):
    """``Shape`` of attention.c: query heads, key and value heads, size of a head, factor of the scores, and their
    soft cap (0: none)."""

    _fields_ = (
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("dim", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("cap", ctypes.c_float),
    )
    heads: int
    kv_heads: int
    dim: int

    @property
    def supported(self) -> bool:
        fits = self.dim % BLOCK_SIZE == 0 and self.dim <= _MAX_DIM
        return fits and self.heads % self.kv_heads == 0 and self.heads // self.kv_heads <= TILE_ROWS


class Kernel(NamedTuple):
    """``library`` has the functions of the source. ``notice`` tells of something a person may want to know, or is
    empty. ``build``: changes with whatever the compiled code depends on."""

    library: ctypes.CDLL
    notice: str
    build: str


def load_kernel(source: Path = ATTENTION) -> Kernel:
    """``source`` compiled, from the cache where it has been compiled before and is as it was then. Raises
    KernelMissingError."""
    compiler = _compiler()
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    command = [*compiler, *_FLAGS, native]
    kernels = cache_folder() / "kernels"
    build = _fingerprint(command, source)
    try:
        make_private(kernels)
        # Code is loaded only from where nobody else can have put it.
        if writable_by_others(kernels):
            return _compile_for_once(command, source, kernels, build)
        return _from_cache(command, source, kernels / f"{source.stem}-{build}", build)
    except OSError as error:
        raise KernelMissingError(f"the compiled {source.stem} kernel cannot be used: {error}") from error


def _from_cache(command: list[str], source: Path, kept: Path, build: str) -> Kernel:
    notice, library = "", _library(source)
    if not _intact(kept / library):
        if kept.exists():
            kernel = f"The compiled {source.stem} kernel"
            notice = f"{kernel} in {kept} was not what had been compiled, and was compiled again."
        with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
            made = Path(temporary) / "made"
            _compile(command, source, made)
            # Both files appear at once. Whoever uses what is replaced has it open already.
            if kept.exists():
                kept.rename(Path(temporary) / "replaced")
            try:
                made.rename(kept)
            except OSError:
                # Another process was faster; what it made is the same.
                if not _intact(kept / library):
                    raise
    return Kernel(ctypes.CDLL(str(kept / library)), notice, build)


def _compile_for_once(command: list[str], source: Path, kernels: Path, build: str) -> Kernel:
    with tempfile.TemporaryDirectory(prefix="gristmill-kernel-") as temporary:
        _compile(command, source, Path(temporary) / "made")
        library = ctypes.CDLL(str(Path(temporary) / "made" / _library(source)))
    kernel = f"the {source.stem} kernel"
    reason = f"The folder {kernels} is not this user's alone, so that {kernel} was compiled for this run only."
    return Kernel(library, f"{reason} Name a folder of your own in GRISTMILL_CACHE.", build)


def _library(source: Path) -> str:
    return f"{source.stem}.so"


def _intact(library: Path) -> bool:
    """Whether the library is whole and as it was compiled: its digest is kept beside it."""
    try:
        digest = library.with_name(_DIGEST).read_text()
        return digest == hashlib.sha256(library.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return False


def _compiler() -> list[str]:
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise KernelMissingError(f"the environment variable CC cannot be read: {error}") from error
    for candidate in [chosen] if chosen else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(candidate[0]):
            return candidate
    raise KernelMissingError("no C compiler was found (install gcc, or name one in CC)")


def _compile(command: list[str], source: Path, folder: Path) -> None:
    """Make ``folder`` with the library and its digest."""
    folder.mkdir(mode=0o700)
    library = folder / _library(source)
    done = subprocess.run(
        [*command, "-o", str(library), str(source), "-lm"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise KernelMissingError(f"'{command[0]}' could not compile the {source.stem} kernel: {reason}")
    library.chmod(0o600)
    digest = folder / _DIGEST
    digest.write_text(hashlib.sha256(library.read_bytes()).hexdigest())
    digest.chmod(0o600)


def _fingerprint(command: list[str], source: Path) -> str:
    """Changes with whatever the compiled code depends on: source, command, compiler, and kind of processor."""
    version = subprocess.run([command[0], "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(source.read_bytes())
    for part in (" ".join(command).encode(), version, processor_digest().encode()):
        digest.update(part)
    return digest.hexdigest()[:16]
