"""Which engine runs a model where the user names none: the fastest that can load it.

``choose_engine`` is pure; what it decides by is gathered here, too.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from typing import NamedTuple

from gristmill.engines.embedded.support import (
    ModelFacts,
    catalog_facts,
    llama_cpp_obstacle,
    openvino_obstacle,
    read_model_facts,
)
from gristmill.models.catalog import DEFAULT_MODEL
from gristmill.models.locate import locate
from gristmill.user_error import UserError

#: An engine's name that leaves the choice to this.
AUTOMATIC = "auto"
#: The Python packages that an engine needs, and the extra that has them.
_PACKAGES = {"openvino": ("openvino", "openvino_genai", "openvino_tokenizers"), "llama_cpp": ("xllamacpp",)}
_EXTRAS = {"openvino": "embedded", "llama_cpp": "llama-cpp"}
_SHOWN = {"openvino": "OpenVINO", "llama_cpp": "llama.cpp"}
#: Of the memory, so much may go to the weights as OpenVINO has them.
_MOST_MEMORY = 1 / 4
#: Prints the GPU that llama.cpp would give layers to, or an empty line.
_ASK = """
from gristmill.engines.embedded.llama_cpp.devices import list_devices, offload_targets
from gristmill.engines.embedded.llama_cpp.library import load_library
targets = offload_targets(list_devices(load_library("")))
print(", ".join(f"{each.description or each.name} through {each.backend}" for each in targets))
"""
_PATIENCE = 60.0


class MachineFacts(NamedTuple):
    """``engines`` are those whose packages are installed. ``gpu``: one that llama.cpp can use, by name. ``memory`` in
    bytes, all that the machine has."""

    engines: frozenset[str]
    gpu: str | None = None
    memory: int | None = None


class EngineChoice(NamedTuple):
    """``reason`` as it stands in parentheses."""

    engine: str
    reason: str

    def sentence(self, model: str) -> str:
        return f"{model}: {_SHOWN[self.engine]} ({self.reason})"


def choose_engine(model: ModelFacts, machine: MachineFacts) -> EngineChoice:
    """Raises UserError, saying what to install, where nothing that is installed can load it."""
    obstacles = {"openvino": openvino_obstacle(model), "llama_cpp": llama_cpp_obstacle(model)}
    if obstacles["openvino"] is None and model.tokenized_by_llama_cpp and "llama_cpp" not in machine.engines:
        obstacles["openvino"] = f"for {model.architecture} on OpenVINO, llama.cpp reads the tokenizer"
    able = [engine for engine, obstacle in obstacles.items() if obstacle is None]
    here = [engine for engine in able if engine in machine.engines]
    if not here:
        raise _nothing_loads(model, obstacles, able)
    if len(here) == 1:
        (engine,) = here
        other = "llama_cpp" if engine == "openvino" else "openvino"
        return EngineChoice(engine, obstacles[other] or f"{_SHOWN[other]} is not installed")
    if machine.gpu is not None:
        return EngineChoice("llama_cpp", f"it computes on {machine.gpu}")
    if model.sees:
        return EngineChoice("llama_cpp", "it reads images")
    weights = model.openvino_bytes
    if machine.memory is not None and weights > machine.memory * _MOST_MEMORY:
        return EngineChoice("llama_cpp", f"OpenVINO would need {weights / 2**30:.0f} GiB for the weights")
    return EngineChoice("openvino", "the faster one on a CPU")


def _nothing_loads(model: ModelFacts, obstacles: dict[str, str | None], able: list[str]) -> UserError:
    if not able:
        reasons = "; ".join(dict.fromkeys(filter(None, obstacles.values())))
        return UserError(f"No embedded engine can load {model.name}: {reasons}.")
    (engine, *_) = able
    because = "; ".join(reason for reason in obstacles.values() if reason)
    why = f" ({because})" if because else ""
    return UserError(
        f"{model.name} needs {_SHOWN[engine]}{why}, which is not installed: run pip install "
        f"'gristmill[{_EXTRAS[engine]}]'."
    )


class Runnable(NamedTuple):
    """Which engine runs a model, or why none does, as a sentence."""

    engine: str | None
    obstacle: str | None


def engine_of(model: ModelFacts, machine: MachineFacts) -> Runnable:
    try:
        return Runnable(choose_engine(model, machine).engine, None)
    except UserError as error:
        return Runnable(None, str(error))


def choose_for(source: str | None) -> EngineChoice:
    """For what the user calls the model; without a name, the one that engines have then. Raises UserError where it is
    not on this machine, or nothing here can load it."""
    name, machine = source or DEFAULT_MODEL, machine_facts()
    # What to install comes before what to pull.
    if known := catalog_facts(name):
        choose_engine(known, machine)
    return choose_engine(read_model_facts(name, locate(name)), machine)


def machine_facts() -> MachineFacts:
    installed = frozenset(engine for engine, packages in _PACKAGES.items() if all(map(_is_installed, packages)))
    gpu = _gpu() if "llama_cpp" in installed else None
    return MachineFacts(installed, gpu, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@functools.cache
def _gpu() -> str | None:
    """In a process of its own: a driver takes memory of the GPU from whoever asks, for as long as that lives. Where no
    driver has a device, nobody is asked."""
    from gristmill.engines.embedded.llama_cpp.computing import this_hardware

    if not this_hardware().drivers:
        return None
    try:
        asked = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = asked.stdout.splitlines()
    return lines[-1] if asked.returncode == 0 and lines and lines[-1] else None


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
