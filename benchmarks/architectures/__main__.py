"""How far the OpenVINO engine is from float32 transformers, of each architecture: tiny models with random weights are
made by transformers and converted by optimum-intel.

    python -m venv /tmp/converting && . /tmp/converting/bin/activate
    pip install -e '.[embedded]' -r benchmarks/architectures/requirements.txt
    python benchmarks/architectures [--only gemma] [--receipt architectures]

The measure is the largest difference of a log-probability, over the whole vocabulary and all positions that are looked
at: prompts alone (up to ten windows long), in chunks, behind a prefix that is computed once, and decoded token by
token, several rows in a step. ``control`` is how far transformers itself moves when the architecture is got wrong by a
little (a window longer by one token, another rotary scale): what this comparison would have shown.

Besides: whether the converted tokenizer gives the tokens, the texts and the chats that transformers gives.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt
import texts
import torch
from architectures import ARCHITECTURES, WINDOW, Architecture
from convert import convert, model_of
from paged import PagedRows

from gristmill.engines.embedded.openvino.loading import load_model

PACKAGES = ("openvino", "openvino-tokenizers", "optimum-intel", "torch", "transformers")


class Reference:
    """Float32 transformers, every text computed alone and at once."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, tokens: list[int]) -> Any:
        """Natural log-probabilities of what comes after each token, shape (tokens, vocabulary)."""
        with torch.no_grad():
            logits = self._model(torch.tensor([tokens])).logits[0]
        return torch.log_softmax(logits.double(), -1).numpy()


def measure(folder: Path, options: dict[str, Any], expected: Reference, vocabulary: int) -> dict[str, Any]:
    """Largest differences of the engine with such options."""
    loaded = load_model(str(folder), {"kv_cache_gb": 0.2} | options)
    rows = PagedRows(loaded.runner)
    random = np.random.default_rng(3)

    def draw(length: int) -> list[int]:
        return random.integers(4, vocabulary, length).tolist()

    def worst(found: list[Any], sequences: list[list[int]]) -> float:
        """``found`` are the log-probabilities after the last tokens of each sequence."""
        differences = [
            np.abs(each - expected(tokens)[-len(each) :]).max() for each, tokens in zip(found, sequences, strict=True)
        ]
        return round(float(max(differences)), 7)

    alone = [draw(length) for length in (1, 5, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 300, 10 * WINDOW)]
    result: dict[str, Any] = {
        "alone": worst([rows.whole([tokens])[0] for tokens in alone], alone),
        "several rows in a step": worst(rows.whole(alone), alone),
        "in chunks of 100": worst([rows.in_chunks(alone[-1], 100)], alone[-1:]),
    }
    prefix = draw(5 * WINDOW + 13)
    tails = [draw(length) for length in (1, 3, 20, 45, 45, WINDOW, 2 * WINDOW)]
    sequences = [prefix + tail for tail in tails]
    result["behind a prefix"] = worst(rows.behind(prefix, tails), sequences)
    decoded = [draw(WINDOW + 20) for _ in tails]
    result["decoded"] = worst(
        rows.decoded(decoded), [first + more for first, more in zip(sequences, decoded, strict=True)]
    )
    return {"notices": loaded.notices} | result


def control(architecture: Architecture, tokenizer: Any, expected: Reference) -> float | None:
    if architecture.wrong is None:
        return None
    wrong = Reference(model_of(architecture, tokenizer, dict(architecture.reference) | architecture.wrong))
    tokens = np.random.default_rng(4).integers(4, len(tokenizer), 4 * WINDOW).tolist()
    return round(float(np.abs(wrong(tokens) - expected(tokens)).max()), 4)


def run(architecture: Architecture, folder: Path) -> dict[str, Any]:
    tokenizer = convert(architecture, folder / "transformers", folder / "ir")
    expected = Reference(model_of(architecture, tokenizer, architecture.reference))
    kernels = {
        kernel: measure(folder / "ir", dict(architecture.options) | {"attention": kernel}, expected, len(tokenizer))
        for kernel in ("shared", "openvino")
    }
    return {
        "architecture": architecture.kind,
        "kernels": kernels,
        "control": control(architecture, tokenizer, expected),
        "texts": texts.differences(folder / "ir", tokenizer, architecture),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="architectures whose name begins with this")
    parser.add_argument("--receipt", default="architectures")
    options = parser.parse_args()
    results = {}
    for name, architecture in ARCHITECTURES.items():
        if name.startswith(options.only):
            with tempfile.TemporaryDirectory() as folder:
                results[name] = run(architecture, Path(folder))
            print(name, results[name], flush=True)
    path = receipt.write(options.receipt, {"window": WINDOW, "results": results}, PACKAGES)
    print(f"receipt: {path.name}")


if __name__ == "__main__":
    main()
