"""Rows behind shared beginnings on llama.cpp, through the scheduler and the engine loop: what each gets is what it gets
alone, however it was forked, put off, aborted, and whoever was cancelled beside it.

In float32, where it can be told: beside weights of few bits llama.cpp rounds activations to 8 bits, and the smallest
difference in the order of a sum comes out as one of some tenths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gristmill.engines.answer_frames import Done, Scored
from gristmill.engines.embedded.model_runner import LoadedModel, Span
from gristmill.engines.embedded.preparation import RequestReader
from gristmill.engines.embedded.sampler import log_softmax
from gristmill.engines.embedded.scheduling.engine_loop import EngineLoop
from gristmill.engines.embedded.scheduling.scheduler import Scheduler
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted
from gristmill.engines.embedded.scheduling.step_plan import StepLimits
from gristmill.engines.embedded.worker.frames import FromWorker
from gristmill.engines.request_frames import Submit, SubmitScore
from gristmill.wire.completions import CompletionRequest

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")
pytest.importorskip("llguidance", reason="the extra 'llama-cpp' is not installed")

from tiny_gguf import tiny_mamba, tiny_model, token_ids

from gristmill.engines.embedded.grammar import Grammars
from gristmill.engines.embedded.llama_cpp.engine import LlamaCppOptions
from gristmill.engines.embedded.llama_cpp.loading import load_model
from gristmill.models.locate import locate
from gristmill.user_error import UserError

RUBRIC = (
    "Grade the text that follows by how clear it is, from 0 to 10. Careful reasoning counts, long words do not. " * 2
)
#: gemma3's windows are shorter than the rubric; mamba is recurrent.
MODELS = ("llama", "gemma3", "mamba")


def build(path: Path, architecture: str) -> Path:
    if architecture == "mamba":
        return tiny_mamba(path)
    return tiny_model(path, architecture, 32 if architecture == "gemma3" else 0)


def load(path: Path | str, **options: Any) -> LoadedModel:
    defaults = {"kv_cache_gb": 0.003, "threads": 1, "kv_type": "f32", "flash_attention": "off"}
    return load_model(str(path), msgspec.to_builtins(LlamaCppOptions(**(defaults | options))))


@pytest.fixture(scope="module", params=MODELS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(build(tmp_path_factory.mktemp("models") / "tiny.gguf", request.param))


def alone(model: LoadedModel, tokens: list[int]) -> Any:
    """Log-probabilities after ``tokens``, computed in one piece and in an empty cache."""
    model.runner.new_memory()
    return log_softmax(model.runner.forward([Span(tokens, 0, 0, (len(tokens) - 1,))], StepAbort()))[0]


def together(model: LoadedModel, prompts: list[list[int]], limits: StepLimits) -> tuple[Any, list[int | None]]:
    """The same for each of ``prompts``, scheduled; and how many tokens of each were there already."""
    runner = model.runner
    scheduler = Scheduler(limits, runner.new_memory())
    rows, found = [Sequence(prompt) for prompt in prompts], dict[Sequence, Any]()
    for row in rows:
        scheduler.add(row)
    while scheduler.sequences:
        step = scheduler.plan()
        runner.make_moves(step.moves)
        spans = [
            Span(row.tokens[start : start + count], start, scheduler.memory.place(row), (count - 1,) * samples)
            for row, start, count, samples in step.chunks
        ]
        logprobs = iter(log_softmax(runner.forward(spans, StepAbort())))
        scheduler.advance(step)
        for chunk in step.chunks:
            if chunk.samples:
                found[chunk.sequence] = next(logprobs)
                scheduler.remove(chunk.sequence)
    return np.array([found[row] for row in rows]), [row.cached_tokens for row in rows]


@pytest.mark.parametrize("limits", [StepLimits(2048, 64), StepLimits(100, 5)])
def test_prefixes_within_prefixes_give_what_unforked_prompts_give(loaded: LoadedModel, limits: StepLimits) -> None:
    documents = [f"{RUBRIC}{'The miller' if i else 'A carter'} {i} counts the sacks of the harvest." for i in range(3)]
    prompts = [token_ids(f"{document} {'Why' * i} so {i}?") for document in documents for i in range(6)]
    expected = [alone(loaded, prompt) for prompt in prompts]
    found, cached = together(loaded, prompts, limits)
    assert np.abs(found - np.array(expected)).max() < 1e-4
    # Each document's first row has the rubric, the others the document as well, but for a few tokens.
    known = np.array(cached)
    assert sum(known < len(RUBRIC) - 32) == 1
    assert sum(known >= len(documents[0]) - 32) >= 15


class Driver:
    """An engine loop on the thread of the test; ``aborted``: which of its steps are given up halfway."""

    def __init__(self, model: LoadedModel, aborted: range = range(0), step_tokens: int = 100, rows: int = 6) -> None:
        self.frames: list[FromWorker] = []
        self._reader = RequestReader(model.vocabulary, Grammars(model.vocabulary, model.ends), 600)
        self._forward = model.runner.forward
        self._aborted = aborted
        self.steps = 0
        self.loop = EngineLoop(model.runner, model.vocabulary, model.ends, step_tokens, rows, self.frames.append)

    def enter(self, submits: list[Submit | SubmitScore]) -> None:
        for submit in submits:
            self.loop.enter(self._reader.read(submit))

    def step(self) -> None:
        running = self.loop._model
        if self.steps in self._aborted:
            # Some of its calls have been computed.
            def forward(spans: list[Span[int]], abort: StepAbort) -> Any:
                for span in spans[: len(spans) // 2 + 1]:
                    half = len(span.tokens) // 2
                    if half:
                        self._forward([span._replace(tokens=span.tokens[:half], samples=())], abort)
                raise StepAborted

            running.forward = forward  # type: ignore[method-assign]
        try:
            self.loop.step()
        finally:
            running.__dict__.pop("forward", None)
        self.steps += 1

    def end(self) -> dict[int, Any]:
        while self.loop.busy:
            self.step()
            assert self.steps < 3000
        return {frame.id: answer(frame) for frame in self.frames}


def answer(frame: FromWorker) -> Any:
    if isinstance(frame, Done):
        return [choice.text for choice in frame.completion.choices]
    assert isinstance(frame, Scored)
    return [pytest.approx(logprob, abs=1e-4) for logprob in frame.scores.logprobs]


def row(number: int, text: str, interactive: bool = False, **parameters: Any) -> Submit:
    request = CompletionRequest(model="m", prompt=RUBRIC + text, max_tokens=12, **({"temperature": 0} | parameters))
    return Submit(number, text=request, interactive=interactive)


ROWS: list[Submit | SubmitScore] = [
    *(row(number, f"{number} sacks of flour") for number in range(8)),
    row(10, "Flour and water.", temperature=1.0, seed=3, n=3),
    *(SubmitScore(20 + i, "m", text=f"{RUBRIC}Cart {i}. Grade:", labels=["good", "good enough"]) for i in range(4)),
    row(30, "Name a colour.", interactive=True),
]


@pytest.fixture(scope="module")
def expected(loaded: LoadedModel) -> dict[int, Any]:
    """Of each row alone."""
    found = {}
    for submit in ROWS:
        driver = Driver(loaded)
        driver.enter([submit])
        found |= driver.end()
    return found


def test_rows_get_together_what_they_get_alone(loaded: LoadedModel, expected: dict[int, Any]) -> None:
    driver = Driver(loaded)
    driver.enter(ROWS)
    assert driver.end() == expected


def test_answers_are_those_without_aborted_steps_and_cancelled_rows(
    loaded: LoadedModel, expected: dict[int, Any], request: pytest.FixtureRequest
) -> None:
    # A recurrent prefill that is given up begins again, so it has to fit a step.
    recurrent = request.node.callspec.params["loaded"] == "mamba"
    driver = Driver(loaded, aborted=range(1, 1000, 2), step_tokens=600 if recurrent else 100)
    driver.enter(ROWS)
    for number in (0, 5, 21):
        driver.step()
        driver.step()
        driver.loop.cancel(number)
    assert driver.end() == {number: found for number, found in expected.items() if number not in (0, 5, 21)}


def test_with_cells_for_little_more_than_the_rubric_every_row_is_answered(
    loaded: LoadedModel, expected: dict[int, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    architecture = request.node.callspec.params["loaded"]
    if architecture == "mamba":
        pytest.skip("a recurrent state needs no cells")
    small = load(build(tmp_path / "tiny.gguf", architecture), kv_cache_gb=0.0006)
    assert small.runner.new_memory().tokens < len(RUBRIC) + 8 * 40
    driver = Driver(small)
    driver.enter(ROWS)
    assert driver.end() == expected
    assert isinstance(driver.loop.scheduler, Scheduler)


def test_gemma3_computes_a_rubric_longer_than_its_window_once() -> None:
    try:
        model = load(locate("gemma3-270m").path, kv_cache_gb=0.15)
    except UserError as error:
        pytest.skip(str(error))
    encode = model.vocabulary.encode
    rubric = encode("Careful reasoning counts; long words do not, and neither does length. " * 38, special_tokens=True)
    rows = [encode(f"Text {i}: the miller grinds the grain. Grade:", special_tokens=False) for i in range(3)]
    assert len(rubric) > 512
    found, cached = together(model, [rubric + each for each in rows], StepLimits(2048, 16))
    assert cached[0] == 0
    assert all(tokens is not None and tokens >= len(rubric) for tokens in cached[1:])
    expected = alone(model, rubric + rows[2])
    likely = np.argsort(expected)[-20:]
    # No closer than activations of 8 bits allow.
    assert np.abs(found[2] - expected)[likely].max() < 0.6
