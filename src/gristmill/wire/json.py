"""JSON in and out: pure ASCII lines out, and decoding errors in the words of the OpenAI API."""

from __future__ import annotations

import codecs
import difflib
import re
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from gristmill.wire.errors import ApiError, clip, missing_parameter, wrong_type

T = TypeVar("T")

_encoder = msgspec.json.Encoder()


def _escape_non_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be")
    escaped = "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    return escaped, error.end


codecs.register_error("gristmill.json", _escape_non_ascii)


def encode(value: Any) -> bytes:
    return _encoder.encode(value)


def encode_ascii(value: Any) -> bytes:
    """JSON with every character beyond ASCII escaped.

    Readers of batch files call ``splitlines()``, which also cuts at U+2028, U+2029 and U+0085: a raw one inside
    a string would tear a line apart. Non-ASCII bytes occur only inside JSON strings, so escaping them is safe.
    """
    data = _encoder.encode(value)
    if data.isascii():
        return data
    return data.decode("utf-8").encode("ascii", "gristmill.json")


_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


def one_line(data: bytes) -> bytes:
    """Valid JSON without line ends: they only stand between its tokens, as strings hold them escaped."""
    return data.translate(_LINE_ENDS) if b"\n" in data or b"\r" in data else data


_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<name>.+?)`")
_MISSING_FIELD = re.compile(r"Object missing required field `(?P<name>.+?)`")
_WRONG_TYPE = re.compile(r"Expected `(?P<want>.+?)`, got `(?P<got>.+?)`")
_BOUND = re.compile(r"Expected `(?P<type>int|float)` (?P<sign>>=|<=|>|<) (?P<bound>\S+)$")
_LENGTH = re.compile(r"Expected `(?P<type>str|array|object)` of length (?P<sign>>=|<=) (?P<bound>\d+)$")
_PATTERN = re.compile(r"Expected `str` matching regex '(?P<pattern>.+)'$")
_CHOICE = re.compile(r"Invalid (?:enum )?value (?P<value>.+)$")
_PATH = re.compile(r" - at `\$\.?(?P<path>.*?)`$")

_JSON_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "null": "null", "array": "array",
    "object": "object",
}  # fmt: skip


def decode(decoder: msgspec.json.Decoder[T], data: bytes | bytearray | memoryview) -> T:
    """Decode a request body, or raise the 400 the OpenAI API would answer."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise explain(str(error), decoder.type) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"We could not parse the JSON body of your request: {error}.") from None


def explain(message: str, kind: Any = None) -> ApiError:
    """Turn a validation message of msgspec into OpenAI's wording, with the parameter's path. ``kind`` is what the body
    was decoded as: a misspelt name is told the nearest, a value that is not supported those that are."""
    path_match = _PATH.search(message)
    path = clip(path_match["path"]) if path_match else ""
    if found := _UNKNOWN_FIELD.search(message):
        name = _join(path, found["name"])
        near = [] if path else difflib.get_close_matches(name, getattr(kind, "__struct_encode_fields__", ()), 1)
        hint = f". Did you mean '{near[0]}'?" if near else ""
        return ApiError(400, f"Unrecognized request argument supplied: {name}{hint}", param=name)
    if found := _MISSING_FIELD.search(message):
        name = _join(path, found["name"])
        return missing_parameter(name)
    if found := _WRONG_TYPE.search(message):
        if not path:
            return ApiError(400, f"The body must be a JSON object, but got {_article(found['got'])} instead.")
        return wrong_type(path, _types(found["want"]), _article(found["got"]))
    reason = clip(_PATH.sub("", message))
    if found := _CHOICE.match(reason):
        supported = ", ".join(f"'{value}'" for value in _supported(kind, path))
        reason = f"{found['value']} is not supported" + (f". Supported values are: {supported}" if supported else "")
    else:
        reason = _wanted(reason)
    return ApiError(400, f"Invalid value for '{path}': {reason}.", param=path or None, code="invalid_value")


_SIGNS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_COUNTED = {"str": "characters", "array": "items", "object": "fields"}
#: How a pattern's own end is written so that no line end may follow it.
_END_OF_TEXT = r"(?![\\s\\S])"


def _wanted(reason: str) -> str:
    """What was expected, from what msgspec says of a value of the right type."""
    if found := _BOUND.match(reason):
        return f"expected {_article(found['type'])} of {_SIGNS[found['sign']]} {found['bound']}"
    if found := _LENGTH.match(reason):
        bound, things = found["bound"], _COUNTED[found["type"]]
        return f"expected {_SIGNS[found['sign']]} {bound} {things if bound != '1' else things[:-1]}"
    if found := _PATTERN.match(reason):
        return f"expected a string that matches {found['pattern'].replace(_END_OF_TEXT, '$')}"
    return reason


def _supported(kind: Any, name: str) -> list[object]:
    """The values of a field of the body itself, where they are few and known."""
    if not isinstance(kind, type) or not issubclass(kind, msgspec.Struct):
        return []
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    return _values(msgspec.inspect.type_info(fields[name])) if name in fields else []


def _values(found: msgspec.inspect.Type) -> list[object]:
    match found:
        case msgspec.inspect.LiteralType(values):
            return list(values)
        case msgspec.inspect.EnumType(cls):
            return [each.value for each in cls]
        case msgspec.inspect.UnionType(types):
            return [value for each in types for value in _values(each)]
    return []


def type_of(value: msgspec.Raw) -> str:
    """The JSON type of a value, with its article: ``an array``. It need not be one that Python can hold."""
    text = bytes(value)
    if text[:1] in b"-0123456789":
        return "an integer" if text.lstrip(b"-").isdigit() else "a number"
    return _FIRST_BYTES[text[:1]]


_FIRST_BYTES = {
    b'"': "a string",
    b"[": "an array",
    b"{": "an object",
    b"t": "a boolean",
    b"f": "a boolean",
    b"n": "null",
}


def _join(path: str, name: str) -> str:
    return clip(f"{path}.{name}" if path else name)


def _article(name: str) -> str:
    word = _JSON_TYPES.get(name, name)
    if word == "null":
        return word
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _types(names: str) -> str:
    words = [_article(name.strip()) for name in names.split("|")]
    named = [word for word in words if word != "null"] or words
    return " or ".join(named)


_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


def parses_as_json(data: bytes) -> bool:
    try:
        data.decode()
        _raw_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
