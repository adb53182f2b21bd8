"""Responses made in the background: asked for by one call, looked up by others.

They are in the memory of this process and end with it: what must outlast it is a batch's. The oldest that have ended
are forgotten first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import msgspec

from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError
from gristmill.inference import chat, forwarding, responses
from gristmill.inference.answer import Backend
from gristmill.inference.failures import api_error
from gristmill.inference.recent_items import OwnItems, RecentItems
from gristmill.inference.responses_stream import begun, failure
from gristmill.storage.scope import Scope
from gristmill.telemetry.log import get_logger
from gristmill.wire.errors import ApiError, clip, not_found, server_error
from gristmill.wire.responses import DeletedResponse, ResponseObject, ResponseRequest

log = get_logger(__name__)

#: Of requests that are under way and responses that have ended, as JSON.
MAX_BYTES = 128 * 1024 * 1024
#: What a request that is under way holds besides its body, its tasks and the response as it begins, rounded up.
TASK_BYTES = 16 * 1024


class _Head(msgspec.Struct):
    background: bool | None = None


_head_decoder = msgspec.json.Decoder(_Head)
#: One of a server's own is as it gave it.
Response = ResponseObject | msgspec.Raw

_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def asks_for_background(body: bytes) -> bool:
    """What is wrong with a body is for ``responses.parse`` to say."""
    try:
        return _head_decoder.decode(body).background is True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _known_as(begun: ResponseObject, answer: msgspec.Struct | msgspec.Raw) -> Response:
    """The answer, also a server's own, under the id by which it was asked for."""
    shared = {name: getattr(begun, name) for name in ("id", "created_at", "background")}
    if isinstance(answer, ResponseObject):
        return msgspec.structs.replace(answer, **shared)
    fields = _fields_decoder.decode(msgspec.json.encode(answer))
    return msgspec.Raw(msgspec.json.encode(fields | shared))


class _Kept:
    def __init__(self, begun: ResponseObject, size: int, key_id: str | None) -> None:
        self.key_id = key_id
        self.begun = begun
        self.response: Response = begun
        self.size = size
        self.task: asyncio.Task[None] | None = None


class BackgroundResponses:
    """``stop`` goes with what is asked of the engine; nobody requests it, as what is given up is cancelled."""

    def __init__(self, recent: RecentItems, max_bytes: int = MAX_BYTES, task_bytes: int = TASK_BYTES) -> None:
        self.stop = Stop()
        self._recent = recent
        self._max_bytes = max_bytes
        self._task_bytes = task_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def start(self, body: bytes, backend: Backend, scope: Scope) -> ResponseObject:
        """The response as it begins; it belongs to the key of ``scope``. Raises ApiError for what is wrong with the
        request, 503 where too much waits."""
        fields = _fields_decoder.decode(body)
        fields.pop("background", None)
        if bytes(fields.get("store", b"")) == b"true":
            # It is kept, for a while.
            del fields["store"]
        body = msgspec.json.encode(fields)
        recent = self._recent.of(scope.key_id)
        request = self._checked(body, backend, recent)
        size = len(body) + self._task_bytes
        self._make_room(size)
        response = msgspec.structs.replace(begun(request), status="queued", background=True)
        kept = self._kept[response.id] = _Kept(response, size, scope.key_id)
        self._bytes += kept.size
        kept.task = asyncio.create_task(self._work(kept, request, body, backend, recent))
        return response

    def _checked(self, body: bytes, backend: Backend, recent: OwnItems) -> ResponseRequest:
        if backend.forwards(responses.PATH):
            # What else is in it is for the server to say, in the end.
            head = forwarding.response_request(responses.PATH, body)
            request = ResponseRequest(head.model, "", stream=head.stream)
        else:
            request = responses.parse(body, recent)
            responses.chat_body(request, body, backend.forwards(chat.PATH))
        if request.stream:
            message = "A response in the background cannot be streamed here: leave 'stream' or 'background' out."
            raise ApiError(400, message, param="stream", code="unsupported_parameter")
        return request

    def get(self, response_id: str, scope: Scope) -> Response:
        """As it stands. Raises ApiError 404."""
        return self._find(response_id, scope).response

    def cancel(self, response_id: str, scope: Scope) -> Response:
        """One that has ended stays as it is. Raises ApiError 404."""
        kept = self._find(response_id, scope)
        if kept.task is not None:
            kept.task.cancel()
            self._end(kept, msgspec.structs.replace(kept.begun, status="cancelled"))
        return kept.response

    def delete(self, response_id: str, scope: Scope) -> DeletedResponse:
        """Whether it has ended or not. Raises ApiError 404."""
        self.cancel(response_id, scope)
        if (kept := self._kept.pop(response_id, None)) is not None:
            self._bytes -= kept.size
        return DeletedResponse(response_id)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [kept.task for kept in self._kept.values() if kept.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(
        self, kept: _Kept, request: ResponseRequest, body: bytes, backend: Backend, recent: OwnItems
    ) -> None:
        kept.response = kept.begun = msgspec.structs.replace(kept.begun, status="in_progress")
        ended: Response
        try:
            answer = await responses.answer(body, backend, recent)
            ended = _known_as(kept.begun, answer.body)
        except ApiError as error:
            ended = self._failed(kept, error)
        except EngineError as error:
            ended = self._failed(kept, api_error(error))
        except Exception as error:
            log.error("a response in the background failed unexpectedly", exc_info=error)
            message = "The server had an unexpected error while processing your request; its log has the details."
            ended = self._failed(kept, server_error(500, message))
        # Once it was cancelled, it stays so.
        if kept.task is not None:
            self._end(kept, ended)

    def _failed(self, kept: _Kept, error: ApiError) -> ResponseObject:
        return msgspec.structs.replace(kept.begun, status="failed", error=failure(error))

    def _end(self, kept: _Kept, response: Response) -> None:
        kept.response, kept.task = response, None
        self._bytes -= kept.size
        kept.size = len(msgspec.json.encode(response))
        self._bytes += kept.size
        self._forget_ended(self._max_bytes)

    def _find(self, response_id: str, scope: Scope) -> _Kept:
        kept = self._kept.get(response_id)
        if kept is None or not scope.has(kept.key_id):
            message = (
                f"Response with id '{clip(response_id)}' not found: only responses with 'background': true are kept, "
                "by the server that was asked for them, and until it ends."
            )
            raise not_found(message, code="response_not_found")
        return kept

    def _make_room(self, size: int) -> None:
        self._forget_ended(self._max_bytes - size)
        if self._bytes + size > self._max_bytes:
            message = "Too many responses are being made in the background: try again later, or use a batch."
            raise server_error(503, message, "server_busy", retry_after=5)

    def _forget_ended(self, max_bytes: int) -> None:
        forgotten, left = [], self._bytes
        for response_id, kept in self._kept.items():
            if left <= max_bytes:
                break
            if kept.task is None:
                forgotten.append(response_id)
                left -= kept.size
        for response_id in forgotten:
            del self._kept[response_id]
        self._bytes = left
