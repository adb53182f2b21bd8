"""Tiny models with random weights of the architectures that people have, each with what makes it different: head
shapes, windows shorter than the prompts, and its kind of rotary embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import vocabularies

#: Tokens of a window, in all of them; shorter than the prompts, and no multiple of a KV block.
WINDOW = 77
_SMALL = {
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 256,
    "max_position_embeddings": 4096,
}


class Vocabulary(NamedTuple):
    make: Callable[[], Any]
    bos: str | None
    eos: str
    #: Another token that ends an answer, known from generation_config.json alone.
    end: str
    #: In the manner of the family's own: a file in templates/. Llama's, Qwen's and Mistral's know tools.
    template_name: str

    @property
    def template(self) -> str:
        return (Path(__file__).parent / "templates" / f"{self.template_name}.jinja").read_text().removesuffix("\n")


_LLAMA = Vocabulary(
    lambda: vocabularies.byte_level(
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        r"\p{N}{1,3}", "<|begin_of_text|>",
    ),
    "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "llama",
)  # fmt: skip
_QWEN = Vocabulary(
    lambda: vocabularies.byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], r"\p{N}", None),
    None, "<|im_end|>", "<|endoftext|>", "qwen",
)  # fmt: skip
_MISTRAL = Vocabulary(
    lambda: vocabularies.sentencepiece(
        ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"],
        ["<unk>", "<s>", "</s>"], True, "<s>",
    ),
    "<s>", "</s>", "</s>", "mistral",
)  # fmt: skip
_PHI = Vocabulary(
    lambda: vocabularies.sentencepiece(
        ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], ["<unk>", "<s>", "</s>"], True, "<s>"
    ),
    "<s>", "<|endoftext|>", "<|end|>", "phi",
)  # fmt: skip
_GEMMA = Vocabulary(
    lambda: vocabularies.sentencepiece(
        ["<start_of_turn>", "<end_of_turn>"], ["<pad>", "<eos>", "<bos>", "<unk>"], False, "<bos>"
    ),
    "<bos>", "<eos>", "<end_of_turn>", "gemma",
)  # fmt: skip


class Architecture(NamedTuple):
    """``kind`` is transformers' name; ``settings`` what its configuration says beyond the defaults here. ``wrong`` is
    a change of it that must be seen in the answers, or the comparison would show nothing."""

    kind: str
    vocabulary: Vocabulary
    settings: dict[str, Any]
    wrong: dict[str, Any] | None = None
    #: Options of the engine, and what they change for transformers.
    options: Mapping[str, Any] = MappingProxyType({})
    reference: Mapping[str, Any] = MappingProxyType({})


def _heads(queries: int, keys: int, size: int) -> dict[str, Any]:
    return {"num_attention_heads": queries, "num_key_value_heads": keys, "head_dim": size}


def _longrope(pairs: int) -> dict[str, Any]:
    return {
        "type": "longrope",
        "short_factor": [1 + 0.02 * i for i in range(pairs)],
        "long_factor": [1 + 0.5 * i for i in range(pairs)],
    }


_LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}  # fmt: skip


def _linear(factor: float) -> dict[str, Any]:
    return {"rope_scaling": {"rope_type": "linear", "factor": factor}}


def _gemma3(**others: Any) -> dict[str, Any]:
    """Every sixth layer sees everything, with a rotary base of its own."""
    rope = {"rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0}
    return {"num_hidden_layers": 6, "sliding_window": WINDOW, "sliding_window_pattern": 6} | rope | others


_PHI4 = {
    "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 768,
    "sliding_window": None, "original_max_position_embeddings": 1024, "tie_word_embeddings": True,
    "rope_scaling": _longrope(48), "partial_rotary_factor": 0.75,
}  # fmt: skip

ARCHITECTURES = {
    "llama-3.1": Architecture(
        "llama", _LLAMA,
        _heads(8, 2, 64) | {"num_hidden_layers": 4, "rope_theta": 500_000.0, "rope_scaling": _LLAMA3_ROPE},
        {"rope_scaling": _LLAMA3_ROPE | {"factor": 9.0}},
    ),
    "mistral-0.1": Architecture(
        "mistral", _MISTRAL,
        _heads(4, 2, 128) | {"num_hidden_layers": 4, "sliding_window": WINDOW, "rope_theta": 10_000.0},
        {"sliding_window": WINDOW + 1},
    ),
    "mistral-0.3": Architecture(
        "mistral", _MISTRAL,
        _heads(4, 1, 128) | {"num_hidden_layers": 3, "sliding_window": None, "rope_theta": 1_000_000.0},
    ),
    "qwen-2.5": Architecture(
        "qwen2", _QWEN,
        _heads(6, 2, 64) | {"num_hidden_layers": 4, "hidden_size": 384, "tie_word_embeddings": True,
                            "rope_theta": 1_000_000.0},
    ),
    "qwen-2.5, window in half of the layers": Architecture(
        "qwen2", _QWEN,
        _heads(2, 2, 64) | {"num_hidden_layers": 4, "sliding_window": WINDOW, "use_sliding_window": True,
                            "max_window_layers": 2, "rope_theta": 1_000_000.0},
        {"sliding_window": WINDOW + 1},
    ),
    "qwen-3": Architecture(
        "qwen3", _QWEN,
        _heads(4, 2, 128) | {"num_hidden_layers": 4, "tie_word_embeddings": True, "rope_theta": 1_000_000.0},
    ),
    "phi-3-mini-4k": Architecture(
        "phi3", _PHI,
        {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 384,
         "sliding_window": WINDOW, "rope_theta": 10_000.0},
        {"sliding_window": WINDOW + 1},
    ),
    "phi-4-mini": Architecture(
        "phi3", _PHI, _PHI4,
        {"rope_scaling": _longrope(48) | {"short_factor": [1 + 0.021 * i for i in range(48)]}},
    ),
    "phi-4-mini, long context": Architecture(
        "phi3", _PHI, _PHI4,
        {"rope_scaling": _longrope(48) | {"long_factor": [1 + 0.51 * i for i in range(48)]}},
        {"long_context": True},
        # As transformers computes sequences beyond the first context.
        {"rope_scaling": _longrope(48) | {"short_factor": _longrope(48)["long_factor"]}},
    ),
    "gemma-3-270m": Architecture(
        "gemma3_text", _GEMMA,
        _heads(4, 1, 256) | _gemma3(query_pre_attn_scalar=256),
        {"sliding_window": WINDOW + 1},
    ),
    "gemma-3, linear scaling": Architecture(
        "gemma3_text", _GEMMA,
        _heads(4, 2, 256) | _gemma3(query_pre_attn_scalar=168, **_linear(8.0)),
        _linear(9.0),
    ),
    "gemma-2": Architecture(
        "gemma2", _GEMMA,
        _heads(4, 2, 256) | {"num_hidden_layers": 4, "query_pre_attn_scalar": 256, "sliding_window": WINDOW,
                             "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "rope_theta": 10_000.0},
        {"attn_logit_softcapping": 40.0},
    ),
}  # fmt: skip


def configuration(architecture: Architecture, token_ids: dict[str, int | None], change: Mapping[str, Any]) -> Any:
    import transformers

    settings = _SMALL | token_ids | architecture.settings | dict(change)
    # Far larger than in training, so that attention has maxima and answers depend on what a token sees.
    settings["initializer_range"] = 1.7 / settings["hidden_size"] ** 0.5
    return transformers.AutoConfig.for_model(architecture.kind, **settings)
