"""What computes which layers, and how that is told."""

from __future__ import annotations

from pathlib import Path

from gristmill.engines.embedded.llama_cpp.computing import (
    Hardware,
    Offload,
    computing,
    this_hardware,
    used_instructions,
)
from gristmill.engines.embedded.llama_cpp.devices import Device, offload_targets
from gristmill.engines.embedded.llama_cpp.needs import Needs
from gristmill.engines.embedded.llama_cpp.offload import fewer_layers, layers_that_fit
from gristmill.engines.protocol import Computing

GIB = 2**30
CPU = Device("CPU", "Some Processor", "CPU", "cpu", 24 * GIB, 32 * GIB)
RTX = Device("CUDA0", "NVIDIA GeForce RTX 4080", "CUDA", "gpu", int(12.1 * GIB), 16 * GIB)
INSIDE = Device("Vulkan0", "Some Graphics", "Vulkan", "integrated", 8 * GIB, 16 * GIB)
NEEDS = Needs(layers=33, weights=8 * GIB, kv_cache=2 * GIB, step=GIB)


def test_all_layers_go_where_they_fit() -> None:
    assert layers_that_fit(NEEDS, [RTX]) == 33
    told = computing([RTX, CPU], Offload(33, 33), "AVX2", Hardware(("/dev/nvidia0",), "AMX"), "llama.cpp 0.6.0")
    assert told == Computing(
        "NVIDIA GeForce RTX 4080 through CUDA, 12.1 of 16.0 GiB free at the start; llama.cpp 0.6.0"
    )


def test_as_many_layers_as_there_is_room_for() -> None:
    small = RTX._replace(free=4 * GIB)
    # 4 GiB without the step's and half of another; a layer takes 10/33 GiB.
    assert layers_that_fit(NEEDS, [small]) == 8
    assert layers_that_fit(NEEDS, [small, small]) == 16
    assert layers_that_fit(NEEDS, [RTX._replace(free=GIB)]) == 0
    assert layers_that_fit(NEEDS, []) == 0
    told = computing([small, CPU], Offload(8, 33), "AVX2", Hardware((), "AVX2"), "llama.cpp 0.6.0")
    assert "8 of 33 layers, the others on the CPU (AVX2)" in told.on
    assert told.advice is not None and "kv_cache_gb" in told.advice


def test_where_a_driver_promised_too_much_fewer_layers_are_tried_down_to_none() -> None:
    tried = [33]
    while tried[-1]:
        tried.append(fewer_layers(tried[-1]))
    assert tried == [33, 24, 18, 13, 9, 6, 4, 3, 2, 1, 0]


def test_the_graphics_within_the_processor_is_used_only_where_there_is_no_other() -> None:
    assert offload_targets([INSIDE, RTX, CPU]) == [RTX]
    assert offload_targets([INSIDE, CPU]) == [INSIDE]
    assert offload_targets([CPU]) == []


def test_a_gpu_that_this_library_cannot_use_is_told_with_what_helps() -> None:
    def advice(drivers: tuple[str, ...], *devices: Device) -> str:
        told = computing([*devices, CPU], Offload(0, 33), "AVX2", Hardware(drivers, "AMX"), "llama.cpp 0.6.0")
        return told.advice or ""

    nvidia = advice(("/dev/dri/renderD128", "/dev/nvidia0"))
    assert "an NVIDIA GPU" in nvidia and "CUDA wheel" in nvidia
    assert "ROCm wheel" in advice(("/dev/kfd", "/dev/dri/renderD128"))
    assert "Vulkan wheel" in advice(("/dev/dri/renderD128",))
    # Nothing was asked of the GPU that is there.
    assert "gpu_layers" in advice(("/dev/nvidia0",), RTX)


def test_instructions_that_the_library_was_not_built_for_are_told() -> None:
    def told(used: str, has: str) -> Computing:
        return computing([CPU], Offload(0, 33), used, Hardware((), has), "llama.cpp 0.6.0")

    assert told("AVX2", "AVX2") == Computing("the CPU (AVX2); llama.cpp 0.6.0")
    assert "The processor has AMX" in (told("AVX2", "AMX").advice or "")
    assert told("AMX", "AMX").advice is None
    # Not known, or more than the kernel names.
    assert told("", "AMX").advice is None and told("AVX2", "").advice is None and told("AVX2", "AVX").advice is None


def test_what_a_processor_has_is_read_from_the_kernels_list(tmp_path: Path) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text("processor: 0\nflags : fpu sse avx avx2 avx512f avx512_vnni\n")
    assert this_hardware(listed).instructions == "AVX-512"
    listed.write_text("Features : fp asimd sve\n")
    assert this_hardware(listed).instructions == "SVE"
    assert this_hardware(tmp_path / "none").instructions == ""


def test_the_instructions_that_a_library_uses_are_named() -> None:
    assert used_instructions("CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1") == "AVX2"
    assert used_instructions("CPU : AVX2 = 1 | AVX512 = 1 | AMX_INT8 = 1") == "AMX"
    assert used_instructions("CPU : LLAMAFILE = 1") == ""
