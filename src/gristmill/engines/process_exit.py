"""Why a child process has ended, or does not answer: by exit code, what it printed, and what the system tells."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

#: How libraries say that a device or the machine has no memory left.
OUT_OF_MEMORY = re.compile(
    r"out of memory|out_?of_?(device|host)_?memory|(failed|unable) to allocate|alloc failed", re.IGNORECASE
)
#: Characters of what the process printed last.
_LONGEST_LINE = 300


def describe_death(code: int, printed: str, out_of_memory: bool) -> str:
    """``code`` as subprocess has it: negative for a signal. ``printed``: the end of its standard error.
    ``out_of_memory``: whether the system has killed processes for want of memory while it ran."""
    if code >= 0:
        how = f"exit code {code}"
    else:
        how = f"signal {-code}"
        with contextlib.suppress(ValueError):
            how = f"signal {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        how += (
            ": this machine ran out of memory; a smaller kv_cache_gb needs less"
            if out_of_memory
            else ": by hand, or because memory ran out"
        )
    last = _last_line(printed)
    return f"{how}; it printed last: {last}" if last else how


def out_of_memory_kills() -> int:
    """How many processes the system has killed for want of memory since it started; 0 where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


def is_stopped(pid: int) -> bool:
    """By SIGSTOP, SIGTSTP or a debugger: it will go on when it is told to."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _last_line(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    # What is fatal is said first, and where that was afterwards: by the interpreter, and by ggml's backends for GPUs.
    fatal = [line for line in lines if line.startswith("Fatal Python error") or OUT_OF_MEMORY.search(line)]
    chosen = (fatal or lines or [""])[-1]
    return "".join(char if char.isprintable() else " " for char in chosen[:_LONGEST_LINE])
