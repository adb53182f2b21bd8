"""What llama.cpp can compute on here, and how that is told to people."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Literal, NamedTuple

from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary
from gristmill.engines.protocol import Computing

#: ``ggml_backend_dev_type``.
_KINDS: dict[int, Literal["cpu", "gpu", "integrated", "accelerator"]] = {
    0: "cpu", 1: "gpu", 2: "integrated", 3: "accelerator",
}  # fmt: skip
#: Instruction sets of the CPU backend that are worth naming, the fastest first; ``llama_print_system_info`` has them.
_INSTRUCTIONS = (
    ("AMX_INT8", "AMX"), ("AVX512", "AVX-512"), ("AVX2", "AVX2"), ("AVX", "AVX"), ("SVE", "SVE"), ("NEON", "NEON"),
)  # fmt: skip
#: Device files of a GPU's driver, whose it is, and what of xllamacpp's wheels is for it.
_DRIVERS = (
    ("/dev/nvidia0", "an NVIDIA GPU", "CUDA"),
    ("/dev/kfd", "an AMD GPU", "ROCm"),
    ("/dev/dri/renderD128", "a GPU", "Vulkan"),
)


class Device(NamedTuple):
    """``name`` is llama.cpp's own ("CUDA0"), ``description`` the maker's. Memory in bytes, as the driver said when it
    was asked. ``backend`` is what llama.cpp reaches it through ("CUDA")."""

    name: str
    description: str
    backend: str
    kind: Literal["cpu", "gpu", "integrated", "accelerator"]
    free: int
    total: int

    @property
    def is_gpu(self) -> bool:
        return self.kind in ("gpu", "integrated")


class Offload(NamedTuple):
    """How many of the model's ``layers`` (the output counts as one) the GPUs compute."""

    on_gpu: int
    layers: int


def list_devices(library: LlamaLibrary) -> list[Device]:
    devices = []
    for index in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        backend = library.ggml_backend_reg_name(library.ggml_backend_dev_backend_reg(device))
        devices.append(
            Device(
                library.ggml_backend_dev_name(device).decode("utf-8", "replace"),
                library.ggml_backend_dev_description(device).decode("utf-8", "replace").strip(),
                backend.decode("utf-8", "replace"),
                _KINDS.get(library.ggml_backend_dev_type(device), "accelerator"),
                free.value,
                total.value,
            )
        )
    return devices


def offload_targets(devices: list[Device]) -> list[Device]:
    """The devices that llama.cpp gives layers to: the GPUs; a graphics unit within the processor only where there is no
    other (``llama_prepare_model_devices``)."""
    gpus = [device for device in devices if device.kind == "gpu"]
    return gpus or [device for device in devices if device.kind == "integrated"][:1]


def instructions(library: LlamaLibrary) -> str:
    """The widest instructions that the CPU backend was built for and this processor has."""
    told = library.llama_print_system_info().decode("utf-8", "replace")
    return widest_instructions(told)


def widest_instructions(told: str) -> str:
    """Of ``llama_print_system_info``; empty where it names none. Pure."""
    return next((shown for name, shown in _INSTRUCTIONS if f"{name} = 1" in told), "")


def driver_files() -> list[str]:
    """The device files of GPU drivers that there are."""
    return [path for path, _, _ in _DRIVERS if Path(path).exists()]


def computing(
    devices: list[Device], offload: Offload, instructions: str, drivers: list[str], library: str
) -> Computing:
    """What computes, for a person. ``drivers``: the device files of GPU drivers; ``library``: llama.cpp's version.
    Pure."""
    targets = offload_targets(devices)
    gpus = ", ".join(map(_describe, targets))
    cpu = f"the CPU ({instructions})" if instructions else "the CPU"
    if targets and offload.on_gpu >= offload.layers:
        return Computing(f"{gpus}; {library}")
    if targets and offload.on_gpu:
        some = f"{gpus}: {offload.on_gpu} of {offload.layers} layers, the others on {cpu}; {library}"
        return Computing(some, "A smaller quantisation, or less with -O kv_cache_gb=, makes room for more layers.")
    if targets:
        return Computing(f"{cpu}, and no layers on {gpus}; {library}", "Leave out -O gpu_layers=, or free its memory.")
    return Computing(f"{cpu}; {library}", _advice(drivers))


def _advice(drivers: list[str]) -> str | None:
    for path, whose, wheel in _DRIVERS:
        if path in drivers:
            return (
                f"There seems to be {whose}, for which this llama.cpp has no backend: install xllamacpp's {wheel} "
                "wheel (docs/how-to/gpu.md), or name another build with -O library=."
            )
    return None


def _describe(device: Device) -> str:
    gib = 1024**3
    memory = f"{device.free / gib:.1f} of {device.total / gib:.1f} GiB free"
    return f"{device.description or device.name} through {device.backend}, {memory}"
