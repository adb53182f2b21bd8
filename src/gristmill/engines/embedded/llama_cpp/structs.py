"""The structures that llama.cpp takes and returns by value, and how to tell which layout of them a library has.

They are those of ``include/llama.h`` (https://github.com/ggml-org/llama.cpp). llama.cpp keeps no binary compatibility:
fields come and go with any release, and a library with another layout would read ours as something else, without a
word. So a library is asked for its default parameters, and used only where they are, field by field, the known
defaults of one of the layouts here.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

#: Bytes behind each structure: a library whose structures are longer writes its defaults there, and reads them back.
_PADDING = 1024

_MODEL_FIELDS: list[tuple[str, Any]] = [
    ("devices", ctypes.c_void_p),
    ("tensor_buft_overrides", ctypes.c_void_p),
    ("n_gpu_layers", ctypes.c_int32),
    ("split_mode", ctypes.c_int),
    ("load_mode", ctypes.c_int),
    ("lazy_mode", ctypes.c_int),
    ("main_gpu", ctypes.c_int32),
    ("tensor_split", ctypes.c_void_p),
    ("progress_callback", ctypes.c_void_p),
    ("progress_callback_user_data", ctypes.c_void_p),
    ("kv_overrides", ctypes.c_void_p),
    ("vocab_only", ctypes.c_bool),
    ("check_tensors", ctypes.c_bool),
    ("use_extra_bufts", ctypes.c_bool),
    ("no_host", ctypes.c_bool),
    ("no_alloc", ctypes.c_bool),
    ("load_mtp", ctypes.c_bool),
]

_CONTEXT_FIELDS: list[tuple[str, Any]] = [
    ("n_ctx", ctypes.c_uint32),
    ("n_batch", ctypes.c_uint32),
    ("n_ubatch", ctypes.c_uint32),
    ("n_seq_max", ctypes.c_uint32),
    ("n_rs_seq", ctypes.c_uint32),
    ("n_outputs_max", ctypes.c_uint32),
    ("n_outputs_max_per_seq", ctypes.c_uint32),
    ("n_threads", ctypes.c_int32),
    ("n_threads_batch", ctypes.c_int32),
    ("ctx_type", ctypes.c_int),
    ("rope_scaling_type", ctypes.c_int),
    ("pooling_type", ctypes.c_int),
    ("attention_type", ctypes.c_int),
    ("flash_attn_type", ctypes.c_int),
    ("rope_freq_base", ctypes.c_float),
    ("rope_freq_scale", ctypes.c_float),
    ("yarn_ext_factor", ctypes.c_float),
    ("yarn_attn_factor", ctypes.c_float),
    ("yarn_beta_fast", ctypes.c_float),
    ("yarn_beta_slow", ctypes.c_float),
    ("yarn_orig_ctx", ctypes.c_uint32),
    ("defrag_thold", ctypes.c_float),
    ("cb_eval", ctypes.c_void_p),
    ("cb_eval_user_data", ctypes.c_void_p),
    ("type_k", ctypes.c_int),
    ("type_v", ctypes.c_int),
    ("moe_cache_size", ctypes.c_size_t),
    ("abort_callback", ctypes.c_void_p),
    ("abort_callback_data", ctypes.c_void_p),
    ("embeddings", ctypes.c_bool),
    ("offload_kqv", ctypes.c_bool),
    ("no_perf", ctypes.c_bool),
    ("op_offload", ctypes.c_bool),
    ("swa_full", ctypes.c_bool),
    ("kv_unified", ctypes.c_bool),
    ("samplers", ctypes.c_void_p),
    ("n_samplers", ctypes.c_size_t),
    ("ctx_other", ctypes.c_void_p),
]

#: The defaults that are not zero (``llama_model_default_params``, ``llama_context_default_params``).
_MODEL_DEFAULTS = {"n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "use_extra_bufts": True}
_CONTEXT_DEFAULTS = {
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_outputs_max_per_seq": 1,
    "n_threads": 4, "n_threads_batch": 4,
    "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1, "flash_attn_type": -1,
    "yarn_ext_factor": -1.0, "yarn_attn_factor": -1.0, "yarn_beta_fast": -1.0, "yarn_beta_slow": -1.0,
    "defrag_thold": -1.0, "type_k": 1, "type_v": 1,
    "offload_kqv": True, "no_perf": True, "op_offload": True, "swa_full": True,
}  # fmt: skip


class LlamaBatch(ctypes.Structure):
    """``llama_batch``: ``n_tokens`` tokens with positions, the sequences each belongs to, and whether its logits are
    wanted. ``seq_id`` is an array of pointers to arrays."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    ]


class Layout(NamedTuple):
    """``versions``: the llama.cpp releases that have it, for people. The two structures are ctypes classes."""

    versions: str
    model_params: Any
    context_params: Any


def _structure(name: str, fields: list[tuple[str, Any]]) -> Any:
    return type(name, (ctypes.Structure,), {"_fields_": [*fields, ("padding", ctypes.c_char * _PADDING)]})


_MODEL_PARAMS = _structure("ModelParams", _MODEL_FIELDS)
LAYOUTS = (
    Layout("0.6 (b11434 to b11549)", _MODEL_PARAMS, _structure("ContextParams", _CONTEXT_FIELDS)),
    Layout(
        "0.5",
        _MODEL_PARAMS,
        _structure("ContextParams05", [each for each in _CONTEXT_FIELDS if each[0] != "moe_cache_size"]),
    ),
)


def has_layout(layout: Layout, model_params: bytes, context_params: bytes) -> bool:
    """Whether the bytes of a library's default parameters are those of ``layout``. Pure."""
    return _has_defaults(layout.model_params, model_params, _MODEL_DEFAULTS) and _has_defaults(
        layout.context_params, context_params, _CONTEXT_DEFAULTS
    )


def _has_defaults(structure: Any, found: bytes, defaults: dict[str, Any]) -> bool:
    params = structure.from_buffer_copy(found)
    return all(
        # A boolean of ctypes is true for any byte but 0, so that a pointer's first byte would pass for one.
        found[getattr(structure, name).offset] in (0, 1) and bool(getattr(params, name)) is bool(defaults.get(name))
        if kind is ctypes.c_bool
        else (getattr(params, name) or 0) == defaults.get(name, 0)
        for name, kind in structure._fields_
        if name != "padding"
    )
