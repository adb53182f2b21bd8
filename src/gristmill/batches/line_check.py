"""Whether one line of an input file is a request this batch can run: pure, with every error it has."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gristmill.inference.endpoints import ENDPOINTS, Endpoint
from gristmill.wire.batch import BatchError
from gristmill.wire.errors import clip
from gristmill.wire.json import type_of
from gristmill.wire.line_body import default_fields, with_defaults


class LineCheck(NamedTuple):
    """What a line says of itself (None where it does not), and what is wrong with it."""

    custom_id: str | None
    model: str | None
    errors: list[BatchError]


class _BodyHead(msgspec.Struct):
    model: str
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None


class _LineHead(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: _BodyHead


_head_decoder = msgspec.json.Decoder(_LineHead)
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string_decoder = msgspec.json.Decoder(str)
_ABSENT = (b"", b"null")
_Fields = dict[str, msgspec.Raw]


def check_line(data: bytes, number: int, endpoint: str, defaults: dict[str, Any] | None) -> LineCheck:
    """Check one line on its own; duplicates, mixed models and unknown models are the whole file's matter."""
    try:
        head = _head_decoder.decode(data)
        if not data.isascii():
            # The decoder skips over fields it does not need without looking at their encoding.
            data.decode()
    except msgspec.ValidationError:
        return _examine(data, number, endpoint, defaults)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return LineCheck(None, None, [_unparseable(number)])
    required = ENDPOINTS[endpoint].required
    well_formed = (
        head.custom_id
        and head.method == "POST"
        and head.url == endpoint
        and head.body.model
        and not head.body.stream
        and (required is None or bytes(getattr(head.body, required)) not in _ABSENT)
    )
    if well_formed:
        return LineCheck(head.custom_id, head.body.model, [])
    return _examine(data, number, endpoint, defaults)


def too_long(number: int, length: int, limit: int) -> BatchError:
    message = f"This line is {length:,} bytes long; the maximum is {limit:,} bytes."
    return BatchError(code="invalid_request", message=message, line=number)


def duplicate(number: int, custom_id: str) -> BatchError:
    message = (
        f"The custom_id '{clip(custom_id)}' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch."
    )
    return BatchError(code="duplicate_custom_id", message=message, param="custom_id", line=number)


def mismatched_model(number: int, model: str) -> BatchError:
    message = (
        f"The model '{clip(model)}' for this request does not match the rest of the batch. "
        "Each batch must contain requests for a single model."
    )
    return BatchError(code="mismatched_model", message=message, param="body.model", line=number)


def unknown_model(number: int, model: str) -> BatchError:
    message = f"The provided model '{clip(model)}' is not supported by the Batch API."
    return BatchError(code="model_not_found", message=message, param="body.model", line=number)


def _examine(data: bytes, number: int, endpoint: str, defaults: dict[str, Any] | None) -> LineCheck:
    """The slow, thorough way: every error of a line that is not plainly good."""
    try:
        data.decode()
        whole = _raw_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return LineCheck(None, None, [_unparseable(number)])
    if bytes(whole)[:1] != b"{":
        text = f"Each line must be a JSON object, but this one is {type_of(whole)}."
        return LineCheck(None, None, [BatchError("invalid_request", text, line=number)])
    line = _fields(whole)
    checker = _Checker(number)
    custom_id = checker.string(line, "custom_id")
    method = checker.string(line, "method")
    if method is not None and method != "POST":
        checker.add("invalid_method", f"The method '{clip(method)}' is not supported. Only POST is allowed.", "method")
    url = checker.string(line, "url")
    if url is not None:
        checker.url(url, endpoint)
    model = None
    if (body := line.get("body")) is None:
        checker.missing("body")
    elif bytes(body)[:1] != b"{":
        checker.wrong_type("body", "an object", body)
    else:
        model = checker.body(with_defaults(_fields(body), default_fields(defaults)), ENDPOINTS[endpoint])
    return LineCheck(custom_id, model, checker.errors)


def _fields(value: msgspec.Raw) -> _Fields:
    """An object's fields that are not null, undecoded: a number in them may be larger than Python's."""
    fields = _fields_decoder.decode(value)
    return {name: field for name, field in fields.items() if bytes(field) not in _ABSENT}


class _Checker:
    """Collects the errors of one line."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.errors: list[BatchError] = []

    def add(self, code: str, message: str, param: str) -> None:
        self.errors.append(BatchError(code=code, message=message, param=param, line=self._number))

    def missing(self, name: str) -> None:
        self.add("missing_required_parameter", f"Missing required parameter: '{name}'.", name)

    def wrong_type(self, name: str, expected: str, value: msgspec.Raw) -> None:
        message = f"Invalid type for '{name}': expected {expected}, but got {type_of(value)} instead."
        self.add("invalid_type", message, name)

    def string(self, line: _Fields, name: str) -> str | None:
        value = line.get(name)
        if value is None:
            self.missing(name)
        elif bytes(value)[:1] != b'"':
            self.wrong_type(name, "a string", value)
        elif not (text := _string_decoder.decode(value)):
            self.add("invalid_value", f"Invalid '{name}': it must not be empty.", name)
        else:
            return text
        return None

    def url(self, url: str, endpoint: str) -> None:
        if url == endpoint:
            return
        if url in ENDPOINTS:
            self.add("invalid_url", "The URL provided for this request does not match the batch endpoint.", "url")
        else:
            self.add("url_not_found", f"The provided url '{clip(url)}' is not supported by the Batch API.", "url")

    def body(self, body: _Fields, endpoint: Endpoint) -> str | None:
        """Check what is checked before anything runs; the rest of the body is judged when its line runs."""
        model = body.get("model", _EMPTY)
        is_text = bytes(model)[:1] == b'"'
        if model == _EMPTY:
            self.add("invalid_request", "Model parameter is required.", "body.model")
        elif not is_text:
            self.wrong_type("body.model", "a string", model)
        if endpoint.required is not None and endpoint.required not in body:
            message = f"{endpoint.required.capitalize()} parameter is required."
            self.add("invalid_request", message, f"body.{endpoint.required}")
        if body.get("stream", _FALSE) != _FALSE:
            message = f"{endpoint.title}: Streaming is not supported in the Batch API."
            self.add("streaming_unsupported", message, "body.stream")
        return (_string_decoder.decode(model) or None) if is_text else None


_EMPTY = msgspec.Raw(b'""')
_FALSE = msgspec.Raw(b"false")


def _unparseable(number: int) -> BatchError:
    return BatchError("invalid_json_line", "This line is not parseable as valid JSON.", line=number)
