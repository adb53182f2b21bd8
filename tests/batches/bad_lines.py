"""Tables of input files that are wrong, or only look it: name -> what the answer must be."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from requests_jsonl import CHAT, chat_line

#: Errors of a file: (line, code, param), lines counted from 1.
Expected = list[tuple[int | None, str, str | None]]
#: An HTTP error: (status, code, param).
Refusal = tuple[int, str | None, str | None]

GOOD = json.dumps(chat_line("good")).encode()
BODY = json.dumps(chat_line("x")["body"]).encode()
DEEP = b"[" * 10_000 + b"]" * 10_000


def line(**changes: Any) -> bytes:
    """A good line but for ``changes``; None leaves a field out."""
    fields = chat_line("x") | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def body(**changes: Any) -> bytes:
    fields = chat_line("x")["body"] | changes
    return line(body={name: value for name, value in fields.items() if value is not None})


def raw_line(custom_id: bytes = b'"x"', body: bytes = BODY, extra: bytes = b"") -> bytes:
    """A line put together from bytes, for what ``json`` would not write."""
    return b'{"custom_id":%b,"method":"POST","url":"%b",%b"body":%b}' % (custom_id, CHAT.encode(), extra, body)


def raw_body(pair: bytes, custom_id: bytes = b'"x"') -> bytes:
    """A line whose body has one more ``"name":value``."""
    return raw_line(custom_id, BODY[:-1] + b"," + pair + b"}")


def file_of(*lines: bytes) -> bytes:
    return b"".join(each + b"\n" for each in lines)


def after_good(*lines: bytes) -> bytes:
    """The bad lines begin at line 2, as a bad first line is refused at upload."""
    return file_of(GOOD, *lines)


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("rows.jsonl", file_of(GOOD))
    return data.getvalue()


# What is refused when it is uploaded with the purpose "batch".
NOT_JSONL: dict[str, bytes] = {
    "an empty file": b"",
    "a text": b"These are my notes.\n",
    "a binary file": bytes(range(256)) * 100,
    "a zip": zipped(),
    "UTF-16 with a byte order mark": file_of(GOOD).decode().encode("utf-16"),
    "UTF-16 without one": file_of(GOOD).decode().encode("utf-16-le"),
    "NUL bytes": b"\0" * 1000,
    "a first line that is cut off": GOOD[:-1],
    "a first line in invalid UTF-8": raw_line(b'"\xff"'),
    "a first line nested 10,000 deep": raw_line(extra=b'"skipped":' + DEEP + b","),
    "a byte order mark and nothing valid": b"\xef\xbb\xbfnotes",
}

UNPARSEABLE: Expected = [(2, "invalid_json_line", None)]

# What is accepted as a file, and then rejected as a whole, with every error of every line.
REJECTED: dict[str, tuple[bytes, Expected]] = {
    # invalid_json_line
    "a line that is not JSON": (after_good(b"notes"), UNPARSEABLE),
    "a line that is cut off": (after_good(GOOD[:-2]), UNPARSEABLE),
    "two objects on a line": (after_good(GOOD + GOOD), UNPARSEABLE),
    "a comma after the object": (after_good(GOOD + b","), UNPARSEABLE),
    "single quotes": (after_good(b"{'custom_id': 'x'}"), UNPARSEABLE),
    "NaN as a number": (after_good(raw_body(b'"top_p":NaN')), UNPARSEABLE),
    "invalid UTF-8 in custom_id": (after_good(raw_line(b'"\xff\xfe"')), UNPARSEABLE),
    "invalid UTF-8 in a field that is skipped": (after_good(raw_line(extra=b'"skipped":"\xc3",')), UNPARSEABLE),
    "invalid UTF-8 in messages": (
        after_good(raw_line(body=BODY.replace(b"Rate", b"\xe2\x28\xa1"))), UNPARSEABLE,
    ),
    "an encoded surrogate in messages": (
        after_good(raw_line(body=BODY.replace(b"Rate", b"\xed\xa0\x80"))), UNPARSEABLE,
    ),
    "a NUL byte in custom_id": (after_good(raw_line(b'"a\0b"')), UNPARSEABLE),
    "a NUL byte in messages": (after_good(raw_line(body=BODY.replace(b"Rate", b"\0"))), UNPARSEABLE),
    "a line of NUL bytes": (after_good(b"\0\0\0\0"), UNPARSEABLE),
    "a lone surrogate in custom_id": (after_good(raw_line(rb'"\ud800"')), UNPARSEABLE),
    "a lone surrogate in messages": (after_good(raw_line(body=BODY.replace(b"Rate", rb"\ud800"))), UNPARSEABLE),
    "nesting 10,000 deep in a field that is skipped": (after_good(raw_line(extra=b'"s":' + DEEP + b",")), UNPARSEABLE),
    "nesting 10,000 deep in messages": (
        after_good(raw_line(body=b'{"model":"simulated","messages":' + DEEP + b"}")), UNPARSEABLE,
    ),
    "nesting 10,000 deep as body": (after_good(raw_line(body=DEEP)), UNPARSEABLE),
    "nesting a million deep": (after_good(b"[" * 1_000_000), UNPARSEABLE),
    "a byte order mark on line 2": (after_good(b"\xef\xbb\xbf" + line()), UNPARSEABLE),
    "a number of 5,000 digits as custom_id": (after_good(raw_line(b"9" * 5_000)), [(2, "invalid_type", "custom_id")]),
    # a line that is no object
    "an array as a line": (after_good(b"[1, 2]"), [(2, "invalid_request", None)]),
    "a string as a line": (after_good(b'"notes"'), [(2, "invalid_request", None)]),
    "null as a line": (after_good(b"null"), [(2, "invalid_request", None)]),
    "an array as the first line": (file_of(b"[]", GOOD), [(1, "invalid_request", None)]),
    # missing_required_parameter
    "no custom_id": (after_good(line(custom_id=None)), [(2, "missing_required_parameter", "custom_id")]),
    "no method": (after_good(line(method=None)), [(2, "missing_required_parameter", "method")]),
    "no url": (after_good(line(url=None)), [(2, "missing_required_parameter", "url")]),
    "no body": (after_good(line(body=None)), [(2, "missing_required_parameter", "body")]),
    "nothing in the object": (
        after_good(b"{}"),
        [(2, "missing_required_parameter", name) for name in ("custom_id", "method", "url", "body")],
    ),
    # wrong types and values
    "a number as custom_id": (after_good(line(custom_id=7)), [(2, "invalid_type", "custom_id")]),
    "an object as custom_id": (after_good(line(custom_id={"a": 1})), [(2, "invalid_type", "custom_id")]),
    "an empty custom_id": (after_good(line(custom_id="")), [(2, "invalid_value", "custom_id")]),
    "a lower-case method": (after_good(line(method="post")), [(2, "invalid_method", "method")]),
    "another method": (after_good(line(method="GET")), [(2, "invalid_method", "method")]),
    "a boolean as method": (after_good(line(method=True)), [(2, "invalid_type", "method")]),
    "an array as body": (after_good(line(body=[])), [(2, "invalid_type", "body")]),
    "a string as body": (after_good(line(body="{}")), [(2, "invalid_type", "body")]),
    # urls
    "the url of another endpoint": (after_good(line(url="/v1/completions")), [(2, "invalid_url", "url")]),
    "a url of OpenAI's that is not offered": (after_good(line(url="/v1/videos")), [(2, "invalid_url", "url")]),
    "a url that nobody knows": (after_good(line(url="/v1/nowhere")), [(2, "url_not_found", "url")]),
    "a url with a typing error": (after_good(line(url="/v1/chat/completion")), [(2, "url_not_found", "url")]),
    "a url with a slash at its end": (after_good(line(url=CHAT + "/")), [(2, "url_not_found", "url")]),
    "a whole address as url": (after_good(line(url="https://api.openai.com" + CHAT)), [(2, "url_not_found", "url")]),
    "an array as url": (after_good(line(url=[CHAT])), [(2, "invalid_type", "url")]),
    # bodies
    "no model": (after_good(body(model=None)), [(2, "invalid_request", "body.model")]),
    "an empty model": (after_good(body(model="")), [(2, "invalid_request", "body.model")]),
    "a number as model": (after_good(body(model=4)), [(2, "invalid_type", "body.model")]),
    "a model that is not here": (file_of(body(model="gpt-9")), [(1, "model_not_found", "body.model")]),
    "mixed models": (after_good(body(model="gpt-9")), [(2, "mismatched_model", "body.model")]),
    "no messages": (after_good(body(messages=None)), [(2, "invalid_request", "body.messages")]),
    "null as messages": (
        after_good(raw_line(body=b'{"model":"simulated","messages":null}')), [(2, "invalid_request", "body.messages")],
    ),
    "an empty body": (
        after_good(line(body={})), [(2, "invalid_request", "body.model"), (2, "invalid_request", "body.messages")],
    ),
    "stream true": (after_good(body(stream=True)), [(2, "streaming_unsupported", "body.stream")]),
    "stream as a word": (after_good(body(stream="yes")), [(2, "streaming_unsupported", "body.stream")]),
    # the file as a whole
    "duplicate custom_ids": (
        file_of(line(custom_id="a"), line(custom_id="b"), line(custom_id="a"), line(custom_id="a")),
        [(3, "duplicate_custom_id", "custom_id"), (4, "duplicate_custom_id", "custom_id")],
    ),
    "duplicate custom_ids written differently": (
        file_of(raw_line(b'"caf\xc3\xa9"'), raw_line(b'"caf\\u00e9"')), [(2, "duplicate_custom_id", "custom_id")],
    ),
    "duplicate custom_ids 100,000 lines apart": (
        file_of(line(custom_id="same"), *(line(custom_id=f"row-{n}") for n in range(99_999)), line(custom_id="same")),
        [(100_001, "duplicate_custom_id", "custom_id")],
    ),
    "nothing but blank lines": (b"\n \n\r\n\t\n\n", [(None, "empty_file", None)]),
    "a byte order mark and a blank line": (b"\xef\xbb\xbf\n", [(None, "empty_file", None)]),
    "a line of 50 MB": (after_good(body(user="x" * 50_000_000), line(custom_id="")),
                        [(2, "invalid_request", None), (3, "invalid_value", "custom_id")]),
    "a first line of 50 MB": (file_of(body(user="x" * 50_000_000)), [(1, "invalid_request", None)]),
    "every line with its own error, blank lines counted": (
        file_of(GOOD, b"", b"notes", line(method="PUT", url="/v2"), b"  ", line(custom_id="good")),
        [
            (3, "invalid_json_line", None),
            (4, "invalid_method", "method"),
            (4, "url_not_found", "url"),
            (6, "duplicate_custom_id", "custom_id"),
        ],
    ),
}  # fmt: skip

# What is run, but cannot be answered: the row's own HTTP error, in the error file. (status, code, param)
ROW_FAILS: dict[str, tuple[bytes, Refusal]] = {
    "temperature 1e999": (b'"temperature":1e999', (400, "invalid_value", "temperature")),
    "temperature of 400 digits": (b'"temperature":' + b"1" * 400, (400, "invalid_value", "temperature")),
    "temperature -1": (b'"temperature":-1', (400, "invalid_value", "temperature")),
    "temperature as a string": (b'"temperature":"hot"', (400, "invalid_type", "temperature")),
    "max_tokens 1e999": (b'"max_tokens":1e999', (400, "invalid_value", "max_tokens")),
    "max_tokens of 400 digits": (b'"max_tokens":' + b"9" * 400, (400, "invalid_value", "max_tokens")),
    "max_tokens of 5,000 digits": (b'"max_tokens":' + b"9" * 5_000, (400, "invalid_value", "max_tokens")),
    "max_tokens 0": (b'"max_tokens":0', (400, "invalid_value", "max_tokens")),
    "max_tokens 1.5": (b'"max_tokens":1.5', (400, "invalid_type", "max_tokens")),
    "n of 400 digits": (b'"n":' + b"9" * 400, (400, "invalid_value", "n")),
    "n 1e999": (b'"n":1e999', (400, "invalid_value", "n")),
    "n 0": (b'"n":0', (400, "invalid_value", "n")),
    "seed of 30 digits": (b'"seed":' + b"9" * 30, (400, "invalid_value", "seed")),
    "five stops": (b'"stop":["a","b","c","d","e"]', (400, "invalid_value", "stop")),
    "an unknown parameter": (b'"temprature":1', (400, None, "temprature")),
    "a parameter the engine cannot honour": (b'"logprobs":true', (400, "unsupported_parameter", "logprobs")),
    "a parameter the engine has not": (b'"top_k":3', (400, "unsupported_parameter", "top_k")),
    "top_logprobs without logprobs": (b'"top_logprobs":3', (400, None, "top_logprobs")),
    "a string as messages": (b'"messages":"hello"', (400, "invalid_type", "messages")),
    "an object as messages": (b'"messages":{"role":"user"}', (400, "invalid_type", "messages")),
    "no message": (b'"messages":[]', (400, "invalid_value", "messages")),
    "a number as a message": (b'"messages":[1]', (400, "invalid_type", "messages[0]")),
    "a message without a role": (
        b'"messages":[{"content":"x"}]', (400, "missing_required_parameter", "messages[0].role"),
    ),
    "a role there is not": (b'"messages":[{"role":"king","content":"x"}]', (400, "invalid_value", "messages[0].role")),
    "a number as content": (b'"messages":[{"role":"user","content":5}]', (400, "invalid_type", "messages[0].content")),
    "a picture": (
        b'"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]',
        (400, "unsupported_parameter", "messages[0].content (image_url)"),
    ),
    "a prompt longer than the context": (
        b'"messages":[{"role":"user","content":"%b"}]' % (b"word " * 120_000),
        (400, "context_length_exceeded", "messages"),
    ),
}  # fmt: skip

# What looks odd but is fine: every line is answered, under these custom_ids.
ACCEPTED: dict[str, tuple[bytes, list[str]]] = {
    "a byte order mark": (b"\xef\xbb\xbf" + file_of(GOOD), ["good"]),
    "CRLF line ends": (b"\r\n".join([line(custom_id="a"), line(custom_id="b"), b""]), ["a", "b"]),
    "blank lines": (b"\n\n" + line(custom_id="a") + b"\n \t \n\r\n" + line(custom_id="b") + b"\n\n", ["a", "b"]),
    "no final newline": (file_of(line(custom_id="a")) + line(custom_id="b"), ["a", "b"]),
    "spaces around the object": (b"  " + GOOD + b"  \n", ["good"]),
    "line separators of Unicode in custom_id": (
        file_of(*(line(custom_id=f"a{mark}b") for mark in "\u2028\u2029\u0085\v\f\x1c\x1e")),
        [f"a{mark}b" for mark in "\u2028\u2029\u0085\v\f\x1c\x1e"],
    ),
    "the same ones unescaped": (
        file_of(*(raw_line(f'"a{mark}b"'.encode()) for mark in "\u2028\u2029\u0085")),
        [f"a{mark}b" for mark in "\u2028\u2029\u0085"],
    ),
    "newlines and quotes in custom_id": (file_of(line(custom_id='a\n"b"\r\n\\')), ['a\n"b"\r\n\\']),
    "an escaped NUL in custom_id": (
        file_of(line(custom_id="a\0b"), line(custom_id="a\0c"), line(custom_id="a")), ["a\0b", "a\0c", "a"],
    ),
    "an emoji in custom_id": (file_of(raw_line('"🌾"'.encode())), ["🌾"]),
    "a custom_id of 1 MB": (file_of(line(custom_id="x" * 1_000_000)), ["x" * 1_000_000]),
    "ids that differ in case and spaces": (
        file_of(line(custom_id="a"), line(custom_id="A"), line(custom_id=" a")), ["a", "A", " a"],
    ),
    "duplicate JSON keys, the last one counts": (
        file_of(raw_line(extra=b'"custom_id":"second",'), raw_body(b'"model":"simulated"', b'"b"')), ["second", "b"],
    ),
    "fields nobody knows": (file_of(line(comment="mine", priority=3)), ["x"]),
    "a huge number in a field nobody knows": (file_of(raw_line(extra=b'"n":1e999,"m":%b,' % (b"9" * 5_000))), ["x"]),
    "stream false": (file_of(body(stream=False)), ["x"]),
    "a line of 5 MB": (file_of(GOOD, body(user="x" * 5_000_000)), ["good", "x"]),
}  # fmt: skip
