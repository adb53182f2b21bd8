"""What a bench was measured on, without names or addresses."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from gristmill.bench.receipt import Machine


def this_machine() -> Machine:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(cpu, os.cpu_count() or 1, round(memory / 1e9, 1), platform.platform())
