"""Whether one line of an input file is a request this batch can run: pure, with every error it has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from gristmill.engines.errors import unknown_model
from gristmill.inference.endpoints import ENDPOINTS, UNAVAILABLE_ENDPOINTS, Endpoint
from gristmill.wire.batch import BatchError
from gristmill.wire.errors import ApiError, clip, missing_parameter, wrong_type
from gristmill.wire.json import type_of
from gristmill.wire.line_body import Fields, default_fields, with_defaults


class LineCheck(NamedTuple):
    """What a line says of itself (None where it does not), and what is wrong with it. ``fields`` are its body's,
    without the batch's defaults; None where they cannot be taken apart."""

    custom_id: str | None
    model: str | None
    errors: list[BatchError]
    fields: Fields | None = None


class _RequestLine(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: Fields


_request_decoder = msgspec.json.Decoder(_RequestLine)
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)
_fields_decoder = msgspec.json.Decoder(Fields)
_string_decoder = msgspec.json.Decoder(str)
_ABSENT = (b"", b"null")
_NONE = msgspec.Raw()


class LineChecker:
    """Checks lines one by one; duplicates, mixed models and unknown models are the whole file's matter."""

    def __init__(self, endpoint: str, defaults: dict[str, Any] | None) -> None:
        self._endpoint = ENDPOINTS[endpoint]
        self._defaults = default_fields(defaults)

    def check(self, data: bytes, number: int) -> LineCheck:
        try:
            line = _request_decoder.decode(data)
            if not data.isascii():
                # The decoder skips over values it does not look into, and does not see their encoding.
                data.decode()
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _examine(data, number, self._endpoint, self._defaults)
        body = line.body
        model = body.get("model", _NONE)
        required = self._endpoint.required
        well_formed = (
            line.custom_id
            and line.method == "POST"
            and line.url == self._endpoint.path
            and bytes(model)[:1] == b'"'
            and model != _EMPTY
            and bytes(body.get("stream", _FALSE)) in (b"false", b"null")
            and (required is None or bytes(body.get(required, _NONE)) not in _ABSENT)
        )
        if well_formed:
            with contextlib.suppress(msgspec.DecodeError):
                return LineCheck(line.custom_id, _string_decoder.decode(model), [], body)
        return _examine(data, number, self._endpoint, self._defaults)


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


def unsupported_model(number: int, model: str, models: Iterable[str]) -> BatchError:
    error = unknown_model(model, tuple(models))
    return BatchError(code=str(error.code), message=error.message, param="body.model", line=number)


def _examine(data: bytes, number: int, endpoint: Endpoint, defaults: Fields) -> LineCheck:
    """The slow, thorough way: every error of a line that is not plainly good."""
    try:
        data.decode()
        whole = _raw_decoder.decode(data)
        if bytes(whole)[:1] != b"{":
            text = f"Each line must be a JSON object, but this one is {type_of(whole)}."
            return LineCheck(None, None, [BatchError("invalid_request", text, line=number)])
        line = _fields(whole)
        body = line.get("body")
        fields = _fields(body) if body is not None and bytes(body)[:1] == b"{" else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return LineCheck(None, None, [_unparseable(number)])
    found = _LineErrors(number)
    custom_id = found.string(line, "custom_id")
    method = found.string(line, "method")
    if method is not None and method != "POST":
        found.add("invalid_method", f"The method '{clip(method)}' is not supported. Only POST is allowed.", "method")
    url = found.string(line, "url")
    if url is not None:
        found.url(url, endpoint.path)
    model = None
    if body is None:
        found.missing("body")
    elif fields is None:
        found.wrong_type("body", "an object", body)
    else:
        model = found.body(with_defaults(fields, defaults), endpoint)
    return LineCheck(custom_id, model, found.errors, fields)


def _fields(value: msgspec.Raw) -> Fields:
    """An object's fields that are not null, undecoded: a number in them may be larger than Python's."""
    fields = _fields_decoder.decode(value)
    return {name: field for name, field in fields.items() if bytes(field) not in _ABSENT}


class _LineErrors:
    """Collects the errors of one line."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.errors: list[BatchError] = []

    def add(self, code: str, message: str, param: str) -> None:
        self.errors.append(BatchError(code=code, message=message, param=param, line=self._number))

    def _refuse(self, error: ApiError) -> None:
        body = error.body
        self.errors.append(BatchError(str(body.code or "invalid_request"), body.message, body.param, self._number))

    def missing(self, name: str) -> None:
        self._refuse(missing_parameter(name))

    def wrong_type(self, name: str, expected: str, value: msgspec.Raw) -> None:
        self._refuse(wrong_type(name, expected, type_of(value)))

    def string(self, line: Fields, name: str) -> str | None:
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
        if url in ENDPOINTS or url in UNAVAILABLE_ENDPOINTS:
            self.add("invalid_url", "The URL provided for this request does not match the batch endpoint.", "url")
        else:
            self.add("url_not_found", f"The provided url '{clip(url)}' is not supported by the Batch API.", "url")

    def body(self, body: Fields, endpoint: Endpoint) -> str | None:
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
