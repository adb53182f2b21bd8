"""Write the tests' models, ``tests/engines/embedded/openvino/architectures/NAME.zip``: IR folders of a few hundred
kilobytes, each with ``expected.json``, what float32 transformers says.

    python benchmarks/architectures/fixture.py
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vocabularies
from architectures import Architecture, Vocabulary
from convert import convert, model_of

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "engines" / "embedded" / "openvino" / "architectures"
_SIZE = 300
_COMMON = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip
_GEMMA = Vocabulary(
    lambda: vocabularies.sentencepiece(
        ["<start_of_turn>", "<end_of_turn>"], ["<pad>", "<eos>", "<bos>", "<unk>"], False, "<bos>", _SIZE
    ),
    "<bos>", "<eos>", "<end_of_turn>", "gemma",
)  # fmt: skip
_PHI = Vocabulary(
    lambda: vocabularies.sentencepiece(
        ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], ["<unk>", "<s>", "</s>"], True, "<s>", _SIZE
    ),
    "<s>", "<|endoftext|>", "<|im_end|>", "qwen",
)  # fmt: skip
_LONG = [1 + 0.5 * i for i in range(12)]
_ROPE = {"type": "longrope", "short_factor": [1 + 0.02 * i for i in range(12)], "long_factor": _LONG}

MODELS = {
    #: A layer with a window of 37 tokens, one without.
    "gemma3": Architecture(
        "gemma3_text", _GEMMA,
        _COMMON | {"query_pre_attn_scalar": 32, "sliding_window": 37, "sliding_window_pattern": 2},
    ),
    #: Two sets of rotary factors, and (which no Phi has) a template that knows tools.
    "phi3": Architecture(
        "phi3", _PHI,
        _COMMON | {"hidden_size": 64, "sliding_window": None, "original_max_position_embeddings": 128,
                   "rope_scaling": _ROPE, "partial_rotary_factor": 0.75},
        reference={"rope_scaling": _ROPE | {"short_factor": _LONG}},
    ),
}  # fmt: skip
_LENGTHS = (1, 36, 37, 38, 64, 127)


def after(model: Any, tokens: list[int]) -> list[float]:
    """Natural log-probabilities of what comes next."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, -1]
    return [round(value, 6) for value in torch.log_softmax(logits.double(), -1).tolist()]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, architecture in MODELS.items():
        with tempfile.TemporaryDirectory() as temporary:
            ir = Path(temporary) / "ir"
            tokenizer = convert(architecture, Path(temporary) / "transformers", ir)
            tokens = np.random.default_rng(5).integers(4, len(tokenizer), max(_LENGTHS)).tolist()
            kinds = {"logprobs": {}, "long": architecture.reference} if architecture.reference else {"logprobs": {}}
            expected: dict[str, Any] = {"tokens": tokens, "lengths": _LENGTHS}
            for kind, change in kinds.items():
                model = model_of(architecture, tokenizer, change)
                expected[kind] = [after(model, tokens[:length]) for length in _LENGTHS]
            (ir / "expected.json").write_text(json.dumps(expected))
            path = FOLDER / f"{name}.zip"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
                for file in sorted(ir.iterdir()):
                    archive.write(file, file.name)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
