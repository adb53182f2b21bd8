"""Which engine runs a model where none is named, and why."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from gguf import GGUFWriter

from gristmill.engines.choice import EngineChoice, MachineFacts, choose_engine
from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
from gristmill.engines.embedded.support import ModelFacts, read_model_facts
from gristmill.engines.registry import EngineSettings, with_engine
from gristmill.models.locate import locate
from gristmill.user_error import UserError

GIB = 2**30
BOTH = MachineFacts(frozenset({"openvino", "llama_cpp"}), None, 16 * GIB)
OPENVINO = MachineFacts(frozenset({"openvino"}))
LLAMA_CPP = MachineFacts(frozenset({"llama_cpp"}))
NEITHER = MachineFacts(frozenset())
SMALL = ModelFacts("m", "gguf", "llama", 135_000_000)


@pytest.mark.parametrize(
    ("model", "machine", "choice"),
    [
        (SMALL, BOTH, ("openvino", "the faster one on a CPU")),
        (ModelFacts("m", "ir"), BOTH, ("openvino", "it is OpenVINO IR, which llama.cpp does not read")),
        (
            SMALL,
            BOTH._replace(gpu="NVIDIA H100 through CUDA"),
            ("llama_cpp", "it computes on NVIDIA H100 through CUDA"),
        ),
        (SMALL._replace(sees=True), BOTH, ("llama_cpp", "it reads images")),
        (SMALL._replace(parameters=8 * 10**9), BOTH, ("llama_cpp", "OpenVINO would need 15 GiB for the weights")),
        (SMALL._replace(parameters=8 * 10**9), OPENVINO, ("openvino", "llama.cpp is not installed")),
        (SMALL, LLAMA_CPP, ("llama_cpp", "OpenVINO is not installed")),
        (SMALL._replace(architecture="phi3"), BOTH, ("llama_cpp", "OpenVINO's reader does not know phi3")),
        (SMALL._replace(architecture="gemma3"), BOTH, ("openvino", "the faster one on a CPU")),
        (
            SMALL._replace(architecture="gemma3", parameters=12 * 10**9),
            BOTH,
            ("llama_cpp", "OpenVINO would need 45 GiB for the weights"),
        ),
        (SMALL._replace(architecture="gemma3"), LLAMA_CPP, ("llama_cpp", "OpenVINO is not installed")),
        (SMALL._replace(experts=True), BOTH, ("llama_cpp", "OpenVINO's reader knows no mixture of experts")),
    ],
)
def test_the_fastest_that_can_load_it(model: ModelFacts, machine: MachineFacts, choice: tuple[str, str]) -> None:
    assert choose_engine(model, machine) == choice


def test_the_choice_is_one_line() -> None:
    choice = EngineChoice("llama_cpp", "OpenVINO's reader does not know phi3")
    assert choice.sentence("phi-4-mini") == "phi-4-mini: llama.cpp (OpenVINO's reader does not know phi3)"


@pytest.mark.parametrize(
    ("model", "machine", "words"),
    [
        (SMALL, NEITHER, "m needs OpenVINO, which is not installed: run pip install 'gristmill[embedded]'."),
        (
            SMALL._replace(architecture="phi3"),
            OPENVINO,
            "m needs llama.cpp (OpenVINO's reader does not know phi3), which is not installed: run pip install "
            "'gristmill[llama-cpp]'.",
        ),
        (
            SMALL._replace(architecture="gemma3"),
            OPENVINO,
            "m needs llama.cpp (for gemma3 on OpenVINO, llama.cpp reads the tokenizer), which is not installed: run "
            "pip install 'gristmill[llama-cpp]'.",
        ),
        (
            ModelFacts("m", "ir"),
            LLAMA_CPP,
            "m needs OpenVINO (it is OpenVINO IR, which llama.cpp does not read), which is not installed: run pip "
            "install 'gristmill[embedded]'.",
        ),
    ],
)
def test_where_nothing_here_can_it_is_said_what_to_install(
    model: ModelFacts, machine: MachineFacts, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        choose_engine(model, machine)
    assert str(caught.value) == words


def written(
    path: Path, architecture: str = "llama", rope: str | None = None, freqs: bool = False, picture: bool = False
) -> ModelFacts:
    writer = GGUFWriter(path, architecture)
    if rope is not None:
        writer.add_string(f"{architecture}.rope.scaling.type", rope)
    writer.add_tensor("token_embd.weight", numpy.zeros((4, 8), numpy.float32))
    if picture:
        writer.add_tensor("v.patch_embd.weight", numpy.ones(4, numpy.float32))
    if freqs:
        writer.add_tensor("rope_freqs.weight", numpy.ones(4, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_model_facts("m", locate(str(path)))


def test_what_openvinos_reader_would_get_wrong_in_silence_is_left_to_llama_cpp(tmp_path: Path) -> None:
    plain = written(tmp_path / "plain.gguf", rope="none")
    assert (plain.architecture, plain.parameters, plain.scaled_rope) == ("llama", 32, False)
    yarn = written(tmp_path / "yarn.gguf", rope="yarn")
    assert "does not scale rotary positions" in choose_engine(yarn, BOTH).reason
    # These two are put right behind it.
    assert not written(tmp_path / "llama31.gguf", freqs=True).scaled_rope
    assert not written(tmp_path / "linear.gguf", rope="linear").scaled_rope


def test_a_layout_that_ollama_alone_reads_is_said_with_a_way_out(tmp_path: Path) -> None:
    for facts in (
        written(tmp_path / "gemma.gguf", "gemma3"),
        written(tmp_path / "gptoss.gguf", "gptoss"),
        written(tmp_path / "llama4.gguf", "llama4", picture=True),
    ):
        with pytest.raises(
            UserError, match="No embedded engine can load m: its file is in a layout of Ollama's own.*hf.co"
        ):
            choose_engine(facts, BOTH)
    assert not written(tmp_path / "clip.gguf", "clip", picture=True).ollamas_own


def test_an_address_without_an_engine_is_not_guessed_about() -> None:
    with pytest.raises(UserError, match="Say which engine is at http://gpu:11434: --engine ollama or"):
        with_engine(EngineSettings("auto", "gemma3", "http://gpu:11434"))
    settings = EngineSettings("simulated", "m")
    assert with_engine(settings) == (settings, None)


def test_a_library_of_llama_cpp_says_which_engine_it_is_for() -> None:
    settings = EngineSettings("auto", options={"library": "/opt/llama.cpp/build/bin"})
    assert with_engine(settings) == (settings._replace(engine="llama_cpp"), None)


def test_an_engine_that_is_named_says_at_once_that_it_cannot_load_the_model(tmp_path: Path) -> None:
    written(tmp_path / "phi.gguf", "phi3")
    engine = OpenVinoEngine(OpenVinoOptions(), str(tmp_path / "phi.gguf"))
    with pytest.raises(
        UserError, match="cannot load '.*phi.gguf': OpenVINO's reader does not know phi3. Leave --engine"
    ):
        engine.served_name()
