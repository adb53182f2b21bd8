"""Write ``tests/engines/embedded/openvino/accuracy.json``: what a float32 implementation says comes after each prompt.

    python benchmarks/accuracy/reference.py SmolLM2-135M-Instruct.Q4_1.gguf

It needs torch and transformers beside the extra ``embedded`` (the tests do not). transformers computes in float32 on
the file's dequantized weights; once on the file as it is (the reference for F16), and once on its re-encoding as Q8_0
(the reference for 8-bit weights, so that only the arithmetic differs and not what 8-bit storage rounds away).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import prompts
import torch
import transformers

from gristmill.engines.embedded.openvino.prepare import reencode

FIXTURE = Path(__file__).resolve().parents[2] / "tests" / "engines" / "embedded" / "openvino" / "accuracy.json"
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


def main(file: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    token_ids = [tokenizer(text, add_special_tokens=False).input_ids for text in prompts.prompts()]
    original = next_tokens(file, token_ids)
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "q8_0.gguf"
        reencode(file, stored, "q8_0")
        rounded = next_tokens(stored, token_ids)
    lines = [
        json.dumps({"prompt": ids, "original": first, "q8_0": second}, separators=(",", ":"))
        for ids, first, second in zip(token_ids, original, rounded, strict=True)
    ]
    FIXTURE.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{FIXTURE}: {len(lines)} prompts, {FIXTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
