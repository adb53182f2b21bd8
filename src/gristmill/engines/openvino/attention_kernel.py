"""Our own attention kernel (attention.c): compiled once for this machine, kept in the cache folder, called by ctypes.

It needs a C compiler (``cc``, ``gcc`` or ``clang``, or the one that ``CC`` names). Without one the engine uses
OpenVINO's kernel, which reads a shared prefix once for every row.
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

from gristmill.models.cache import cache_folder

#: Both as in attention.c.
BLOCK_SIZE = 32
TILE_ROWS = 192
_MAX_DIM = 256

_SOURCE = Path(__file__).with_name("attention.c")
_FLAGS = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared")


class KernelMissingError(Exception):
    """There is no kernel for this machine; the message says why."""


class AttentionShape(ctypes.Structure):
    """``Shape`` of attention.c: query heads, key and value heads, size of a head, factor of the scores."""

    _fields_ = (
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("dim", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )
    heads: int
    kv_heads: int
    dim: int

    @property
    def supported(self) -> bool:
        fits = self.dim % BLOCK_SIZE == 0 and self.dim <= _MAX_DIM
        return fits and self.heads % self.kv_heads == 0 and self.heads // self.kv_heads <= TILE_ROWS


def load_kernel() -> ctypes.CDLL:
    """The compiled kernel, from the cache where it has been compiled before. Raises KernelMissingError."""
    compiler = _compiler()
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    command = [*compiler, *_FLAGS, native]
    target = cache_folder() / "kernels" / f"attention-{_fingerprint(command)}.so"
    try:
        if not target.is_file():
            _compile(command, target)
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise KernelMissingError(f"the compiled attention kernel cannot be used: {error}") from error


def _compiler() -> list[str]:
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise KernelMissingError(f"the environment variable CC cannot be read: {error}") from error
    for candidate in [chosen] if chosen else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(candidate[0]):
            return candidate
    raise KernelMissingError("no C compiler was found (install gcc, or name one in CC)")


def _compile(command: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "attention.so"
        done = subprocess.run(
            [*command, "-o", str(made), str(_SOURCE), "-lm"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = done.stderr.strip() or f"exit code {done.returncode}"
            raise KernelMissingError(f"'{command[0]}' could not compile the attention kernel: {reason}")
        made.replace(target)


def _fingerprint(command: list[str]) -> str:
    """Changes with whatever the compiled code depends on: source, command, compiler, and kind of processor."""
    version = subprocess.run([command[0], "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(_SOURCE.read_bytes())
    for part in (" ".join(command).encode(), version, _processor()):
        digest.update(part)
    return digest.hexdigest()[:16]


def _processor() -> bytes:
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    return b"\n".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))
