"""What every receipt says about where and when it was measured."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("receipts")
#: The folders of a path, in a text or behind a "=": an organisation of the hub is none.
_FOLDERS = re.compile(r"(?P<before>^|[\s=])(?:~|\.{1,2})?/(?:[^\s=]*/)?")


def machine() -> dict[str, Any]:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": round(memory / 1e9, 1), "system": platform.platform()}


def without_folders(text: str) -> str:
    """A command, an option or a model without the machine's own paths."""
    return _FOLDERS.sub(r"\g<before>", text)


def write(name: str, content: dict[str, Any], packages: tuple[str, ...] = ()) -> Path:
    """Write ``receipts/NAME.json`` with the machine, the commit and the versions beside the measurement."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    receipt = {
        "benchmark": name,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in ("gristmill", *packages)},
        "machine": machine(),
        **content,
    }
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(receipt, indent=2) + "\n")
    return path
