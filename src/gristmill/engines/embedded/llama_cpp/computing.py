"""What computes, and what would be faster on this machine, as it is told to people."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from gristmill.engines.embedded.llama_cpp.devices import Device, offload_targets
from gristmill.engines.protocol import Computing

#: Instructions of processors that make products of matrices faster, the fastest first: as people call them, as
#: ``llama_print_system_info`` does, and as the kernel does in /proc/cpuinfo.
_INSTRUCTIONS = (
    ("AMX", "AMX_INT8", "amx_int8"),
    ("AVX-512", "AVX512", "avx512f"),
    ("AVX2", "AVX2", "avx2"),
    ("AVX", "AVX", "avx"),
    ("SVE", "SVE", "sve"),
    ("NEON", "NEON", "asimd"),
)
#: Device files of a GPU's driver, whose it is, and what of xllamacpp's wheels is for it.
_DRIVERS = (
    ("/dev/nvidia0", "an NVIDIA GPU", "CUDA"),
    ("/dev/kfd", "an AMD GPU", "ROCm"),
    ("/dev/dri/renderD128", "a GPU", "Vulkan"),
)
#: A build of llama.cpp with a library for each generation of processors.
_FOR_EVERY_PROCESSOR = "npm's @node-llama-cpp/linux-x64"


class Offload(NamedTuple):
    """How many of the model's ``layers`` (the output counts as one) the GPUs compute."""

    on_gpu: int
    layers: int


class Hardware(NamedTuple):
    """``drivers``: the device files of GPU drivers that there are; ``instructions``: the fastest that the processor
    has, empty where that is not known."""

    drivers: tuple[str, ...]
    instructions: str


def this_hardware(processors: Path = Path("/proc/cpuinfo")) -> Hardware:
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        for line in processors.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    fastest = next((name for name, _, flag in _INSTRUCTIONS if flag in flags), "")
    return Hardware(tuple(path for path, _, _ in _DRIVERS if Path(path).exists()), fastest)


def used_instructions(system_info: str) -> str:
    """The fastest that the library was built for and that the processor has, by ``llama_print_system_info``; empty
    where it names none. Pure."""
    return next((name for name, told, _ in _INSTRUCTIONS if f"{told} = 1" in system_info), "")


def computing(devices: list[Device], offload: Offload, used: str, hardware: Hardware, library: str) -> Computing:
    """``used``: the processor's instructions; ``library``: llama.cpp's version. Pure."""
    targets = offload_targets(devices)
    gpus = ", ".join(map(_describe, targets))
    cpu = f"the CPU ({used})" if used else "the CPU"
    if targets and offload.on_gpu >= offload.layers:
        return Computing(f"{gpus}; {library}")
    if targets and offload.on_gpu:
        some = f"{gpus}: {offload.on_gpu} of {offload.layers} layers, the others on {cpu}; {library}"
        return Computing(some, "A smaller quantisation, or less with -O kv_cache_gb=, makes room for more layers.")
    if targets:
        return Computing(f"{cpu}, and no layers on {gpus}; {library}", "Leave out -O gpu_layers=, or free its memory.")
    return Computing(f"{cpu}; {library}", _advice(used, hardware))


def _advice(used: str, hardware: Hardware) -> str | None:
    for path, whose, wheel in _DRIVERS:
        if path in hardware.drivers:
            return (
                f"There seems to be {whose}, for which this llama.cpp has no backend: install xllamacpp's {wheel} "
                "wheel (docs/how-to/gpu.md), or name another build with -O library=."
            )
    names = [name for name, _, _ in _INSTRUCTIONS]
    if hardware.instructions and used and names.index(hardware.instructions) < names.index(used):
        return (
            f"The processor has {hardware.instructions}, for which this llama.cpp was not built: one that was computes "
            f"faster, such as that of {_FOR_EVERY_PROCESSOR}; name its folder with -O library=."
        )
    return None


def _describe(device: Device) -> str:
    gib = 1024**3
    memory = f"{device.free / gib:.1f} of {device.total / gib:.1f} GiB free at the start"
    return f"{device.description or device.name} through {device.backend}, {memory}"
