"""Next-token log-probabilities against a float32 implementation; benchmarks/accuracy/reference.py wrote the fixture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")

from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.openvino.paged_model import PagedModel, Precision
from gristmill.engines.embedded.openvino.prepare import prepare
from gristmill.engines.embedded.openvino.split_linear import amx_is_here
from gristmill.extras import require
from gristmill.models.locate import locate

FIXTURE = Path(__file__).parents[1] / "accuracy" / "smollm2-135m-instruct.json"
CASES: list[dict[str, Any]] = json.loads(FIXTURE.read_text())


def errors(folder: Path, reference: str, precision: Precision = "f32") -> np.ndarray:
    """Of each prompt, the largest difference over the reference's 20 most probable tokens."""
    model = PagedModel(folder, 2**28, precision=precision)
    before, found = list[int](), []
    for case in CASES:
        tokens, expected = case["prompt"], case[reference]
        # What a prompt shares with the one before it is in the same blocks: a rubric is computed once, as the engine
        # does it.
        past = len(os.path.commonprefix([before, tokens[:-1]])) // model.block_size * model.block_size
        blocks = list(range(-(-len(tokens) // model.block_size)))
        logits = model.forward([Span(tokens[past:], past, blocks, (len(tokens) - past - 1,))])[0].astype(np.float64)
        logprobs = logits - np.logaddexp.reduce(logits)
        found.append(np.abs(logprobs[expected["ids"]] - expected["logprobs"]).max())
        before = tokens
    return np.array(found)


def test_the_fixture_holds_what_the_limits_are_promised_for():
    assert len(CASES) >= 50
    assert sum(len(case["prompt"]) > 1700 for case in CASES) >= 10
    assert all(len(case[name]["ids"]) == 20 for case in CASES for name in ("original", "q8_0"))


def test_f16_weights_are_within_0_02(pulled_model: str):
    assert errors(prepare(locate(pulled_model), "f16").folder, "original").max() < 0.02


def test_f16_weights_are_as_close_where_amx_computes(pulled_model: str):
    if not amx_is_here():
        pytest.skip("this processor has no AMX")
    assert errors(prepare(locate(pulled_model), "f16").folder, "original", "bf16x3").max() < 0.02


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
