"""With ``same_bits``, the same row gets the same label scores to the bit: whatever its neighbours, its order, the size
of steps, aborted steps and cancelled rows, and in a new worker."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gristmill.engines.embedded.model_runner import LoadedModel
from gristmill.engines.embedded.preparation import RequestReader
from gristmill.engines.embedded.scheduling.engine_loop import EngineLoop
from gristmill.engines.embedded.scheduling.split_loop import SplitLoop
from gristmill.engines.embedded.scheduling.step_abort import StepAborted
from gristmill.engines.embedded.worker.frames import Done, FromWorker, Scored, Submit, SubmitScore
from gristmill.wire.completions import CompletionRequest

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")
pytest.importorskip("llguidance", reason="the extra 'llama-cpp' is not installed")

from tiny_gguf import tiny_mamba, tiny_model

from gristmill.engines.embedded.grammar import Grammars
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.loading import load_model
from gristmill.engines.embedded.llama_cpp.runner import DecodeCall
from gristmill.engines.embedded.llama_cpp.slot_runner import SLOT_CALL, filled
from gristmill.user_error import UserError

RUBRIC = "Grade the text that follows by how clear it is, from 0 to 10. Careful reasoning counts. "
LABELS = ["good", "good enough", "bad"]
ROWS = {
    number: RUBRIC * (1 + number % 3) + f"Cart {number} brought " + "flour, " * (number * 5 % 23) + "Grade:"
    for number in range(14)
}
#: Multiplied by other code where there are few tokens (F32), repacked (Q4_0), and behind a window shorter than the
#: rubric.
MODELS = [("llama", "F32"), ("llama", "Q4_0"), ("gemma3", "Q8_0")]


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture, weights = request.param
    window = 32 if architecture == "gemma3" else 0
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", architecture, window, weights)


def load(file: Path, **options: Any) -> LoadedModel:
    model = load_model(
        str(file), msgspec.to_builtins(LlamaCppOptions(**({"kv_cache_gb": 0.01, "threads": 1} | options)))
    )
    assert isinstance(model, LoadedModel)
    return model


class Driver:
    """Loops on the thread of the test. ``aborted``: which steps of label scores are given up."""

    def __init__(self, model: LoadedModel, step_tokens: int = 200, aborted: int = 0) -> None:
        self.frames: list[FromWorker] = []
        self._reader = RequestReader(model.vocabulary, Grammars(model.vocabulary, model.ends), 600)
        writing, loop = self._loop(model, model.runner, step_tokens, 6), None
        if model.scorer is not None:
            loop = SplitLoop(writing, self._loop(model, model.scorer, step_tokens, 1))
            self._give_up(model.scorer, aborted)
        self.loop = loop or writing

    def _loop(self, model: LoadedModel, runner: Any, step_tokens: int, rows: int) -> EngineLoop:
        return EngineLoop(runner, model.vocabulary, model.ends, step_tokens, rows, self.frames.append)

    @staticmethod
    def _give_up(scorer: Any, aborted: int) -> None:
        """Of every ``aborted`` steps one, once it has been computed."""
        scorer.__dict__.pop("forward", None)
        forward, steps = scorer.forward, iter(range(10**6))

        def given_up(spans: Any, abort: Any = None) -> Any:
            found = forward(spans, abort)
            if aborted and not next(steps) % aborted:
                raise StepAborted
            return found

        scorer.forward = given_up

    def score(self, numbers: list[int], interactive: bool = False) -> None:
        for number in numbers:
            submit = SubmitScore(number, "m", text=ROWS[number], labels=LABELS, interactive=interactive)
            self.loop.enter(self._reader.read(submit))

    def write(self, number: int, text: str) -> None:
        request = CompletionRequest(model="m", prompt=text, max_tokens=20, temperature=0)
        self.loop.enter(self._reader.read(Submit(number, text=request)))

    def end(self) -> dict[int, tuple[float, ...]]:
        for _ in range(5000):
            if not self.loop.busy:
                break
            self.loop.step()
        assert not self.loop.busy
        assert all(isinstance(frame, Scored | Done) for frame in self.frames)
        return {frame.id: frame.scores.logprobs for frame in self.frames if isinstance(frame, Scored)}


def alone(model: LoadedModel, number: int) -> tuple[float, ...]:
    driver = Driver(model)
    driver.score([number])
    return driver.end()[number]


def test_a_row_gets_the_same_bits_alone_and_beside_others(file: Path) -> None:
    model = load(file, same_bits=True)
    expected = {number: alone(model, number) for number in ROWS}
    assert len(set(expected.values())) == len(ROWS)
    for step_tokens, aborted in ((7, 0), (64, 2), (500, 0)):
        driver = Driver(model, step_tokens, aborted)
        order = list(ROWS)
        random.Random(step_tokens).shuffle(order)
        driver.score(order[:9])
        for number in range(100, 105):
            driver.write(number, RUBRIC + f"{number} sacks")
        for _ in range(4):
            driver.loop.step()
        driver.loop.cancel(order[0])
        driver.score(order[9:], interactive=True)
        found = driver.end()
        assert {number: found[number] for number in order[1:]} == {number: expected[number] for number in order[1:]}
        assert sum(isinstance(frame, Done) for frame in driver.frames) == 5
    # In a worker that has just begun, and whose first row is another.
    again = load(file, same_bits=True)
    assert {number: alone(again, number) for number in reversed(ROWS)} == expected


def test_without_the_option_neighbours_move_the_last_bits(file: Path) -> None:
    """Or the test above would show nothing."""
    model = load(file)
    driver = Driver(model)
    driver.score(list(ROWS))
    assert driver.end() != {number: alone(model, number) for number in ROWS}


@pytest.mark.parametrize("tokens", [1, 3, 4, 7, 8, 9, 50, 126, 127, 128])
def test_every_call_is_filled_up_to_what_is_multiplied_together(tokens: int) -> None:
    numbers = np.arange(tokens)
    call = filled(DecodeCall(numbers, numbers.astype(np.int32), np.zeros(tokens, np.int32), np.ones(tokens, np.int8)))
    assert len(call.tokens) % 4 == 0
    assert max(tokens, 8) <= len(call.tokens) <= max(tokens + 3, 8)
    assert len(call.tokens) <= SLOT_CALL
    assert set(call.sequences[tokens:]) <= {1}
    assert not call.wanted[tokens:].any()


def test_a_recurrent_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recurrent"):
        load(tiny_mamba(tmp_path / "tiny.gguf"), same_bits=True)
