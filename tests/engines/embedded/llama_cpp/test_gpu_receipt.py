"""What ``benchmarks/gpu`` calls a figure of a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gristmill.engines.embedded.llama_cpp.computing import Hardware, Offload, computing
from gristmill.engines.embedded.llama_cpp.devices import Device

CPU = Device("CPU", "A processor", "CPU", "cpu", 2**34, 2**35)
GPU = Device("CUDA0", "NVIDIA GeForce RTX 4080", "CUDA", "gpu", 2**33, 2**34)
SOFTWARE = Device("Vulkan0", "llvmpipe (LLVM 15.0.6, 256 bits)", "Vulkan", "gpu", 2**33, 2**34)


BENCHMARKS = Path(__file__).resolve().parents[4] / "benchmarks"


@pytest.fixture
def gpu_facts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "gpu"))
    import gpu_facts

    return gpu_facts


@pytest.mark.parametrize(
    ("devices", "offload", "expected"),
    [
        ([CPU], Offload(0, 33), ("cpu", None)),
        ([CPU, GPU], Offload(0, 33), ("cpu", None)),
        ([CPU, SOFTWARE], Offload(33, 33), ("cpu", None)),
        ([CPU, GPU], Offload(20, 33), ("gpu", "20 of 33")),
        ([CPU, GPU], Offload(33, 33), ("gpu", "all")),
    ],
)
def test_where_the_engine_computed_is_read_from_what_it_says(gpu_facts, devices, offload, expected):
    told = computing(devices, offload, "AVX-512", Hardware((), "AVX-512"), "llama.cpp 0.6")
    assert gpu_facts.placement(told.on) == expected


def test_what_a_cpu_computed_is_in_no_receipt_of_a_gpu(gpu_facts):
    on_cpu, on_gpu = gpu_facts.Placement("cpu", None), gpu_facts.Placement("gpu", "all")
    assert gpu_facts.receipt_name("gpu-mine", on_cpu, []) == "cpu-mine"
    assert gpu_facts.receipt_name(None, on_cpu, [{"name": "NVIDIA GeForce RTX 4080"}]) == "cpu-side-by-side"
    assert gpu_facts.receipt_name(None, on_gpu, [{"name": "NVIDIA GeForce RTX 4080"}]) == "gpu-nvidia-geforce-rtx-4080"
    assert gpu_facts.receipt_name("gpu-mine", on_gpu, []) == "gpu-mine"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/opt/llama.cpp/build/bin/llama-server", "llama-server"),
        ("../models/mine/m.gguf", "m.gguf"),
        ("~/models/m.gguf", "m.gguf"),
        ("--lora=/home/me/adapter.gguf", "--lora=adapter.gguf"),
        ("organisation/model", "organisation/model"),
        ("ollama:hf.co/organisation/model:Q4_K_M", "ollama:hf.co/organisation/model:Q4_K_M"),
        ("-np 8", "-np 8"),
    ],
)
def test_a_receipt_has_no_folders_of_the_machine(monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import receipt

    assert receipt.without_folders(text) == told
