"""What a llama.cpp library can compute on here."""

from __future__ import annotations

import ctypes
from typing import Literal, NamedTuple

from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary

#: ``ggml_backend_dev_type``.
_KINDS: dict[int, Literal["cpu", "gpu", "integrated", "accelerator"]] = {
    0: "cpu", 1: "gpu", 2: "integrated", 3: "accelerator",
}  # fmt: skip


class Device(NamedTuple):
    """``name`` is llama.cpp's own ("CUDA0"), ``description`` the maker's. Memory in bytes, as the driver said when it
    was asked. ``backend`` is what llama.cpp reaches it through ("CUDA")."""

    name: str
    description: str
    backend: str
    kind: Literal["cpu", "gpu", "integrated", "accelerator"]
    free: int
    total: int


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
