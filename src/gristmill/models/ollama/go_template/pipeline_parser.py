"""From the lexemes of a pipeline, as it stands within an action, to its node.

Rules: https://go.dev/src/text/template/parse/parse.go
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from gristmill.models.ollama.go_template.lexeme_reader import LexemeReader, unexpected
from gristmill.models.ollama.go_template.lexer import Kind, Lexeme, TemplateError
from gristmill.models.ollama.go_template.nodes import (
    Chain,
    Command,
    Constant,
    Dot,
    Field,
    FunctionName,
    Pipeline,
    Variable,
)

_CONSTANTS = {"true": True, "false": False, "nil": None}
_INTEGER = re.compile(r"[+-]?(0[xXbBoO][0-9a-fA-F_]+|[0-9_]+)")


class PipelineParser:
    """``variables`` are those that are known here, which pipelines declare more of. ``functions`` are the names that
    can be called."""

    def __init__(self, lexemes: LexemeReader, functions: Collection[str]) -> None:
        self.variables = ["$"]
        self._lexemes = lexemes
        self._functions = functions

    def parse(self, where: str, end: Kind) -> Pipeline:
        variables, assigns = self._declared(where)
        commands = [self._command(where)]
        while (lexeme := self._lexemes.next()).kind is Kind.PIPE:
            commands.append(self._command(where))
        if lexeme.kind is not end:
            raise unexpected(lexeme, where)
        for command in commands[1:]:
            if isinstance(command.words[0], Constant | Dot):
                raise TemplateError(f"line {command.line}: a value that is no function, behind |")
        if not assigns:
            self.variables += variables
        return Pipeline(commands, variables, assigns)

    def _declared(self, where: str) -> tuple[list[str], bool]:
        """The variables before := or =, if any."""
        start = self._lexemes.at
        names: list[str] = []
        while self._lexemes.peek().kind is Kind.VARIABLE:
            names.append(self._lexemes.next().text)
            following = self._lexemes.peek()
            if following.kind in (Kind.DECLARE, Kind.ASSIGN):
                self._lexemes.next()
                assigns = following.kind is Kind.ASSIGN
                if assigns:
                    for name in names:
                        self._check_variable(name, following.line)
                return names, assigns
            if following.kind is not Kind.COMMA or where != "range" or len(names) > 1:
                break
            self._lexemes.next()
        self._lexemes.at = start
        return [], False

    def _check_variable(self, name: str, line: int) -> None:
        if name not in self.variables:
            raise TemplateError(f"line {line}: the variable {name} is not declared")

    def _command(self, where: str) -> Command:
        line = self._lexemes.peek().line
        words: list[Any] = []
        while (word := self._operand()) is not None:
            words.append(word)
            if not self._lexemes.touches(Kind.SPACE):
                break
        following = self._lexemes.peek()
        if following.kind not in (Kind.CLOSE, Kind.RIGHT, Kind.PIPE):
            raise unexpected(following, where)
        if not words:
            raise TemplateError(f"line {line}: a value is missing in {where}")
        return Command(words, line)

    def _operand(self) -> Any:
        lexeme = self._lexemes.peek()
        found: Any
        match lexeme.kind:
            case Kind.IDENTIFIER if lexeme.text in _CONSTANTS:
                found = Constant(_CONSTANTS[lexeme.text])
            case Kind.IDENTIFIER:
                if lexeme.text not in self._functions:
                    raise TemplateError(f"line {lexeme.line}: there is no function {lexeme.text}")
                found = FunctionName(lexeme.text)
            case Kind.DOT:
                found = Dot()
            case Kind.VARIABLE:
                self._check_variable(lexeme.text, lexeme.line)
                found = Variable(lexeme.text, [])
            case Kind.FIELD:
                found = Field([lexeme.text])
            case Kind.STRING:
                found = Constant(lexeme.text)
            case Kind.NUMBER:
                found = Constant(_number(lexeme))
            case Kind.CHARACTER if len(lexeme.text) == 1:
                found = Constant(ord(lexeme.text))
            case Kind.LEFT:
                self._lexemes.next()
                with self._lexemes.level():
                    pipe = self.parse("parentheses", Kind.RIGHT)
                return self._with_fields(pipe)
            case _:
                return None
        self._lexemes.next()
        return self._with_fields(found)

    def _with_fields(self, found: Any) -> Any:
        names = []
        while self._lexemes.touches(Kind.FIELD):
            names.append(self._lexemes.next().text)
        if not names:
            return found
        match found:
            case Field() | Variable():
                found.names.extend(names)
                return found
            case Pipeline():
                return Chain(found, names)
            case _:
                raise TemplateError(f"line {self._lexemes.peek().line}: .{names[0]} of a value that has no fields")


def _number(lexeme: Lexeme) -> int | float:
    text = lexeme.text
    try:
        if _INTEGER.fullmatch(text):
            # A zero first is Go's way to write an octal number.
            plain = re.fullmatch(r"([+-]?)0([0-7_]+)", text)
            number = int(f"{plain[1]}0o{plain[2]}" if plain else text, 0)
            if not -(2**63) <= number < 2**63:
                raise ValueError
            return number
        return float(text)
    except ValueError:
        raise TemplateError(f"line {lexeme.line}: the number {text}") from None
