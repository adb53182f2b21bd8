"""Next-token log-probabilities against a float32 implementation; benchmarks/accuracy/reference.py wrote the fixture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino", reason="the extra 'embedded' is not installed")

from gristmill.engines.openvino.paged import PagedModel
from gristmill.engines.openvino.prepare import prepare
from gristmill.engines.openvino.span import Span
from gristmill.models.extra import require
from gristmill.models.locate import locate

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("accuracy.json").read_text())
#: A rubric of about 1,700 tokens, shared by several prompts.
LONG = 1000


class Prefixes:
    """Blocks of earlier long prompts, so that a rubric is computed once, as the engine does it."""

    def __init__(self, model: PagedModel) -> None:
        self._size = model.block_size
        self._free = 0
        self._known: list[tuple[list[int], list[int]]] = []

    def place(self, tokens: list[int]) -> Span:
        """What is left to compute of ``tokens``, with the logits of the last one wanted."""
        past, blocks = 0, list[int]()
        for known, owned in self._known:
            shared = len(os.path.commonprefix([tokens[:-1], known])) // self._size
            if shared * self._size > past:
                past, blocks = shared * self._size, owned[:shared]
        blocks = blocks + list(range(self._free, self._free - (-len(tokens) // self._size) - len(blocks)))
        if len(tokens) >= LONG and not past:
            self._known.append((tokens, blocks))
            self._free += len(blocks)
        return Span(tokens[past:], past, blocks, (len(tokens) - past - 1,))


def errors(folder: Path, reference: str) -> np.ndarray:
    """Of each prompt, the largest difference over the reference's 20 most probable tokens."""
    model = PagedModel(folder, 300 * 2**20)
    prefixes = Prefixes(model)
    found = []
    for case in CASES:
        logits = model.forward([prefixes.place(case["prompt"])])[0].astype(np.float64)
        logprobs = logits - np.logaddexp.reduce(logits)
        expected = case[reference]
        found.append(np.abs(logprobs[expected["ids"]] - expected["logprobs"]).max())
    return np.array(found)


def test_the_fixture_holds_what_the_limits_are_promised_for():
    assert len(CASES) >= 50
    assert sum(len(case["prompt"]) > 1700 for case in CASES) >= 10
    assert all(len(case[name]["ids"]) == 20 for case in CASES for name in ("original", "q8_0"))


def test_f16_weights_are_within_0_02(pulled_model: str):
    assert errors(prepare(locate(pulled_model), "f16").folder, "original").max() < 0.02


def test_8_bit_weights_are_within_0_1(pulled_model: str):
    assert errors(prepare(locate(pulled_model), "q8_0").folder, "q8_0").max() < 0.1


def test_an_ir_folder_as_openvino_saves_it_is_within_0_02(pulled_model: str, tmp_path: Path):
    source = locate(pulled_model)
    converted = prepare(source, "f16")
    folder = tmp_path / "saved"
    folder.mkdir()
    ov = require("openvino")
    ov.save_model(ov.Core().read_model(converted.folder / "openvino_model.xml"), folder / "openvino_model.xml")
    for file in converted.folder.glob("openvino_*tokenizer.*"):
        (folder / file.name).symlink_to(file)
    # OpenVINO GenAI leaves the IR next to the GGUF it was made from, without a config.json.
    (folder / source.path.name).symlink_to(source.path)
    found = prepare(locate(str(folder)), "f16")
    assert found.folder == folder
    assert found.facts == converted.facts
    assert errors(found.folder, "original").max() < 0.02
