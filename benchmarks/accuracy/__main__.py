"""How far the embedded engine's log-probabilities are from float32 transformers', and what the weights cost in speed.

    python benchmarks/accuracy [--runs 3] [--receipt accuracy]

Accuracy: of each prompt in ``tests/engines/embedded/accuracy``, the largest difference over the
reference's 20 most probable next tokens. Speed: seconds for a prefill of 2,048 tokens, and for a step of 64 rows with
one token each and nothing before it (all linear layers, hardly any attention), alternating between the variants.
On a processor with AMX, what computes on it is measured, too: ``--receipt accuracy-amx``.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import fixtures
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt

from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.openvino.paged_model import PagedModel, Precision
from gristmill.engines.embedded.openvino.prepare import prepare
from gristmill.engines.embedded.openvino.split_linear import amx_is_here
from gristmill.extras import require
from gristmill.models.locate import locate

MODEL = fixtures.SMOLLM2


class Variant:
    """A way to store the weights and to compute with them. ``group_size``: OpenVINO's 8-bit groups of activations."""

    def __init__(self, weights: Any, reference: str, group_size: int = 0, precision: Precision = "f32") -> None:
        self.name = weights if not group_size else f"{weights}, activations in 8-bit groups of {group_size}"
        if precision != "f32":
            self.name += f", {precision}"
        self.reference = reference
        ov = require("openvino")
        compile_model = ov.Core.compile_model

        def compile_with(core: Any, model: Any, device: str, config: dict[str, str]) -> Any:
            return compile_model(core, model, device, config | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group_size)})

        ov.Core.compile_model = compile_with
        try:
            self.model = PagedModel(prepare(locate(MODEL), weights).folder, 2**28, precision=precision)
        finally:
            ov.Core.compile_model = compile_model

        self._before: list[int] = []
        self._random = np.random.default_rng(0)

    def forward(self, tokens: list[int]) -> Any:
        """Logits after ``tokens``. What they share with those before them is in the same blocks, and not computed."""
        size = self.model.block_size
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(self._before, tokens[:-1], strict=False))
        past = sum(1 for _ in same) // size * size
        self._before = tokens
        blocks = list(range(-(-len(tokens) // size)))
        return self.model.forward([Span(tokens[past:], past, blocks, (len(tokens) - past - 1,))])[0]

    def difference(self, case: dict[str, Any]) -> float:
        return fixtures.difference(self.forward(case["prompt"]), case[self.reference])

    def time_prefill(self) -> float:
        tokens = self._random.integers(100, 40_000, 2048).tolist()
        started = time.perf_counter()
        self.forward(tokens)
        return time.perf_counter() - started

    def time_rows(self) -> float:
        self._before = []
        spans = [Span([100 + row], 0, [row], (0,)) for row in range(64)]
        started = time.perf_counter()
        self.model.forward(spans)
        return time.perf_counter() - started


def measure(variant: Variant, cases: list[dict[str, Any]]) -> dict[str, Any]:
    long = [variant.difference(case) for case in cases if len(case["prompt"]) >= fixtures.LONG]
    short = [variant.difference(case) for case in cases if len(case["prompt"]) < fixtures.LONG]
    return {
        "reference": variant.reference,
        "short_prompts": fixtures.summary(short),
        "long_prompts": fixtures.summary(long),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--receipt", default="accuracy")
    parser.add_argument("--skip-accuracy", action="store_true", help="measure speed alone")
    options = parser.parse_args()
    cases = fixtures.read(MODEL)
    variants = [Variant("f16", "original"), Variant("q8_0", "q8_0"), Variant("q8_0", "q8_0", 32)]
    if amx_is_here():
        variants += [Variant("f16", "original", precision="bf16x3"), Variant("f16", "original", precision="bf16")]
    results: dict[str, Any] = {variant.name: {} for variant in variants}
    for variant in variants:
        variant.time_prefill()
        variant.time_rows()
    times: dict[str, dict[str, list[float]]] = {
        variant.name: {"prefill_2048_s": [], "rows_64_s": []} for variant in variants
    }
    for _ in range(options.runs):
        for variant in variants:
            times[variant.name]["prefill_2048_s"].append(round(variant.time_prefill(), 3))
            times[variant.name]["rows_64_s"].append(round(min(variant.time_rows() for _ in range(5)), 4))
    for variant in variants:
        medians = {f"median_{name}": statistics.median(each) for name, each in times[variant.name].items()}
        accuracy = {} if options.skip_accuracy else measure(variant, cases)
        results[variant.name] = accuracy | times[variant.name] | medians
        print(variant.name, results[variant.name], flush=True)
    path = receipt.write(options.receipt, {"model": MODEL, "prompts": len(cases), "results": results}, ("openvino",))
    print(f"receipt: {path.name}")


if __name__ == "__main__":
    main()
