"""Which GPUs there are and what drives them, and what a contender computed on."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

_DRIVER_VERSIONS = ("/sys/module/nvidia/version", "/sys/module/amdgpu/version")

#: Vulkan devices that are the CPU.
_SOFTWARE = ("llvmpipe", "SwiftShader")


class Placement(NamedTuple):
    """``device``: "gpu" where any layer is on one. ``layers``: "all", or "20 of 33"; None on the CPU."""

    device: str
    layers: str | None


def gpus(library: str) -> list[dict[str, Any]]:
    """As the llama.cpp library sees them. In a process of its own: what has asked a GPU keeps memory on it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_gpus, library).result()


def _gpus(library: str) -> list[dict[str, Any]]:
    from gristmill.engines.embedded.llama_cpp.devices import list_devices, offload_targets
    from gristmill.engines.embedded.llama_cpp.library import load_library

    return [
        {"name": device.description, "memory_gb": round(device.total / 1e9, 1), "through": device.backend}
        for device in offload_targets(list_devices(load_library(library)))
    ]


def driver() -> str | None:
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return next((Path(path).read_text().strip() for path in _DRIVER_VERSIONS if Path(path).is_file()), None)


def placement(computes_on: str | None) -> Placement:
    """Of what the llama_cpp engine says that it computes on. Pure."""
    if not computes_on or computes_on.startswith("the CPU") or any(name in computes_on for name in _SOFTWARE):
        return Placement("cpu", None)
    some = re.search(r": (\d+ of \d+) layers", computes_on)
    return Placement("gpu", some.group(1) if some else "all")


def receipt_name(wanted: str | None, where: Placement, found: list[dict[str, Any]]) -> str:
    """What is computed on the CPU is not called a GPU's. Pure."""
    device = re.sub(r"[^a-z0-9]+", "-", found[0]["name"].lower()).strip("-") if found else "unknown"
    name = wanted or f"gpu-{device}"
    if where.device == "gpu":
        return name
    return f"cpu-{name.removeprefix('gpu-')}" if wanted else "cpu-side-by-side"
