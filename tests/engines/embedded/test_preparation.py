"""Requests are made ready beside the step's thread: in order, each for itself."""

from __future__ import annotations

import queue
import threading

from gristmill.engines.embedded.generation import GenerationRequest
from gristmill.engines.embedded.preparation import Preparation, Prepared
from gristmill.engines.embedded.worker.frames import Failed
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.request_frames import Submit

SECONDS = 30


def ready(frame: Submit) -> GenerationRequest:
    return GenerationRequest(frame.id, "m", False, [])


def test_requests_are_delivered_in_the_order_in_which_they_came() -> None:
    delivered: queue.SimpleQueue[Prepared] = queue.SimpleQueue()
    preparation = Preparation(ready, delivered.put)
    for number in range(200):
        preparation.submit(Submit(number))
    assert [delivered.get(timeout=SECONDS).id for _ in range(200)] == list(range(200))


def test_an_interactive_request_waits_for_none_of_a_batch() -> None:
    delivered: queue.SimpleQueue[Prepared] = queue.SimpleQueue()
    go_on = threading.Event()

    def prepare(frame: Submit) -> GenerationRequest:
        if not frame.interactive:
            assert go_on.wait(SECONDS)
        return ready(frame)

    preparation = Preparation(prepare, delivered.put)
    preparation.submit(Submit(1))
    preparation.submit(Submit(2))
    preparation.submit(Submit(3, interactive=True))
    assert delivered.get(timeout=SECONDS).id == 3
    go_on.set()
    assert [delivered.get(timeout=SECONDS).id for _ in range(2)] == [1, 2]


def test_what_is_cancelled_while_it_is_prepared_or_before_is_not_delivered() -> None:
    delivered: queue.SimpleQueue[Prepared] = queue.SimpleQueue()
    begun, go_on = threading.Event(), threading.Event()

    def prepare(frame: Submit) -> GenerationRequest:
        begun.set()
        assert go_on.wait(SECONDS)
        return ready(frame)

    preparation = Preparation(prepare, delivered.put)
    for number in (1, 2, 3):
        preparation.submit(Submit(number))
    assert begun.wait(SECONDS)
    preparation.cancel(1)
    preparation.cancel(2)
    go_on.set()
    assert delivered.get(timeout=SECONDS).id == 3
    preparation.cancel(3)
    assert delivered.empty()


def test_whatever_fails_in_one_request_is_that_requests() -> None:
    delivered: queue.SimpleQueue[Prepared] = queue.SimpleQueue()

    class Panic(BaseException):
        pass

    failures = [EngineError(ErrorKind.INVALID_REQUEST, "bad", param="stop"), RecursionError("deep"), Panic("panic")]

    def prepare(frame: Submit) -> GenerationRequest:
        if frame.id < len(failures):
            raise failures[frame.id]
        return ready(frame)

    preparation = Preparation(prepare, delivered.put)
    for number in range(4):
        preparation.submit(Submit(number))
    found = [delivered.get(timeout=SECONDS) for _ in range(4)]
    assert [(each.kind, each.param) for each in found[:3] if isinstance(each, Failed)] == [
        (ErrorKind.INVALID_REQUEST, "stop"), (ErrorKind.INVALID_REQUEST, None), (ErrorKind.INTERRUPTED, None),
    ]  # fmt: skip
    assert isinstance(found[3], GenerationRequest)
