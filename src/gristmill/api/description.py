"""``/openapi.json`` and ``/docs``: every call with its body, its answers and its errors, in OpenAPI 3.1.

Each handler is described where it is routed (``openapi_extra=described(...)``); all shapes come from the structs that
bodies are decoded into and answers encoded from. ``tests/api/test_openapi.py`` compares it with what is answered.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_origin

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from msgspec.inspect import Field, StructType, Type

import gristmill
from gristmill.access.open_paths import OPEN_PATHS
from gristmill.api.exchange import reply
from gristmill.api.idempotency import HEADER, MAX_KEY
from gristmill.html_page import render, told_date
from gristmill.inference import messages_errors
from gristmill.wire.errors import ErrorResponse
from gristmill.wire.messages import VERSION_HEADER, VERSIONS, MessageErrorResponse

Schema = dict[str, Any]

router = APIRouter()

_REFERENCE = "#/components/schemas/{name}"
_MEANINGS = {
    200: "What was asked for.",
    206: "The range that was asked for.",
    400: "Something in the request is wrong; `param` says what.",
    401: "No key came with it, or one that is not right.",
    403: "The host name or the web page that the request comes from is not allowed, or its key is read-only.",
    404: "There is no such object, or no such model.",
    408: "The body did not arrive in time.",
    409: "The object is no longer in a state that allows it.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    416: "The file has no such range.",
    429: "The engine asks for a pause, or the key holds as much as it may.",
    500: "The server or the engine failed.",
    503: "The server or the engine is not available now.",
    504: "The engine took too long.",
    529: "The server or the engine is not available now.",
    507: "The disk or the database refuses.",
}
#: Of servers that ask for keys; {}: the others.
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_SECURITY: list[Schema] = [{"bearer": []}, {"x-api-key": []}, {}]
_KEY = {
    "name": HEADER, "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY},
    "description": "The same request with the same key creates nothing more and gets the first answer, for 24 hours.",
}  # fmt: skip

_VERSION = {"name": VERSION_HEADER, "in": "header", "required": True, "schema": {"enum": list(VERSIONS)}}


class _Call(NamedTuple):
    body: Any
    form: Schema | None
    answer: Any
    media: Mapping[str, Any]
    query: Mapping[str, Schema]
    headers: Mapping[str, Schema]
    keyed: bool
    limited: bool
    asks_engine: bool
    also: Iterable[int]
    unavailable: Any
    error: Any


def described(
    *,
    body: Any = None,
    form: Schema | None = None,
    answer: Any = None,
    media: Mapping[str, Any] | None = None,
    query: Mapping[str, Schema] | None = None,
    headers: Mapping[str, Schema] | None = None,
    keyed: bool = False,
    limited: bool = False,
    asks_engine: bool = False,
    also: Iterable[int] = (),
    unavailable: Any = None,
    error: Any = ErrorResponse,
) -> dict[str, Any]:
    """For ``openapi_extra`` of a route.

    ``body`` and ``answer`` are types of JSON, ``form`` is the schema of a multipart body; ``media`` are other media
    types of the answer, and what they hold. ``keyed``: it takes an ``Idempotency-Key``; ``limited``: it adds something
    of which a key may hold so much. ``also`` are statuses that do
    not follow from all this; ``unavailable`` is what a 503 may be besides an error, and ``error`` the
    shape of errors."""
    media, query, headers = media or {}, query or {}, headers or {}
    return {
        "call": _Call(body, form, answer, media, query, headers, keyed, limited, asks_engine, also, unavailable, error)
    }


def page_query(maximum: int, default: int) -> dict[str, Schema]:
    """The parameters of a list; ``limit`` is at most ``maximum``."""
    limit = {"type": "integer", "minimum": 1, "maximum": maximum, "default": default}
    return {"after": {"type": "string"}, "limit": limit}


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    return reply(document(request.app.state.resources))


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The same for people: one page that needs nothing from elsewhere, and no script."""
    page = render("api/docs.html.jinja", document=document(request.app.state.resources), made_at=told_date(time.time()))
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    headers = {"content-security-policy": f"{policy}; frame-ancestors 'none'", "x-content-type-options": "nosniff"}
    return Response(page, headers=headers, media_type="text/html")


def document(resources: Iterable[APIRouter]) -> Schema:
    """The whole description."""
    routes = [route for each in resources for route in each.routes if isinstance(route, APIRoute)]
    calls: list[_Call] = [(route.openapi_extra or described())["call"] for route in routes]
    schemas = _Schemas(calls)
    paths: dict[str, Schema] = {}
    for route, call in zip(routes, calls, strict=True):
        for method in sorted(route.methods or ()):
            paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, method, call, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Gristmill", "version": gristmill.__version__},
        "paths": paths,
        "components": {"schemas": schemas.components, "securitySchemes": _SECURITY_SCHEMES},
    }


class _Schemas:
    """The schemas of all types that calls mention, each under its name."""

    def __init__(self, calls: Sequence[_Call]) -> None:
        taken = [call.body for call in calls if call.body is not None]
        given: list[Any] = []
        for call in calls:
            told = (call.answer, *call.media.values(), call.unavailable, call.error)
            given += [each for each in told if each is not None]
        self.components = msgspec.json.schema_components([*taken, *given], ref_template=_REFERENCE)[1]
        in_bodies = _structs(taken)
        for cls, info in _structs(given).items():
            if cls not in in_bodies:
                self.components[_name(cls)]["required"] = [f.encode_name for f in info.fields if _always_sent(cls, f)]

    def of(self, kind: Any) -> Schema:
        (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
        return schema


def _structs(kinds: Iterable[Any]) -> dict[Any, StructType]:
    """Every struct within some types."""
    found: dict[Any, StructType] = {}

    def walk(node: Any) -> None:
        if isinstance(node, StructType):
            if node.cls in found:
                return
            found[node.cls] = node
        if isinstance(node, Type | Field):
            for name in node.__struct_fields__:
                walk(getattr(node, name))
        elif isinstance(node, tuple):
            for each in node:
                walk(each)

    for kind in kinds:
        walk(msgspec.inspect.type_info(kind))
    return found


def _always_sent(cls: Any, field: Field) -> bool:
    """Whether an answer holds a field: one with a default, too, unless the struct leaves those out or it is unset."""
    if field.required:
        return True
    # A generic struct with its parameters is not the struct itself.
    omits_defaults = (get_origin(cls) or cls).__struct_config__.omit_defaults
    unset = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
    return not (omits_defaults or unset)


def _name(cls: Any) -> str:
    return str(msgspec.json.schema(cls)["$ref"].rpartition("/")[2])


def _operation(route: APIRoute, method: str, call: _Call, schemas: _Schemas) -> Schema:
    names = re.findall(r"\{(\w+)\}", route.path_format)
    parameters: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in call.query.items()]
    parameters += [{"name": name, "in": "header", "schema": schema} for name, schema in call.headers.items()]
    parameters += [_KEY] if call.keyed else []
    parameters += [_VERSION] if call.error is MessageErrorResponse else []
    operation: Schema = {
        "operationId": "_".join([*map(str, route.tags), route.name]),
        "summary": route.summary,
        "tags": list(route.tags),
        "parameters": parameters,
        "responses": _responses(method, call, schemas, has_id=bool(names), is_open=route.path_format in OPEN_PATHS),
    }
    if route.path_format not in OPEN_PATHS:
        operation["security"] = _SECURITY
    if route.endpoint.__doc__:
        operation["description"] = inspect.cleandoc(route.endpoint.__doc__)
    content = {}
    if call.body is not None:
        content["application/json"] = {"schema": schemas.of(call.body)}
    if call.form is not None:
        content["multipart/form-data"] = {"schema": call.form}
    if content:
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(method: str, call: _Call, schemas: _Schemas, *, has_id: bool, is_open: bool) -> Schema:
    content = {} if call.answer is None else {"application/json": {"schema": schemas.of(call.answer)}}
    content |= {kind: {"schema": schemas.of(held)} for kind, held in call.media.items()}
    statuses = {403, 500, 503, *call.also}
    if not is_open:
        statuses.add(401)
    if call.limited:
        statuses.add(429)
    if call.body is not None or call.form is not None:
        statuses |= {400, 408, 413}
    if call.body is not None:
        statuses.add(415)
    if call.query or call.keyed:
        statuses.add(400)
    if has_id:
        statuses.add(404)
    if call.asks_engine:
        statuses |= {404, 429, 504}
    elif method != "GET":
        statuses.add(507)
    if call.error is MessageErrorResponse:
        statuses.add(400)
        statuses = {messages_errors.status(each) for each in statuses}
    error = schemas.of(call.error)
    responses = {}
    for status in sorted({200, *statuses}):
        held = content if status < 300 else {"application/json": {"schema": error}}
        if status == 503 and call.unavailable is not None:
            held = {"application/json": {"schema": {"anyOf": [schemas.of(call.unavailable), error]}}}
        responses[str(status)] = {"description": _MEANINGS[status], "content": held}
    responses["default"] = {"description": "Any other error.", "content": {"application/json": {"schema": error}}}
    return responses
