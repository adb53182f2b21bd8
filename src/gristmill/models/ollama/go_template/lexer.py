"""The text of a template as lexemes. Pure.

Rules: https://go.dev/src/text/template/parse/lex.go
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple


class TemplateError(Exception):
    """The template is none, or cannot be executed on these values."""


class Kind(Enum):
    TEXT = auto()
    OPEN = auto()  # {{
    CLOSE = auto()  # }}
    SPACE = auto()
    IDENTIFIER = auto()  # a keyword, too
    FIELD = auto()  # .Name, without the dot
    VARIABLE = auto()  # $name, with the dollar sign
    DOT = auto()
    STRING = auto()  # without quotes and escapes
    NUMBER = auto()
    CHARACTER = auto()
    DECLARE = auto()  # :=
    ASSIGN = auto()
    PIPE = auto()
    LEFT = auto()  # (
    RIGHT = auto()
    COMMA = auto()
    END = auto()


class Lexeme(NamedTuple):
    kind: Kind
    text: str
    line: int


_OPEN = re.compile(r"\{\{(?P<trim>-(?=[ \t\r\n]))?")
_SPACES = " \t\r\n"
_COMMENT = re.compile(r"[ \t\r\n]*/\*.*?\*/(?P<trim>[ \t\r\n]+-)?\}\}", re.DOTALL)
_CLOSE = re.compile(r"(?P<trim>[ \t\r\n]+-)?\}\}")
_IN_ACTION = re.compile(
    r"""(?P<SPACE>[ \t\r\n]+)
    |(?P<STRING>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<CHARACTER>'(?:[^'\\\n]|\\.)+')
    |(?P<NUMBER>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+
        |(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?)(?![\w.]))
    |(?P<FIELD>\.[^\W\d]\w*)
    |(?P<VARIABLE>\$\w*)
    |(?P<IDENTIFIER>[^\W\d]\w*)
    |(?P<DECLARE>:=)|(?P<ASSIGN>=)|(?P<PIPE>\|)|(?P<LEFT>\()|(?P<RIGHT>\))|(?P<COMMA>,)|(?P<DOT>\.)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|.)")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def lex(source: str) -> Iterator[Lexeme]:
    """Ends with END. Raises TemplateError."""
    at, line, trim = 0, 1, False
    while True:
        opening = _OPEN.search(source, at)
        text = source[at : opening.start() if opening else len(source)]
        kept = text.lstrip(_SPACES) if trim else text
        if opening is not None and opening["trim"]:
            kept = kept.rstrip(_SPACES)
        if kept:
            yield Lexeme(Kind.TEXT, kept, line)
        line += text.count("\n")
        if opening is None:
            yield Lexeme(Kind.END, "", line)
            return
        at = opening.end()
        comment = _COMMENT.match(source, at)
        if comment is not None:
            line += comment[0].count("\n")
            at, trim = comment.end(), bool(comment["trim"])
            continue
        yield Lexeme(Kind.OPEN, "{{", line)
        while (closing := _CLOSE.match(source, at)) is None:
            found = _IN_ACTION.match(source, at)
            if found is None:
                what = repr(source[at : at + 10]) if at < len(source) else "the end of the text"
                raise TemplateError(f"line {line}: {what} within an action")
            kind = Kind[found.lastgroup or ""]
            yield Lexeme(kind, _value(kind, found[0], line), line)
            line += found[0].count("\n")
            at = found.end()
        yield Lexeme(Kind.CLOSE, "}}", line)
        line += closing[0].count("\n")
        at, trim = closing.end(), bool(closing["trim"])


def _value(kind: Kind, text: str, line: int) -> str:
    if kind is Kind.FIELD:
        return text[1:]
    if kind is Kind.STRING and text.startswith("`"):
        return text[1:-1].replace("\r", "")
    if kind in (Kind.STRING, Kind.CHARACTER):
        return _unescaped(text[1:-1], line)
    return text


def _unescaped(text: str, line: int) -> str:
    """As ``strconv.Unquote`` does. Escapes may be bytes of a character, so that they are put together as bytes."""
    if "\\" not in text:
        return text
    raw, at = bytearray(), 0
    for escape in _ESCAPE.finditer(text):
        raw += text[at : escape.start()].encode("utf-8", "surrogatepass")
        plain, byte, short, long, octal = escape.groups()
        if plain:
            raw += _ESCAPED.get(plain, plain).encode()
        elif byte:
            raw.append(int(byte, 16))
        elif octal and int(octal, 8) < 256:
            raw.append(int(octal, 8))
        elif (short or long) and int(short or long, 16) < 0x110000:
            raw += chr(int(short or long, 16)).encode("utf-8", "surrogatepass")
        else:
            raise TemplateError(f"line {line}: the escape {escape[0]} in a string")
        at = escape.end()
    raw += text[at:].encode("utf-8", "surrogatepass")
    return raw.decode("utf-8", "replace")
