"""Embeddings in the worker's loop: requests share steps, and none fails with another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.answer_frames import Embedded
from gristmill.engines.embedded.embeddings.embedding import EmbeddingTask
from gristmill.engines.embedded.embeddings.embedding_loop import EmbeddingLoop
from gristmill.engines.embedded.worker.frames import Failed, FromWorker
from gristmill.engines.errors import EngineError, ErrorKind

BAD = 666


class Runner:
    """An input's vector is (its first token, its length); a step with ``BAD`` in it fails."""

    size = 2
    padded = False

    def __init__(self) -> None:
        self.steps: list[int] = []

    def embed(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        self.steps.append(len(inputs))
        if any(BAD in tokens for tokens in inputs):
            raise RuntimeError("a hostile token")
        return np.array([[tokens[0], len(tokens)] for tokens in inputs], np.float32)


def loop(step_tokens: int = 100, max_rows: int = 8) -> tuple[EmbeddingLoop, Runner, list[FromWorker]]:
    emitted: list[FromWorker] = []
    runner = Runner()
    return EmbeddingLoop(runner, step_tokens, max_rows, emitted.append), runner, emitted


def task(number: int, *inputs: list[int], interactive: bool = False) -> EmbeddingTask:
    return EmbeddingTask(number, "m", list(inputs), None, False, interactive)


def run(engine: EmbeddingLoop) -> None:
    while engine.busy:
        engine.step()


def vectors(emitted: list[FromWorker]) -> dict[int, list[list[float]]]:
    return {each.id: each.embeddings.vectors for each in emitted if isinstance(each, Embedded)}


def test_inputs_of_several_requests_share_a_step_and_keep_their_order() -> None:
    engine, runner, emitted = loop()
    engine.enter(task(1, [5, 5], [7]))
    engine.enter(task(2, [9]))
    run(engine)
    assert runner.steps == [3]
    assert vectors(emitted) == {1: [[5, 2], [7, 1]], 2: [[9, 1]]}


def test_a_request_of_many_inputs_takes_several_steps() -> None:
    engine, runner, emitted = loop(max_rows=4)
    engine.enter(task(1, *([number] for number in range(10))))
    run(engine)
    assert runner.steps == [4, 4, 2]
    assert vectors(emitted)[1] == [[number, 1] for number in range(10)]


def test_an_input_that_fails_is_no_others_failure() -> None:
    engine, _, emitted = loop()
    engine.enter(task(1, [1]))
    engine.enter(task(2, [2], [BAD], [3]))
    engine.enter(task(3, [4]))
    run(engine)
    assert vectors(emitted) == {1: [[1, 1]], 3: [[4, 1]]}
    failed = [each for each in emitted if isinstance(each, Failed)]
    assert [(each.id, each.kind) for each in failed] == [(2, ErrorKind.INTERRUPTED)]


def test_a_cancelled_request_is_not_computed_and_not_answered() -> None:
    engine, runner, emitted = loop(max_rows=1)
    engine.enter(task(1, [1], [2], [3]))
    engine.enter(task(2, [4]))
    engine.step()
    engine.cancel(1)
    engine.cancel(99)
    run(engine)
    assert runner.steps == [1, 1]
    assert vectors(emitted) == {2: [[4, 1]]}


def test_interactive_requests_come_first() -> None:
    engine, _, emitted = loop(max_rows=1)
    engine.enter(task(1, [1], [2]))
    engine.enter(task(2, [3], interactive=True))
    run(engine)
    assert list(vectors(emitted)) == [2, 1]


def test_what_could_not_be_prepared_is_passed_on() -> None:
    engine, _, emitted = loop()
    refusal = EngineError(ErrorKind.INVALID_REQUEST, "no", param="input")
    failed = Failed(3, refusal.kind, refusal.message, 400, refusal.param, None)
    engine.enter(failed)
    assert emitted == [failed]
    assert not engine.busy
