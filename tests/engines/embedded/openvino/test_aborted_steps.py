"""Steps of the real model that are aborted while they are computed: what was written is written again, and nobody's
answer changes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")

from gristmill.engines.answer_frames import Done, Scored
from gristmill.engines.embedded.grammar import Grammars
from gristmill.engines.embedded.model_runner import LoadedModel, Span
from gristmill.engines.embedded.openvino.loading import load_model
from gristmill.engines.embedded.openvino.paged_model import PagedModel
from gristmill.engines.embedded.openvino.prepare import prepare
from gristmill.engines.embedded.preparation import RequestReader
from gristmill.engines.embedded.scheduling.engine_loop import EngineLoop
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted
from gristmill.engines.embedded.worker.frames import FromWorker
from gristmill.engines.request_frames import Submit, SubmitScore
from gristmill.models.locate import locate
from gristmill.wire.chat import ChatCompletionRequest

LAYERS = 30
MODEL = "smollm2-135m-instruct"


class Interceptor:
    """Calls ``then`` once, when the keys of layer ``layer`` of a step have just been written: on the thread that
    computes, so that what it asks for is certain to be in time."""

    def __init__(self, model: PagedModel) -> None:
        cache: Any = model._cache
        self._library = cache._library
        self.attend = self._library.attend
        self._calls = itertools.count()
        self.layer: int | None = None
        self.then: Callable[[], object] = bool
        cache._library = self

    def store(self, *arguments: Any) -> None:
        self._library.store(*arguments)
        # An aborted step leaves the count of layers where it was.
        if self.layer is None:
            return
        if next(self._calls) == self.layer:
            self.layer = None
            self.then()

    def at(self, layer: int, then: Callable[[], object]) -> None:
        self.layer, self.then, self._calls = layer, then, itertools.count()


@pytest.fixture(scope="module")
def loaded(pulled_model: str) -> LoadedModel:
    return load_model(pulled_model, {"kv_cache_gb": 0.3, "threads": 1})


@pytest.fixture
def interceptor(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Interceptor:
    cache: Any = loaded.runner._cache
    monkeypatch.setattr(cache, "_library", cache._library)
    return Interceptor(loaded.runner)


def spans(count: int, length: int, past: int = 0, seed: int = 5) -> list[Span]:
    random = np.random.default_rng(seed)
    return [
        Span(random.integers(100, 40_000, length).tolist(), past, list(range(4 * i, 4 * i + 4)), (length - 1,))
        for i in range(count)
    ]


@pytest.mark.parametrize("layer", [0, 13, LAYERS - 1])
def test_a_step_is_aborted_after_any_layer_and_computed_again_to_the_bit(loaded, interceptor, layer):
    model = loaded.runner
    past, step = spans(3, 50), spans(3, 40, 50, seed=6)
    model.forward(past, StepAbort())
    expected = model.forward(step, StepAbort()).copy()
    abort = StepAbort()
    interceptor.at(layer, abort.ask)
    with pytest.raises(StepAborted):
        # Other tokens than those that are computed afterwards: what they have left is no longer there.
        model.forward(spans(3, 40, 50, seed=7), abort)
    assert np.array_equal(model.forward(step, StepAbort()), expected)


@pytest.mark.parametrize("attention", ["shared", "openvino"])
def test_after_an_aborted_step_one_of_any_size_is_computed(pulled_model, attention):
    """OpenVINO keeps the shapes that it has found for a step that it then did not compute. (A step as large as the last
    one that was computed failed, or was computed with the shapes of the other.)"""
    model = PagedModel(prepare(locate(pulled_model), "f16").folder, 2**28, attention=attention)
    sizes = [(1, 21), (3, 1), (1, 3), (1, 4), (2, 40)]
    expected = [model.forward(spans(*size), StepAbort()).copy() for size in sizes]
    aborted = 0
    for size, logits in zip(sizes, expected, strict=True):
        for delay in (0.01, 0.05):
            model.forward(spans(*size), StepAbort())
            abort = StepAbort()
            timer = threading.Timer(delay, abort.ask)
            timer.start()
            try:
                model.forward(spans(2, 100, seed=8), abort)
            except StepAborted:
                aborted += 1
            timer.join()
            assert np.array_equal(model.forward(spans(*size), StepAbort()), logits)
    assert aborted


def test_a_step_that_several_ask_to_abort_is_aborted_once(loaded, interceptor):
    step, abort = spans(2, 50), StepAbort()
    expected = loaded.runner.forward(step, StepAbort()).copy()

    def ask() -> None:
        # Again in what is computed to tidy up.
        interceptor.at(2, abort.ask)
        abort.ask()

    interceptor.at(5, ask)
    with pytest.raises(StepAborted):
        loaded.runner.forward(spans(2, 50, seed=9), abort)
    assert np.array_equal(loaded.runner.forward(step, StepAbort()), expected)


def test_what_is_asked_before_a_step_or_after_it_concerns_no_other(loaded):
    step = spans(2, 30)
    ended, abort = StepAbort(), StepAbort()
    expected = loaded.runner.forward(step, ended).copy()
    abort.ask()
    with pytest.raises(StepAborted):
        loaded.runner.forward(step, abort)
    ended.ask()
    assert np.array_equal(loaded.runner.forward(step, StepAbort()), expected)


def test_a_step_with_openvinos_kernel_is_aborted_at_any_time_by_another_thread(pulled_model):
    model = PagedModel(prepare(locate(pulled_model), "f16").folder, 2**28, attention="openvino")
    step = spans(3, 80)
    expected = model.forward(step, StepAbort()).copy()
    aborted = 0
    for delay in (0.0, 0.005, 0.05):
        abort = StepAbort()
        timer = threading.Timer(delay, abort.ask)
        timer.start()
        try:
            # It has been computed, or it has not; nothing between.
            assert np.array_equal(model.forward(step, abort), expected)
        except StepAborted:
            aborted += 1
        timer.join()
    assert aborted
    assert np.array_equal(model.forward(step, StepAbort()), expected)


def test_what_fails_by_itself_is_no_abort(loaded, interceptor):
    def fail() -> None:
        raise OSError("of the kernel")

    interceptor.at(3, fail)
    with pytest.raises(RuntimeError, match="of the kernel"):
        loaded.runner.forward(spans(1, 30), StepAbort())


class Driver:
    """An engine loop on the thread of the test."""

    def __init__(self, loaded: LoadedModel, interceptor: Interceptor | None = None) -> None:
        self.frames: list[FromWorker] = []
        self._interceptor = interceptor
        self._reader = RequestReader(loaded.vocabulary, Grammars(loaded.vocabulary, loaded.ends), 2048)
        self.loop = EngineLoop(loaded.runner, loaded.vocabulary, loaded.ends, 512, 8, self.frames.append)

    def enter(self, *submits: Submit | SubmitScore) -> None:
        for submit in submits:
            self.loop.enter(self._reader.read(submit))

    def step(self, layer: int | None = None, then: Callable[[], object] | None = None) -> list[FromWorker]:
        """The frames of one step; after whose layer ``layer`` something happens: by default, its abort."""
        if layer is not None and self._interceptor:
            self._interceptor.at(layer, then or self._abort)
        before = len(self.frames)
        self.loop.step()
        return self.frames[before:]

    def _abort(self) -> None:
        running = self.loop._running
        assert running
        running.abort.ask()

    def end(self) -> dict[int, Any]:
        """What each request's answer is."""
        while self.loop.busy:
            self.step()
        return {frame.id: answer(frame) for frame in self.frames}


def answer(frame: FromWorker) -> Any:
    if isinstance(frame, Done):
        return [(choice.text, choice.finish_reason) for choice in frame.completion.choices]
    assert isinstance(frame, Scored)
    return [round(logprob, 2) for logprob in frame.scores.logprobs]


def submit(number: int, text: str, interactive: bool = False, **parameters: Any) -> Submit:
    messages = [{"role": "system", "content": RUBRIC}, {"role": "user", "content": text}]
    asked = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 6} | parameters
    return Submit(number, chat=msgspec.convert(asked, ChatCompletionRequest), interactive=interactive)


RUBRIC = "Grade the text. " + "Clear writing and careful reasoning count, long words do not. " * 12
ROWS: list[Submit | SubmitScore] = [
    submit(1, "The mill stands by the river."),
    submit(2, "Flour and water.", temperature=1.0, seed=3, n=2),
    submit(3, "Name a colour.", structured_outputs={"choice": ["red", "blue"]}),
    SubmitScore(4, MODEL, text=RUBRIC + "The horse draws the cart. Grade:", labels=[" good", " bad", " good enough"]),
    submit(5, "Sacks of grain. " * 60),
]
ASKED = submit(9, "What is a mill?", interactive=True, max_tokens=2)


@pytest.fixture(scope="module")
def expected(loaded: LoadedModel) -> dict[int, Any]:
    """Nothing is aborted."""
    driver = Driver(loaded)
    driver.enter(*ROWS, ASKED)
    return driver.end()


@pytest.mark.parametrize("seed", range(2))
def test_answers_are_those_without_an_abort(loaded, interceptor, expected, seed):
    random, driver = np.random.default_rng(seed), Driver(loaded, interceptor)
    driver.enter(*ROWS)
    for number in itertools.count():
        if number == 3:
            driver.enter(ASKED)
        if not driver.loop.busy:
            break
        # Aborted before anything is sampled, passed on or shared.
        assert driver.step(int(random.integers(LAYERS))) == []
        driver.step()
    assert driver.end() == expected


def test_an_interactive_request_aborts_the_step_and_is_answered_first(loaded, interceptor, expected):
    driver = Driver(loaded, interceptor)
    driver.enter(*ROWS)
    assert driver.step(10, driver.loop.interrupt) == []
    driver.enter(ASKED)
    # Steps with an interactive request in them are not aborted, whoever asks.
    while not driver.step(10, driver.loop.interrupt):
        pass
    assert driver.frames[0].id == ASKED.id
    assert driver.end() == expected


def test_however_many_ask_and_leave_again_every_other_step_is_computed(loaded, interceptor, expected):
    driver, steps = Driver(loaded, interceptor), 0
    driver.enter(*ROWS)
    while driver.loop.busy:
        driver.step(5, driver.loop.interrupt)
        # It was cancelled before it had computed anything.
        driver.enter(ASKED)
        driver.loop.cancel(ASKED.id)
        steps += 1
        assert steps < 200
    assert driver.end() == {number: found for number, found in expected.items() if number != ASKED.id}


def test_rows_cancelled_between_an_abort_and_the_next_step_leave_nothing(loaded, interceptor, expected):
    driver = Driver(loaded, interceptor)
    driver.enter(*ROWS)
    driver.step(20)
    driver.loop.cancel(1)
    driver.loop.cancel(4)
    driver.step(20)
    driver.enter(ASKED)
    assert driver.end() == {number: found for number, found in expected.items() if number not in (1, 4)}
    memory = driver.loop.scheduler.memory
    assert memory.pool.free + memory.tree.nodes == memory.pool.size
