"""GGUF files in a layout of Ollama's own: which they are, and the same model as llama.cpp's converter would lay it out.
Pure.

Ollama's llama.cpp translates them as it loads them. The marks and rules are those of llama/compat in
https://github.com/ollama/ollama (``handle_gemma3``, ``handle_gptoss``), for the half that reads text; what its
converter leaves out besides is as in llama.cpp's conversion/gemma.py.
"""

from __future__ import annotations

import re

from gristmill.models.gguf_header import GgufHeader
from gristmill.models.gguf_layout import (
    GgufLayout,
    GgufTensor,
    GgufValue,
    bool_value,
    first_of,
    float_value,
    string_value,
    uint_value,
)

#: Raise it when the rules change: part of what a rewritten file is called, and of what tells models apart.
RULES = 1
#: Of tensors: the half that reads pictures.
_PICTURES = ("v.", "mm.")
#: Of architectures that llama.cpp calls otherwise, or does not know.
_OLLAMAS_NAMES = frozenset({"deepseekocr", "glm4moelite", "glmocr", "gptoss", "mllama", "qwen25vl"})
#: In files of gemma3 that llama.cpp's converter wrote, there is none of these.
_GEMMA3_MARKS = (
    "gemma3.rope.global.freq_base", "gemma3.rope.local.freq_base", "tokenizer.ggml.add_padding_token",
    "tokenizer.ggml.add_unknown_token",
)  # fmt: skip
_VOCABULARY = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")
#: From this context on, Gemma 3 was trained with positions that are scaled.
_SCALED_CONTEXT = 131072
#: All that llama.cpp reads of these two: a file with another tensor is of a layout that is not known here.
_GEMMA3_TENSORS = re.compile(
    r"(token_embd|output_norm|output|blk\.\d+\.(attn_(norm|q|k|v|output|q_norm|k_norm)|post_attention_norm|ffn_norm|"
    r"ffn_(gate|up|down)|post_ffw_norm))\.weight"
)
_GPT_OSS_TENSORS = re.compile(
    r"(token_embd|output_norm|output|blk\.\d+\.(attn_norm|attn_sinks|post_attention_norm))\.weight|"
    r"blk\.\d+\.(attn_(q|k|v|output)|ffn_gate_inp|ffn_(gate|up|down)_exps)\.(weight|bias)"
)


def is_ollamas_own(header: GgufHeader) -> bool:
    """Files that Ollama itself made of some models: the picture half in the same file, or names of its own."""
    architecture = header.metadata.get("general.architecture")
    if architecture in _OLLAMAS_NAMES:
        return True
    if architecture == "gemma3" and (
        f"{architecture}.attention.layer_norm_rms_epsilon" not in header.metadata
        or any(mark in header.metadata for mark in _GEMMA3_MARKS)
    ):
        return True
    return architecture not in (None, "clip") and any(name.startswith(_PICTURES) for name in header.tensors)


def has_pictures(layout: GgufLayout) -> bool:
    return any(tensor.name.startswith(_PICTURES) for tensor in layout.tensors)


def for_llama_cpp(layout: GgufLayout) -> GgufLayout | None:
    """Of a file that ``is_ollamas_own``: its text half as llama.cpp reads it, the tensors' data where they are. None
    where it does not fit the rules that are known here."""
    match layout.scalar("general.architecture"):
        case "gemma3":
            made, known = _gemma3(layout), _GEMMA3_TENSORS
        case "gptoss":
            made, known = _gpt_oss(layout), _GPT_OSS_TENSORS
        case _:
            return None
    if made is None or not made.tensors:
        return None
    names = [tensor.name for tensor in made.tensors]
    whole = all(tensor.size for tensor in made.tensors) and len(set(names)) == len(names)
    return made if whole and all(map(known.fullmatch, names)) else None


def _gemma3(layout: GgufLayout) -> GgufLayout | None:
    embedding = _tensor(layout, "token_embd.weight")
    context = layout.scalar("gemma3.context_length")
    if embedding is None or len(embedding.shape) != 2 or not isinstance(context, int):
        return None
    renamed = {
        "gemma3.rope.global.freq_base": "gemma3.rope.freq_base",
        "gemma3.rope.local.freq_base": "gemma3.rope.freq_base_swa",
    }
    values: dict[str, GgufValue] = {}
    for key, value in layout.values.items():
        if key.startswith(("gemma3.vision.", "gemma3.mm.")) or renamed.get(key) in layout.values:
            continue
        # Tokens of pictures, which have no row in the matrix.
        values[renamed.get(key, key)] = first_of(value, embedding.shape[1]) if key in _VOCABULARY else value
    missing = {
        "gemma3.attention.layer_norm_rms_epsilon": float_value(1e-6),
        "gemma3.rope.freq_base": float_value(1_000_000.0),
        "gemma3.rope.freq_base_swa": float_value(10_000.0),
        # llama.cpp would put a space before every text, which Ollama and Gemma do not.
        "tokenizer.ggml.add_space_prefix": bool_value(False),
    }
    if context >= _SCALED_CONTEXT:
        missing |= {
            "gemma3.rope.scaling.type": string_value("linear"),
            "gemma3.rope.scaling.factor": float_value(8.0),
        }
    tensors = tuple(tensor for tensor in layout.tensors if not tensor.name.startswith(_PICTURES))
    return GgufLayout(missing | values, tensors)


def _gpt_oss(layout: GgufLayout) -> GgufLayout | None:
    gate = _tensor(layout, "blk.0.ffn_gate_exps.weight")
    if gate is None or len(gate.shape) != 3:
        return None
    values = {re.sub(r"^gptoss\.", "gpt-oss.", key): value for key, value in layout.values.items()}
    missing = {
        "gpt-oss.expert_feed_forward_length": uint_value(gate.shape[1]),
        "gpt-oss.rope.scaling.type": string_value("yarn"),
    }
    # Its file names the usual one, by which prompts become other tokens.
    fixed = {"general.architecture": string_value("gpt-oss"), "tokenizer.ggml.pre": string_value("gpt-4o")}
    tensors = tuple(tensor._replace(name=_gpt_oss_name(tensor.name)) for tensor in layout.tensors)
    return GgufLayout(missing | values | fixed, tensors)


def _gpt_oss_name(name: str) -> str:
    name = name.replace(".attn_out.", ".attn_output.").replace(".ffn_norm.", ".post_attention_norm.")
    return f"{name}.weight" if name.endswith(".attn_sinks") else name


def _tensor(layout: GgufLayout, name: str) -> GgufTensor | None:
    return next((tensor for tensor in layout.tensors if tensor.name == name), None)
