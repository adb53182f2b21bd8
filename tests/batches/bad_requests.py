"""Tables of HTTP requests that are wrong: name -> the refusal that must come back."""

from __future__ import annotations

import json
from typing import Any

from bad_lines import DEEP, GOOD, Refusal, file_of

from requests_jsonl import CHAT


def create_with(**changes: Any) -> bytes:
    fields = {"input_file_id": "file-none", "endpoint": CHAT, "completion_window": "24h"} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


# POST /v1/batches: (code, param), always with status 400 and no batch made.
CREATE_REFUSED: dict[str, tuple[bytes, tuple[str | None, str | None]]] = {
    "no JSON": (b"input_file_id=file-1", (None, None)),
    "nothing": (b"", (None, None)),
    "JSON that is cut off": (create_with()[:-1], (None, None)),
    "invalid UTF-8": (create_with().replace(b"24h", b"\xff"), (None, None)),
    "an array": (b"[]", (None, None)),
    "null": (b"null", (None, None)),
    "nesting 10,000 deep": (DEEP, (None, None)),
    "nesting 10,000 deep in metadata": (create_with()[:-1] + b',"metadata":{"a":' + DEEP + b"}}", (None, None)),
    "no input_file_id": (create_with(input_file_id=None), ("missing_required_parameter", "input_file_id")),
    "no endpoint": (create_with(endpoint=None), ("missing_required_parameter", "endpoint")),
    "no completion_window": (create_with(completion_window=None), ("missing_required_parameter", "completion_window")),
    "a number as input_file_id": (create_with(input_file_id=5), ("invalid_type", "input_file_id")),
    "null as input_file_id": (
        create_with().replace(b'"file-none"', b"null"), ("invalid_type", "input_file_id"),
    ),
    "an array as endpoint": (create_with(endpoint=[CHAT]), ("invalid_type", "endpoint")),
    "an endpoint there is not": (create_with(endpoint="/v1/invalid/endpoint"), ("invalid_value", "endpoint")),
    "an endpoint that is not offered": (create_with(endpoint="/v1/videos"), ("invalid_value", "endpoint")),
    "a window that is none": (create_with(completion_window="soon"), ("invalid_value", "completion_window")),
    "a window of nothing": (create_with(completion_window="0h"), ("invalid_value", "completion_window")),
    "a window of ages": (create_with(completion_window="999999d"), ("invalid_value", "completion_window")),
    "a window in other digits": (create_with(completion_window="٢٤h"), ("invalid_value", "completion_window")),
    "a number as window": (create_with(completion_window=24), ("invalid_type", "completion_window")),
    "an array in metadata": (create_with(metadata={"tags": ["a"]}), ("invalid_type", "metadata.tags")),
    "a number in metadata": (create_with(metadata={"tags": 1}), ("invalid_type", "metadata.tags")),
    "a string as metadata": (create_with(metadata="a"), ("invalid_type", "metadata")),
    "invalid UTF-8 in metadata": (create_with(metadata={"a": "b"}).replace(b'"b"', b'"\xff"'), (None, None)),
    "a lone surrogate in metadata": (create_with(metadata={"a": "\ud800"}), (None, None)),
    "a number of 5,000 digits in metadata": (
        create_with(metadata={"a": "b"}).replace(b'"b"', b"9" * 5_000), ("invalid_type", "metadata.a"),
    ),
    "17 pairs of metadata": (
        create_with(metadata={str(n): "x" for n in range(17)}), ("object_above_max_properties", "metadata"),
    ),
    "a key of 65 characters": (create_with(metadata={"k" * 65: "x"}), ("string_above_max_length", "metadata")),
    "a value of 513 characters": (create_with(metadata={"k": "x" * 513}), ("string_above_max_length", "metadata.k")),
    "output_expires_after too soon": (
        create_with(output_expires_after={"anchor": "created_at", "seconds": 60}),
        ("invalid_value", "output_expires_after.seconds"),
    ),
    "output_expires_after from somewhere else": (
        create_with(output_expires_after={"anchor": "now", "seconds": 3600}),
        ("invalid_value", "output_expires_after.anchor"),
    ),
    "output_expires_after in a huge number": (
        create_with(output_expires_after={"anchor": "created_at", "seconds": 7}).replace(b"7", b"9" * 400),
        ("invalid_value", "output_expires_after.seconds"),
    ),
}  # fmt: skip


def form(*parts: tuple[str, bytes], end: bytes = b"--cut--\r\n") -> bytes:
    """A multipart body, ``parts`` as (rest of the disposition, content)."""
    text = b""
    for disposition, content in parts:
        text += b"--cut\r\ncontent-disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"
    return text + end


FORM = "multipart/form-data; boundary=cut"
FILE = ('name="file"; filename="a.jsonl"', file_of(GOOD))
PURPOSE = ('name="purpose"', b"batch")


def expires_after(**values: str) -> list[tuple[str, bytes]]:
    return [(f'name="expires_after[{key}]"', value.encode()) for key, value in values.items()]


# POST /v1/files: (content type, body) -> (status, code, param)
FORMS: dict[str, tuple[str, bytes, Refusal]] = {
    "JSON": ("application/json", b"{}", (400, "unsupported_content_type", None)),
    "no content type": ("", form(FILE, PURPOSE), (400, "unsupported_content_type", None)),
    "no boundary": ("multipart/form-data", form(FILE, PURPOSE), (400, "unsupported_content_type", None)),
    "another boundary": ("multipart/form-data; boundary=other", form(FILE, PURPOSE), (400, None, None)),
    "a boundary of 10,000 characters": (
        FORM + "x" * 10_000, form(FILE, PURPOSE), (400, "unsupported_content_type", None),
    ),
    "no body": (FORM, b"", (400, None, None)),
    "no form": (FORM, b"hello", (400, None, None)),
    "cut off in the file": (FORM, form(FILE)[:-30], (400, None, None)),
    "cut off after the file": (FORM, form(FILE, PURPOSE, end=b""), (400, None, None)),
    "cut off in a header": (FORM, b"--cut\r\ncontent-dispo", (400, None, None)),
    "a header that does not end": (FORM, b"--cut\r\ncontent-disposition: " + b"x" * 100_000, (400, None, None)),
    "a header that is none": (FORM, b"--cut\r\n\xff\xfe\r\n\r\nx\r\n--cut--\r\n", (400, None, None)),
    "no parts": (FORM, form(), (400, "missing_required_parameter", "file")),
    "no file": (FORM, form(PURPOSE), (400, "missing_required_parameter", "file")),
    "no purpose": (FORM, form(FILE), (400, "missing_required_parameter", "purpose")),
    "a purpose there is not": (FORM, form(FILE, ('name="purpose"', b"fun")), (400, "invalid_value", "purpose")),
    "invalid UTF-8 as purpose": (FORM, form(FILE, ('name="purpose"', b"\xff")), (400, "invalid_value", "purpose")),
    "an endless purpose": (
        FORM, form(FILE, ('name="purpose"', b"b" * 1_000_000)), (400, "invalid_value", "purpose"),
    ),
    "the file twice": (FORM, form(FILE, ('name="file"', b"x" * 100_000), PURPOSE), (400, "invalid_value", "file")),
    "expires_after without an anchor": (
        FORM, form(FILE, PURPOSE, *expires_after(seconds="3600")),
        (400, "missing_required_parameter", "expires_after.anchor"),
    ),
    "expires_after too late": (
        FORM, form(FILE, PURPOSE, *expires_after(anchor="created_at", seconds="9" * 400)),
        (400, "invalid_value", "expires_after.seconds"),
    ),
    "expires_after in words": (
        FORM, form(FILE, PURPOSE, *expires_after(anchor="created_at", seconds="soon")),
        (400, "invalid_type", "expires_after.seconds"),
    ),
}  # fmt: skip

# GET -> (status, code, param)
LISTS: dict[str, tuple[str, Refusal]] = {
    "a limit of 0": ("/batches?limit=0", (400, "invalid_value", "limit")),
    "a limit of 101": ("/batches?limit=101", (400, "invalid_value", "limit")),
    "a negative limit": ("/batches?limit=-1", (400, "invalid_value", "limit")),
    "an absurd limit": ("/batches?limit=" + "9" * 5_000, (400, "invalid_value", "limit")),
    "a word as limit": ("/batches?limit=many", (400, "invalid_value", "limit")),
    "a limit in other digits": ("/batches?limit=%D9%A2", (400, "invalid_value", "limit")),
    "an empty limit": ("/batches?limit=", (400, "invalid_value", "limit")),
    "a limit of files too high": ("/files?limit=10001", (400, "invalid_value", "limit")),
    "a cursor there is not": ("/batches?after=batch_none", (400, "invalid_value", "after")),
    "a number as cursor": ("/files?after=20", (400, "invalid_value", "after")),
    "a cursor of 50,000 characters": ("/batches?after=" + "x" * 50_000, (400, "invalid_value", "after")),
    "a cursor with quotes and NUL": ("/batches?after=%00'%22--", (400, "invalid_value", "after")),
    "an order there is not": ("/files?order=random", (400, "invalid_value", "order")),
    "a batch there is not": ("/batches/batch_none", (404, None, None)),
    "a batch id of invalid UTF-8": ("/batches/%ff%fe", (404, None, None)),
    "a file there is not": ("/files/file-none", (404, None, "id")),
    "the content of a file there is not": ("/files/file-none/content", (404, None, "id")),
    "a file above the folder": ("/files/..%2F..%2Fgristmill.db/content", (404, "unknown_url", None)),
    "a path there is not": ("/nothing", (404, "unknown_url", None)),
}  # fmt: skip
