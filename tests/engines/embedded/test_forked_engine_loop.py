"""The engine loop over forked memory, with a pretend model whose every token follows from all of those before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from gristmill.engines.answer_frames import Done
from gristmill.engines.embedded.kv.forked_memory import Forget, Fork, ForkedMemory
from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.preparation import RequestReader
from gristmill.engines.embedded.scheduling.engine_loop import EngineLoop
from gristmill.engines.embedded.scheduling.out_of_room import OutOfRoom
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted
from gristmill.engines.embedded.worker.frames import FromWorker, Notice
from gristmill.engines.request_frames import Submit, SubmitScore
from gristmill.wire.completions import CompletionRequest
from llama_cells import Cells

pytest.importorskip("llguidance", reason="pip install 'gristmill[embedded]' to run this")
from gristmill.engines.embedded.grammar import Grammars

END = 256


class Vocabulary:
    """A token a byte, and one that ends an answer."""

    chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    bos_token = ""
    eos_token = "<end>"
    size = END + 1
    longest_token = 5
    token_bytes: ClassVar = [*(bytes([byte]) for byte in range(256)), b""]
    special = frozenset({END})

    def special_text(self, token: int) -> bytes:
        return b"<end>" if token == END else self.token_bytes[token]

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        return list(text.encode())


class Runner:
    """``fail`` is called with a step's spans, and may raise; some of the step has been written then."""

    def __init__(self, partial: bool = True, cells: int = 2000) -> None:
        self.partial = partial
        self.fail: Callable[[list[Span[int]]], object] = lambda spans: None
        self.steps: list[tuple[int, int]] = []
        self.cells = Cells(cells, 64, partial)

    def new_memory(self) -> ForkedMemory:
        return ForkedMemory(self.cells.count, self.cells.ids, self.partial)

    def make_moves(self, moves: list[Fork | Forget]) -> None:
        self.cells.move(moves)

    def forward(self, spans: list[Span[int]], abort: StepAbort) -> Any:
        self._write(spans[0]._replace(tokens=[-1] * (len(spans[0].tokens) // 2)))
        self.fail(spans)
        self.cells.move([Forget(spans[0].place, spans[0].past)] if self.partial else [])
        if not self.partial:
            self.cells.used = [cell for cell in self.cells.used if -1 not in cell.content]
        self.steps.append((len(spans), sum(len(span.tokens) for span in spans)))
        logits = []
        for span in spans:
            self._write(span)
            contents = self.cells.of(span.place)
            logits += [self._logits(contents[span.past + offset]) for offset in span.samples]
        return np.array(logits, np.float32).reshape(-1, END + 1)

    def _write(self, span: Span[int]) -> None:
        before = self.cells.of(span.place)[-1] if span.past else ()
        for position, token in enumerate(span.tokens, span.past):
            before = (*before, token)
            self.cells.write(span.place, position, before)

    @staticmethod
    def _logits(content: tuple[int, ...]) -> Any:
        logits = np.zeros(END + 1)
        logits[ord("a") + hash(content) % 26] = 5
        return logits


class Driver:
    def __init__(self, runner: Runner, step_tokens: int = 64, max_rows: int = 8) -> None:
        self.frames: list[FromWorker] = []
        vocabulary, ends = Vocabulary(), frozenset({END})
        self._reader = RequestReader(vocabulary, Grammars(vocabulary, ends), 500)
        self.loop = EngineLoop(runner, vocabulary, ends, step_tokens, max_rows, self.frames.append)

    def enter(self, submits: list[Submit | SubmitScore]) -> None:
        for submit in submits:
            self.loop.enter(self._reader.read(submit))

    def end(self) -> dict[int, Any]:
        for _ in range(2000):
            if not self.loop.busy:
                break
            self.loop.step()
        assert not self.loop.busy
        found = {}
        for frame in self.frames:
            if isinstance(frame, Done):
                assert frame.id not in found
                found[frame.id] = frame.completion.choices[0].text
            elif not isinstance(frame, Notice):
                found[frame.id] = frame.scores.logprobs
        return found

    def notices(self) -> list[str]:
        return [frame.text for frame in self.frames if isinstance(frame, Notice)]


def row(number: int, text: str, interactive: bool = False) -> Submit:
    return Submit(
        number, text=CompletionRequest(model="m", prompt=text, max_tokens=6, temperature=0), interactive=interactive
    )


RUBRIC = "Grade the text that follows by how clear it is, from 0 to 10. "
ROWS = [
    *(row(number, f"{RUBRIC}{number} sacks of flour") for number in range(12)),
    SubmitScore(20, "m", text=RUBRIC + "Grade:", labels=["good", "goodness", "bad"]),
    row(30, "Name a colour.", interactive=True),
]


@pytest.fixture(scope="module")
def expected() -> dict[int, Any]:
    driver = Driver(Runner())
    driver.enter(ROWS)
    found = driver.end()
    assert len(found) == len(ROWS)
    return found


both = pytest.mark.parametrize("partial", [True, False], ids=["attention", "recurrent"])


@both
def test_a_step_without_room_is_computed_again_in_smaller_ones_and_no_row_is_lost(expected, partial):
    runner = Runner(partial)

    def fail(spans: list[Span[int]]) -> None:
        if len(spans) > 3 or sum(len(span.tokens) for span in spans) > 30:
            raise OutOfRoom("the GPU's memory is full")

    runner.fail = fail
    driver = Driver(runner)
    driver.enter(ROWS[:-1])
    assert driver.end() == {number: found for number, found in expected.items() if number != 30}
    # From then on it is tried no more.
    assert 2 <= len(driver.notices()) <= 6
    assert "the GPU's memory is full. They are computed again" in driver.notices()[0]


@both
def test_a_step_without_room_now_and_then_costs_no_row(expected, partial):
    runner = Runner(partial)
    calls = iter(range(10**6))

    def fail(spans: list[Span[int]]) -> None:
        if next(calls) % 7 == 3 and sum(len(span.tokens) for span in spans) > 1:
            raise OutOfRoom("the KV cache is full")

    runner.fail = fail
    driver = Driver(runner)
    driver.enter(ROWS)
    assert driver.end() == expected


def test_without_room_for_one_token_the_reason_is_passed_on():
    runner = Runner()

    def fail(spans: list[Span[int]]) -> None:
        raise OutOfRoom("the GPU's memory is full")

    runner.fail = fail
    driver = Driver(runner)
    driver.enter(ROWS)
    with pytest.raises(OutOfRoom, match="memory is full"):
        driver.end()
    assert driver.loop.scheduler.limits == (1, 1)


@pytest.mark.parametrize(("partial", "step_tokens"), [(True, 20), (False, 100)], ids=["attention", "recurrent"])
def test_answers_are_those_without_aborts_and_cancelled_rows(expected, partial, step_tokens):
    runner = Runner(partial)
    calls = iter(range(10**6))

    def fail(spans: list[Span[int]]) -> None:
        if next(calls) % 3 == 1:
            raise StepAborted

    runner.fail = fail
    driver = Driver(runner, step_tokens)
    driver.enter(ROWS)
    for number in (0, 5, 20):
        driver.loop.step()
        driver.loop.cancel(number)
    assert driver.end() == {number: found for number, found in expected.items() if number not in (0, 5, 20)}


def test_with_cells_for_two_rows_only_all_get_their_answers(expected):
    runner = Runner(cells=180)
    driver = Driver(runner)
    driver.enter(ROWS)
    assert driver.end() == expected
