"""Write ``tests/engines/embedded/accuracy/MODEL.json``: what a float32 implementation says comes after each prompt.

    python benchmarks/accuracy/reference.py smollm2-135m-instruct SmolLM2-135M-Instruct.Q4_1.gguf
    python benchmarks/accuracy/reference.py gemma3-270m gemma-3-270m-q4_k_m.gguf

It needs torch and transformers beside the extra ``embedded`` (the tests do not). transformers computes in float32 on
the file's dequantized weights ("original"). Of SmolLM2 also on its re-encoding as Q8_0: the reference for OpenVINO's
8-bit weights, so that only the arithmetic differs and not what 8-bit storage rounds away.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import fixtures
import prompts
import torch
import transformers

_TOP = 20


def next_tokens(file: Path, token_ids: list[list[int]]) -> list[dict[str, Any]]:
    """The ``_TOP`` most probable tokens after each prompt and their natural log-probabilities, best first."""
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    model.eval()
    answers = []
    for ids in token_ids:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
        best = torch.log_softmax(logits.double(), -1).topk(_TOP)
        answers.append({"ids": best.indices.tolist(), "logprobs": [round(value, 5) for value in best.values.tolist()]})
    return answers


def main(model: str, file: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    chat = model == fixtures.SMOLLM2
    # What a chat template begins with is in its text; another prompt begins with what the model wants.
    token_ids = [tokenizer(text, add_special_tokens=not chat).input_ids for text in prompts.prompts(chat)]
    found = {"original": next_tokens(file, token_ids)}
    if chat:
        found["q8_0"] = _of_8_bit_weights(file, token_ids)
    lines = [
        json.dumps({"prompt": ids} | {name: found[name][row] for name in found}, separators=(",", ":"))
        for row, ids in enumerate(token_ids)
    ]
    path = fixtures.path_of(model)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{path}: {len(lines)} prompts, {path.stat().st_size:,} bytes")


def _of_8_bit_weights(file: Path, token_ids: list[list[int]]) -> list[dict[str, Any]]:
    from gristmill.engines.embedded.openvino.prepare import reencode

    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "q8_0.gguf"
        reencode(file, stored, "q8_0")
        return next_tokens(stored, token_ids)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
