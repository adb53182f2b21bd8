"""What tells this kind of processor from others, which may compute differently."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path


def processor_name() -> str:
    """As the system calls it, and the machine's kind where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def processor_digest() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        lines = [platform.processor().encode()]
    else:
        lines = sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))})
    return hashlib.sha256(b"\n".join(lines)).hexdigest()[:16]
