"""IR folders of other architectures, as optimum-intel converts them, against float32 transformers. The models are tiny
and random; benchmarks/architectures/fixture.py wrote them with what transformers says, and measures larger ones."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")

from gristmill.engines.embedded.model_runner import LoadedModel, Span
from gristmill.engines.embedded.openvino.loading import load_model
from gristmill.engines.embedded.openvino.vocabulary import TokenizerGraph
from gristmill.engines.embedded.prompt import PromptTokens
from gristmill.engines.embedded.scheduling.step_abort import StepAbort
from gristmill.extras import require
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest

MODELS = Path(__file__).with_name("architectures")


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        expected = json.loads((path / "expected.json").read_text())
        self.tokens: list[int] = expected["tokens"]
        self.lengths: list[int] = expected["lengths"]
        self.logprobs: dict[str, Any] = {kind: np.array(expected[kind]) for kind in expected if kind[0] == "l"}

    def load(self, **options: Any) -> LoadedModel:
        loaded = load_model(str(self.path), {"kv_cache_gb": 0.01, "threads": 1} | options)
        assert isinstance(loaded, LoadedModel)
        return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def unpacked(name: str) -> Folder:
        path = tmp_path_factory.mktemp(name)
        with zipfile.ZipFile(MODELS / f"{name}.zip") as archive:
            archive.extractall(path)
        return Folder(path)

    return unpacked


def after(loaded: LoadedModel, spans: list[Any]) -> Any:
    """Log-probabilities after the last token of each span."""
    spans = [span._replace(samples=(len(span.tokens) - 1,)) for span in spans]
    logits = loaded.runner.forward(spans, StepAbort()).astype(np.float64)
    return logits - np.logaddexp.reduce(logits, -1, keepdims=True)


@pytest.mark.parametrize("attention", ["shared", "openvino"])
@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [("gemma3", {}, "logprobs"), ("phi3", {}, "logprobs"), ("phi3", {"long_context": True}, "long")],
)
class TestLogProbabilities:
    """Prompts shorter than a window, as long, longer by one, and much longer."""

    def test_alone(self, folder: Any, name: str, options: dict[str, Any], kind: str, attention: str) -> None:
        model = folder(name)
        loaded = model.load(attention=attention, **options)
        found = [after(loaded, [Span(model.tokens[:length], 0, list(range(4)), ())])[0] for length in model.lengths]
        np.testing.assert_allclose(found, model.logprobs[kind], atol=1e-4)

    def test_of_rows_of_several_lengths_in_one_step(
        self, folder: Any, name: str, options: dict[str, Any], kind: str, attention: str
    ) -> None:
        model = folder(name)
        loaded = model.load(attention=attention, **options)
        rows = [
            Span(model.tokens[:length], 0, list(range(4 * row, 4 * row + 4)), ())
            for row, length in enumerate(model.lengths)
        ]
        np.testing.assert_allclose(after(loaded, rows), model.logprobs[kind], atol=1e-4)

    def test_behind_a_prefix_that_was_computed_before_in_chunks(
        self, folder: Any, name: str, options: dict[str, Any], kind: str, attention: str
    ) -> None:
        model = folder(name)
        loaded = model.load(attention=attention, **options)
        for begin, end in ((0, 20), (20, 21), (21, 32)):
            after(loaded, [Span(model.tokens[begin:end], begin, [0], ())])
        rows = [
            Span(model.tokens[32:length], 32, [0, *range(1 + 3 * row, 4 + 3 * row)], ())
            for row, length in enumerate(model.lengths)
            if length > 32
        ]
        np.testing.assert_allclose(after(loaded, rows), model.logprobs[kind][1:], atol=1e-4)


def test_our_kernel_takes_a_model_with_sliding_windows(folder: Any) -> None:
    assert folder("gemma3").load().notices == []


def test_what_ends_an_answer_is_told_by_generation_config(folder: Any) -> None:
    model = folder("gemma3")
    told = json.loads((model.path / "generation_config.json").read_text())["eos_token_id"]
    loaded = model.load()
    assert loaded.ends == frozenset(told)
    assert {loaded.vocabulary.special_text(token) for token in loaded.ends} == {b"<eos>", b"<end_of_turn>"}


def test_with_two_sets_of_rotary_factors_the_context_is_that_of_the_first_unless_asked_otherwise(folder: Any) -> None:
    model = folder("phi3")
    short, long = model.load(), model.load(long_context=True)
    assert (short.context_length, long.context_length) == (128, 256)
    (notice,) = short.notices
    assert "The context is 128 tokens" in notice
    assert "-O long_context=true" in notice
    assert not long.notices


def test_a_model_with_one_set_of_rotary_factors_has_no_long_context(folder: Any) -> None:
    with pytest.raises(UserError, match="leave out -O long_context"):
        folder("gemma3").load(long_context=True)


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize("where", ["tokenizer graph", "chat_template.jinja"])
def test_tools_are_rendered_by_an_ir_folders_own_template(folder: Any, where: str) -> None:
    model = folder("phi3")
    graph = model.path / "openvino_tokenizer.xml"
    if where == "tokenizer graph":
        (model.path / "chat_template.jinja").unlink()
    else:
        lines = graph.read_text().splitlines(keepends=True)
        graph.write_text("".join(line for line in lines if "chat_template" not in line))
    vocabulary = model.load().vocabulary
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "dry"},
    ]
    body = {"model": "m", "messages": messages, "tools": [TOOL]}
    prompts = PromptTokens(vocabulary)
    found = prompts.of_request(msgspec.convert(body, ChatCompletionRequest))
    text = b"".join(vocabulary.special_text(token) for token in found).decode()
    assert prompts.tool_format.name == "hermes"
    assert '<tools>\n{"type": "function", "function": {"name": "weather"' in text
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>' in text
    assert "<tool_response>\ndry\n</tool_response><|im_end|>" in text


def test_a_tokenizer_graph_that_is_not_known_is_told_with_what_to_do(tmp_path: Path) -> None:
    ov = require("openvino")
    text = ov.opset13.parameter([-1], ov.Type.i64)
    ov.save_model(ov.Model([ov.opset13.abs(text)], [text]), tmp_path / "openvino_tokenizer.xml")
    with pytest.raises(UserError, match="convert it again"):
        TokenizerGraph(tmp_path)
