"""Finding, loading and binding libllama. The only file that knows what the library's functions take and return.

It comes with the Python package xllamacpp, whose extension module exports llama.cpp's whole C API (the package itself
is never imported, only its file is loaded), or is any build of llama.cpp that a path names.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int32, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from gristmill.engines.embedded.llama_cpp.llama_log import LlamaLog
from gristmill.engines.embedded.llama_cpp.structs import LAYOUTS, Layout, LlamaBatch, has_layout
from gristmill.user_error import UserError
from gristmill.user_path import user_path

PACKAGE = "xllamacpp"
INSTALL = "pip install 'gristmill[llama-cpp]'"

#: Result and arguments of every function that we call, but for those with a layout's structures.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "llama_backend_init": (None,),
    "llama_log_set": (None, c_void_p, c_void_p),
    "llama_print_system_info": (c_char_p,),
    "llama_model_free": (None, c_void_p),
    "llama_model_get_vocab": (c_void_p, c_void_p),
    "llama_model_chat_template": (c_char_p, c_void_p, c_char_p),
    "llama_model_n_swa": (c_int32, c_void_p),
    "llama_model_n_ctx_train": (c_int32, c_void_p),
    "llama_model_has_encoder": (c_bool, c_void_p),
    "llama_model_has_decoder": (c_bool, c_void_p),
    "llama_model_is_recurrent": (c_bool, c_void_p),
    "llama_model_is_hybrid": (c_bool, c_void_p),
    "llama_model_is_diffusion": (c_bool, c_void_p),
    "llama_free": (None, c_void_p),
    "llama_get_memory": (c_void_p, c_void_p),
    "llama_n_ctx": (ctypes.c_uint32, c_void_p),
    "llama_n_batch": (ctypes.c_uint32, c_void_p),
    "llama_n_seq_max": (ctypes.c_uint32, c_void_p),
    "llama_memory_clear": (None, c_void_p, c_bool),
    "llama_memory_seq_rm": (c_bool, c_void_p, c_int32, c_int32, c_int32),
    "llama_memory_seq_cp": (None, c_void_p, c_int32, c_int32, c_int32, c_int32),
    "llama_memory_seq_pos_min": (c_int32, c_void_p, c_int32),
    "llama_memory_seq_pos_max": (c_int32, c_void_p, c_int32),
    "llama_state_seq_get_size_ext": (c_size_t, c_void_p, c_int32, ctypes.c_uint32),
    "llama_state_seq_get_data_ext": (c_size_t, c_void_p, c_void_p, c_size_t, c_int32, ctypes.c_uint32),
    "llama_state_seq_set_data_ext": (c_size_t, c_void_p, c_char_p, c_size_t, c_int32, ctypes.c_uint32),
    "llama_set_abort_callback": (None, c_void_p, c_void_p, c_void_p),
    "llama_set_causal_attn": (None, c_void_p, c_bool),
    "llama_decode": (c_int32, c_void_p, LlamaBatch),
    "llama_get_logits": (POINTER(ctypes.c_float), c_void_p),
    "llama_get_embeddings_seq": (POINTER(ctypes.c_float), c_void_p, c_int32),
    "llama_model_n_embd_out": (c_int32, c_void_p),
    "llama_vocab_n_tokens": (c_int32, c_void_p),
    "llama_vocab_type": (c_int, c_void_p),
    "llama_vocab_get_text": (c_char_p, c_void_p, c_int32),
    "llama_vocab_get_attr": (c_int, c_void_p, c_int32),
    "llama_vocab_is_eog": (c_bool, c_void_p, c_int32),
    "llama_vocab_bos": (c_int32, c_void_p),
    "llama_vocab_eos": (c_int32, c_void_p),
    "llama_tokenize": (c_int32, c_void_p, c_char_p, c_int32, c_void_p, c_int32, c_bool, c_bool),
    "llama_token_to_piece": (c_int32, c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool),
    "ggml_backend_load_all_from_path": (None, c_char_p),
    "ggml_backend_dev_count": (c_size_t,),
    "ggml_backend_dev_get": (c_void_p, c_size_t),
    "ggml_backend_dev_name": (c_char_p, c_void_p),
    "ggml_backend_dev_description": (c_char_p, c_void_p),
    "ggml_backend_dev_type": (c_int, c_void_p),
    "ggml_backend_dev_memory": (None, c_void_p, POINTER(c_size_t), POINTER(c_size_t)),
    "ggml_backend_dev_backend_reg": (c_void_p, c_void_p),
    "ggml_backend_reg_name": (c_char_p, c_void_p),
}
_VERSION_FUNCTIONS = ("llama_version", "ggml_version")
#: xllamacpp's wheel brings all but this along.
_SYSTEM_LIBRARY = "Install the runtime of GCC's OpenMP: apt-get install libgomp1, or dnf install libgomp."
#: File names that may be libllama, the likeliest first.
_NAMES = ("libllama.so", "libllama.so.*", "libllama.*.so", "libllama.dylib", f"{PACKAGE}*.so", f"{PACKAGE}*.dylib")
#: Where builds and packages have it below the folder that people name.
_BELOW = (".", "lib", "lib64", "bin", "build/bin", PACKAGE)


class LlamaLibrary:
    """The functions are attributes under their own names; ``log`` keeps what the library says."""

    def __init__(self, path: Path, handle: Any, layout: Layout, version: str, log: LlamaLog) -> None:
        self.path = path
        self.layout = layout
        self.version = version
        self.log = log
        self._handle = handle
        for name, (result, *arguments) in _signatures(layout).items():
            function = getattr(handle, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def symbols(self, function: str, beside: str) -> Any:
        """What has that function besides: this library, or one of that name beside it; None where neither has."""
        if hasattr(self._handle, function):
            return self._handle
        for found in sorted(self.path.parent.glob(f"{beside}.so*")):
            try:
                handle = ctypes.CDLL(str(found))
            except OSError:
                continue
            if hasattr(handle, function):
                return handle
        return None

    def __str__(self) -> str:
        return f"llama.cpp {self.version} ({self.path.name})"


def load_library(path: str = "", echo: bool = False) -> LlamaLibrary:
    """``path``: a library, or a folder that has one; empty: the installed package's. ``echo``: what it logs goes to
    standard error. Raises UserError when there is none, or one that cannot be used. A library is loaded once."""
    library = _load(find_library(path), echo)
    # Messages go to the one that was asked for last: the same file may have been loaded with another log.
    library.llama_log_set(ctypes.cast(library.log.callback, c_void_p), None)
    return library


def find_library(path: str = "") -> Path:
    """Raises UserError."""
    if not path:
        return _installed()
    named = user_path(path)
    if named.is_file():
        return named
    if not named.is_dir():
        raise UserError(f"There is no file or folder '{named}': give the path of a llama.cpp library with -O library=.")
    for below in _BELOW:
        for name in _NAMES:
            found = sorted(each for each in (named / below).glob(name) if each.is_file())
            if found:
                return found[0]
    raise UserError(
        f"The folder '{named}' has no llama.cpp library (libllama.so): give the folder of a llama.cpp build, or the "
        "library itself, with -O library=."
    )


def _installed() -> Path:
    # Found, not imported: its module would start a server's worth of Python classes.
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    found = sorted(folder.glob(f"{PACKAGE}*.so")) if folder is not None else []
    if not found:
        raise UserError(
            f"The llama_cpp engine needs llama.cpp, which is not installed: run {INSTALL}, or name a build of "
            "llama.cpp with -O library=PATH."
        )
    return found[0]


@functools.cache
def _load(path: Path, echo: bool) -> LlamaLibrary:
    # An assertion of ggml would start a debugger to print where it was.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    # Threads meet after each of a thousand nodes a step. Those of libgomp would spin for as long as it takes, which is
    # very long where the one they wait for has no processor: with other work on the machine a step took twelve times
    # as long. So many turns is what libgomp itself takes where it knows of more threads than processors.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        help_for = _SYSTEM_LIBRARY if "libgomp" in str(error) else _advice()
        raise UserError(f"The llama.cpp library '{path}' cannot be loaded: {error}. {help_for}") from None
    if not hasattr(handle, "llama_decode"):
        raise UserError(f"'{path}' is no llama.cpp library (libllama.so): name one with -O library=. {_advice()}")
    version = _version(handle)
    missing = [name for name in (*_FUNCTIONS, *_PARAMETER_FUNCTIONS) if not hasattr(handle, name)]
    if missing:
        raise UserError(
            f"'{path}' is llama.cpp {version}, which has no {missing[0]}: this Gristmill works with {_known()}. "
            f"{_advice()}"
        )
    layout = _layout(handle)
    if layout is None:
        raise UserError(
            f"'{path}' is llama.cpp {version}, whose parameters are not laid out as in any release that this Gristmill "
            f"knows: it works with {_known()}. {_advice()}"
        )
    log = LlamaLog(echo)
    library = LlamaLibrary(path, handle, layout, version, log)
    library.llama_log_set(ctypes.cast(log.callback, c_void_p), None)
    if not library.ggml_backend_dev_count():
        # Built with backends to be loaded, such as one for each generation of processors.
        library.ggml_backend_load_all_from_path(os.fsencode(path.parent))
    if not library.ggml_backend_dev_count():
        raise UserError(
            f"The llama.cpp library '{path}' has nothing to compute on: the libggml-cpu library of its build must lie "
            "beside it."
        )
    library.llama_backend_init()
    return library


_PARAMETER_FUNCTIONS = (
    "llama_model_default_params", "llama_context_default_params", "llama_model_load_from_file", "llama_init_from_model",
)  # fmt: skip


def _signatures(layout: Layout) -> dict[str, tuple[Any, ...]]:
    return _FUNCTIONS | {
        "llama_model_default_params": (layout.model_params,),
        "llama_context_default_params": (layout.context_params,),
        "llama_model_load_from_file": (c_void_p, c_char_p, layout.model_params),
        "llama_init_from_model": (c_void_p, c_void_p, layout.context_params),
    }


def _layout(handle: Any) -> Layout | None:
    for layout in LAYOUTS:
        handle.llama_model_default_params.restype = layout.model_params
        handle.llama_context_default_params.restype = layout.context_params
        found = bytes(handle.llama_model_default_params()), bytes(handle.llama_context_default_params())
        if has_layout(layout, *found):
            return layout
    return None


def _version(handle: Any) -> str:
    """Releases before 0.5 do not say."""
    found = []
    for name in _VERSION_FUNCTIONS:
        if hasattr(handle, name):
            function = getattr(handle, name)
            function.restype = c_char_p
            found.append((function() or b"?").decode("utf-8", "replace"))
    return " with ggml ".join(found) or "of an unknown version"


def _known() -> str:
    return " and ".join(layout.versions for layout in LAYOUTS)


def _advice() -> str:
    return f"{INSTALL} gets one that fits."
