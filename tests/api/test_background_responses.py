"""Responses in the background, by the official client: looked up, cancelled, deleted, and forgotten in the end."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import Choice, Completion
from gristmill.inference.answer import Backend
from gristmill.inference.background_responses import MAX_BYTES, BackgroundResponses
from gristmill.inference.recent_items import RecentItems
from gristmill.storage.scope import EVERYTHING
from gristmill.wire.errors import ApiError
from server_process import ServerProcess


def strict(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="unused", max_retries=0, _strict_response_validation=True)


def ended(client: openai.OpenAI, response: Response) -> Response:
    for _ in range(1000):
        response = client.responses.retrieve(response.id)
        if response.status not in ("queued", "in_progress"):
            return response
        time.sleep(0.02)
    raise AssertionError(f"the response is still {response.status}")


def test_a_response_is_made_while_nobody_waits(server: ServerProcess) -> None:
    """As autobatcher asks by default."""
    client = strict(server)
    asked: dict[str, Any] = {"model": "simulated", "input": "Hi", "metadata": {"a": "b"}}
    begun = client.responses.create(**asked, background=True, service_tier="flex", store=True)
    assert begun.status == "queued" and begun.background is True and begun.output == []
    response = ended(client, begun)
    assert (response.id, response.created_at, response.background) == (begun.id, begun.created_at, True)
    assert response.status == "completed" and response.metadata == {"a": "b"} and response.usage is not None
    assert response.output_text == client.responses.create(**asked).output_text
    assert client.responses.cancel(begun.id).status == "completed"
    reference: Any = {"type": "item_reference", "id": response.output[0].id}
    assert client.responses.create(
        model="simulated", input=[reference, {"role": "user", "content": "and?"}]
    ).output_text
    client.responses.delete(begun.id)
    for call in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
        with pytest.raises(openai.NotFoundError, match="only responses with 'background': true are kept"):
            call(begun.id)


def test_what_is_wrong_is_told_at_once_or_in_the_response(server: ServerProcess) -> None:
    client = strict(server)
    for given, param in (
        ({"input": "x", "stream": True}, "stream"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0].type"),
        ({"input": "x", "extra_body": {"instruction": "y"}}, "instruction"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="simulated", background=True, **given)  # type: ignore[call-overload]
        assert refused.value.param == param
    response = ended(client, client.responses.create(model="nobody", input="x", background=True))
    assert response.status == "failed" and response.error is not None and response.completed_at is None
    assert response.error.code == "invalid_prompt" and "This server has: simulated" in response.error.message
    with pytest.raises(openai.BadRequestError, match="cannot be streamed"):
        client.responses.retrieve(response.id, stream=True)


def test_one_that_is_cancelled_frees_the_engine(tmp_path: Path) -> None:
    journal = tmp_path / "answered"
    options = ("--engine-option", "slots=1", "--engine-option", "latency=60", "--engine-option", f"journal={journal}")
    with ServerProcess(tmp_path / "data", *options) as server:
        client = strict(server)
        made = [client.responses.create(model="simulated", input=f"{i}", background=True) for i in range(3)]
        assert client.responses.cancel(made[0].id).status == "cancelled"
        client.responses.delete(made[1].id)
        assert client.responses.retrieve(made[0].id).status == "cancelled"
        assert client.responses.retrieve(made[2].id).status == "in_progress"
        # The server ends at once, whatever is under way.
        server.stop()
        assert not any("Traceback" in line or "unexpectedly" in line or "destroyed" in line for line in server.log)
    assert journal.read_text() == ""


BODY = b'{"model": "m", "input": "x", "background": true}'


class Engine:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self.backend = Backend(self.ask)

    async def ask(self, request: Any) -> Any:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return Completion("m", (Choice("y" * 100, "stop"),), 1, 1)


async def test_what_has_ended_is_forgotten_first_and_what_is_under_way_never() -> None:
    engine, kept = Engine(), BackgroundResponses(RecentItems(), max_bytes=3000, task_bytes=0)
    waiting = []
    with pytest.raises(ApiError) as busy:
        while True:
            waiting.append(kept.start(BODY, engine.backend, EVERYTHING))
    assert busy.value.status == 503 and busy.value.retry_after is not None and len(waiting) > 50
    assert all(kept.get(each.id, EVERYTHING).status == "queued" for each in waiting)
    engine.go.set()
    for _ in range(20):
        await asyncio.sleep(0)
    found = []
    for each in waiting:
        try:
            found.append(kept.get(each.id, EVERYTHING))
        except ApiError as error:
            assert error.status == 404
    assert 1 <= len(found) <= 3 and {each.status for each in found} == {"completed"}
    assert found[-1].id == waiting[-1].id
    for each in found:
        kept.delete(each.id, EVERYTHING)
    assert kept._bytes == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineError(ErrorKind.OVERLOADED, "busy"), "rate_limit_exceeded"), (ApiError(400, "no"), "invalid_prompt"),
     (RuntimeError("defect"), "server_error")],
)  # fmt: skip
async def test_whatever_fails_ends_the_response_as_failed(error: Exception, code: str) -> None:
    engine, kept = Engine(), BackgroundResponses(RecentItems())
    engine.error = error
    begun = kept.start(BODY, engine.backend, EVERYTHING)
    engine.go.set()
    for _ in range(5):
        await asyncio.sleep(0)
    response = kept.get(begun.id, EVERYTHING)
    assert response.status == "failed" and response.error is not None and response.error.code == code
    assert "defect" not in response.error.message


async def test_a_flood_of_small_ones_is_refused_by_what_they_hold_not_by_their_bodies() -> None:
    engine, kept = Engine(), BackgroundResponses(RecentItems())
    tracemalloc.start()
    try:
        with pytest.raises(ApiError) as busy:
            while True:
                kept.start(BODY, engine.backend, EVERYTHING)
        await asyncio.sleep(0)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert busy.value.status == 503 and held < MAX_BYTES
    await kept.close()


async def test_one_can_be_deleted_that_is_larger_than_there_is_room_for() -> None:
    engine, kept = Engine(), BackgroundResponses(RecentItems(), max_bytes=100, task_bytes=0)
    begun = kept.start(BODY, engine.backend, EVERYTHING)
    assert kept.delete(begun.id, EVERYTHING).deleted and kept._bytes == 0


async def test_a_cancel_at_any_moment_stays_a_cancel() -> None:
    for moments in range(8):
        engine, kept = Engine(), BackgroundResponses(RecentItems())
        begun = kept.start(BODY, engine.backend, EVERYTHING)
        engine.go.set()
        for _ in range(moments):
            await asyncio.sleep(0)
        before = kept.get(begun.id, EVERYTHING).status
        status = kept.cancel(begun.id, EVERYTHING).status
        assert status == ("completed" if before == "completed" else "cancelled")
        for _ in range(8):
            await asyncio.sleep(0)
        assert kept.get(begun.id, EVERYTHING).status == status
        await kept.close()
