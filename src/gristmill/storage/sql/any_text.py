"""Texts of callers, in which there may be any character, also where a database's texts may not have all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Dialect, Text, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Boolean, TypeDecorator

_NUL, _MARK = "\0", "\x01"


class AnyText(TypeDecorator[str]):
    """PostgreSQL's texts have no NUL: there it is a mark and a "0", and the mark is a mark and a "1". So one text is or
    begins with another exactly where what is stored of them does. Texts without either are stored as they are."""

    impl = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        return _without_nul if dialect.name == "postgresql" else None

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        return _with_nul if dialect.name == "postgresql" else None


def _without_nul(text: str | None) -> str | None:
    if text is None or (_NUL not in text and _MARK not in text):
        return text
    return text.replace(_MARK, _MARK + "1").replace(_NUL, _MARK + "0")


def _with_nul(text: str | None) -> str | None:
    if text is None or _MARK not in text:
        return text
    return text.replace(_MARK + "0", _NUL).replace(_MARK + "1", _MARK)


class begins(FunctionElement[bool]):
    """Whether a column of texts begins with a text, by its bytes."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, column: ColumnElement[str], text: str) -> None:
        super().__init__(column, type_coerce(text, AnyText()))


@compiles(begins, "sqlite")
def _of_sqlite(element: begins, compiler: SQLCompiler, **options: Any) -> str:
    # Of a text, ``substr`` sees nothing behind a NUL; of nothing, it is no value.
    column, text = (f"CAST({compiler.process(each, **options)} AS BLOB)" for each in element.clauses)
    return f"(length({text}) = 0 OR substr({column}, 1, length({text})) = {text})"


@compiles(begins, "postgresql")
def _of_postgresql(element: begins, compiler: SQLCompiler, **options: Any) -> str:
    column, text = (compiler.process(each, **options) for each in element.clauses)
    return f"starts_with({column}, {text})"
