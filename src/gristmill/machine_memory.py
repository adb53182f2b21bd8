"""How much memory this process may still take."""

from __future__ import annotations

import contextlib
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """In bytes: what the system has left without swapping, or a container's limit leaves; None where neither says."""
    left = []
    with contextlib.suppress(OSError, ValueError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                left.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        # "max" is no number: there is no limit.
        limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        # Files that were read are dropped where there is need.
        kept = (line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        left.append(limit - used + sum(int(size) for name, size in kept if name == "inactive_file"))
    return max(min(left), 0) if left else None
