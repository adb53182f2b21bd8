"""From tokens to a tree. Pure.

Rules: https://go.dev/src/text/template/parse/parse.go
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from gristmill.models.ollama.go_template.lexer import Kind, TemplateError, Token, lex
from gristmill.models.ollama.go_template.nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Constant,
    Dot,
    Field,
    Function,
    Jump,
    Pipe,
    Text,
    Tree,
    Variable,
)

_CONSTANTS = {"true": True, "false": False, "nil": None}
_KEYWORDS = frozenset({"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"})
_INTEGER = re.compile(r"[+-]?(0[xXbBoO][0-9a-fA-F_]+|[0-9_]+)")
#: Parentheses and blocks within one another: Python's stack bears no more.
_MOST_LEVELS = 100


def parse(source: str, functions: Collection[str]) -> Tree:
    """``functions`` are the names that can be called. Raises TemplateError, saying where."""
    return _Parser(source, functions).tree()


class _Parser:
    def __init__(self, source: str, functions: Collection[str]) -> None:
        self._tokens = list(lex(source))
        self._at = 0
        self._functions = functions
        self._variables = ["$"]
        self._defined: dict[str, list[Any]] = {}
        self._ranges = 0
        self._levels = 0

    def tree(self) -> Tree:
        body, end = self._list(until=())
        assert end is None
        return Tree(body, self._defined)

    # Tokens

    def _peek(self) -> Token:
        """The next one, spaces left aside."""
        while self._tokens[self._at].kind is Kind.SPACE:
            self._at += 1
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._peek()
        if token.kind is not Kind.END:
            self._at += 1
        return token

    def _touches(self, kind: Kind) -> bool:
        """Whether the very next token, without a space before it, is of that kind."""
        return self._tokens[self._at].kind is kind

    def _expect(self, kind: Kind, where: str) -> Token:
        token = self._next()
        if token.kind is not kind:
            raise _unexpected(token, where)
        return token

    def _enter(self) -> None:
        self._levels += 1
        if self._levels > _MOST_LEVELS:
            raise TemplateError(f"line {self._peek().line}: more than {_MOST_LEVELS} levels within one another")

    # Text and actions

    def _list(self, until: tuple[str, ...]) -> tuple[list[Any], str | None]:
        """Nodes up to an action that begins with one of ``until``, which is taken; or up to the end of the text."""
        self._enter()
        body: list[Any] = []
        while True:
            token = self._next()
            if token.kind is Kind.TEXT:
                body.append(Text(token.text))
            elif token.kind is Kind.END:
                if until:
                    raise TemplateError(f"line {token.line}: an action is not ended with {{{{end}}}}")
                self._levels -= 1
                return body, None
            else:
                keyword = self._peek()
                if keyword.kind is Kind.IDENTIFIER and keyword.text in ("end", "else"):
                    if keyword.text not in until:
                        raise _unexpected(keyword, "here")
                    self._next()
                    self._levels -= 1
                    return body, keyword.text
                node = self._action(keyword)
                if node is not None:
                    body.append(node)

    def _action(self, first: Token) -> Any:
        if first.kind is Kind.IDENTIFIER and first.text in _KEYWORDS:
            self._next()
            match first.text:
                case "if" | "with" | "range":
                    return self._branch(first.text)
                case "break" | "continue":
                    self._expect(Kind.CLOSE, first.text)
                    if not self._ranges:
                        raise TemplateError(f"line {first.line}: {{{{{first.text}}}}} outside {{{{range}}}}")
                    return Jump(first.text)
                case "define":
                    self._define()
                    return None
                case "block":
                    return self._block(first)
                case _:
                    return self._call(first)
        # What it declares is known from here to the end of the block that it is in.
        return Action(self._pipe("an action", Kind.CLOSE))

    def _branch(self, keyword: str) -> Branch:
        known = len(self._variables)
        pipe = self._pipe(keyword, Kind.CLOSE)
        if keyword == "range":
            self._ranges += 1
        body, end = self._list(("end", "else"))
        if keyword == "range":
            self._ranges -= 1
        otherwise: list[Any] | None = None
        if end == "else":
            following = self._peek()
            if following.kind is Kind.IDENTIFIER and following.text == keyword and keyword in ("if", "with"):
                self._next()
                self._enter()
                otherwise = [self._branch(keyword)]
                self._levels -= 1
            else:
                self._expect(Kind.CLOSE, "else")
                otherwise, _ = self._list(("end",))
                self._expect(Kind.CLOSE, "end")
        else:
            self._expect(Kind.CLOSE, "end")
        del self._variables[known:]
        return Branch(keyword, pipe, body, otherwise)

    def _define(self) -> None:
        if self._levels > 1:
            raise TemplateError(f"line {self._peek().line}: {{{{define}}}} within another action")
        name = self._expect(Kind.STRING, "define").text
        self._expect(Kind.CLOSE, "define")
        self._defined[name] = self._own_body()

    def _block(self, first: Token) -> Call:
        name = self._expect(Kind.STRING, "block").text
        pipe = self._pipe("block", Kind.CLOSE)
        self._defined[name] = self._own_body()
        return Call(name, pipe, first.line)

    def _own_body(self) -> list[Any]:
        """Of a template that is defined here: it sees no variables of this one."""
        variables, self._variables = self._variables, ["$"]
        ranges, self._ranges = self._ranges, 0
        body, _ = self._list(("end",))
        self._expect(Kind.CLOSE, "end")
        self._variables, self._ranges = variables, ranges
        return body

    def _call(self, first: Token) -> Call:
        name = self._expect(Kind.STRING, "template").text
        if self._peek().kind is Kind.CLOSE:
            self._next()
            return Call(name, None, first.line)
        return Call(name, self._pipe("template", Kind.CLOSE), first.line)

    # Pipelines

    def _pipe(self, where: str, end: Kind) -> Pipe:
        variables, assigns = self._declared(where)
        commands = [self._command(where)]
        while (token := self._next()).kind is Kind.PIPE:
            commands.append(self._command(where))
        if token.kind is not end:
            raise _unexpected(token, where)
        for command in commands[1:]:
            if isinstance(command.words[0], Constant | Dot):
                raise TemplateError(f"line {command.line}: a value that is no function, behind |")
        if not assigns:
            self._variables += variables
        return Pipe(commands, variables, assigns)

    def _declared(self, where: str) -> tuple[list[str], bool]:
        """The variables before := or =, if any."""
        start = self._at
        names: list[str] = []
        while self._peek().kind is Kind.VARIABLE:
            names.append(self._next().text)
            following = self._peek()
            if following.kind in (Kind.DECLARE, Kind.ASSIGN):
                self._next()
                assigns = following.kind is Kind.ASSIGN
                if assigns:
                    for name in names:
                        self._check_variable(name, following.line)
                return names, assigns
            if following.kind is not Kind.COMMA or where != "range" or len(names) > 1:
                break
            self._next()
        self._at = start
        return [], False

    def _check_variable(self, name: str, line: int) -> None:
        if name not in self._variables:
            raise TemplateError(f"line {line}: the variable {name} is not declared")

    def _command(self, where: str) -> Command:
        line = self._peek().line
        words: list[Any] = []
        while (word := self._operand()) is not None:
            words.append(word)
            if not self._touches(Kind.SPACE):
                break
        following = self._peek()
        if following.kind not in (Kind.CLOSE, Kind.RIGHT, Kind.PIPE):
            raise _unexpected(following, where)
        if not words:
            raise TemplateError(f"line {line}: a value is missing in {where}")
        return Command(words, line)

    def _operand(self) -> Any:
        token = self._peek()
        found: Any
        match token.kind:
            case Kind.IDENTIFIER if token.text in _CONSTANTS:
                found = Constant(_CONSTANTS[token.text])
            case Kind.IDENTIFIER:
                if token.text not in self._functions:
                    raise TemplateError(f"line {token.line}: there is no function {token.text}")
                found = Function(token.text)
            case Kind.DOT:
                found = Dot()
            case Kind.VARIABLE:
                self._check_variable(token.text, token.line)
                found = Variable(token.text, [])
            case Kind.FIELD:
                found = Field([token.text])
            case Kind.STRING:
                found = Constant(token.text)
            case Kind.NUMBER:
                found = Constant(_number(token))
            case Kind.CHARACTER if len(token.text) == 1:
                found = Constant(ord(token.text))
            case Kind.LEFT:
                self._next()
                self._enter()
                pipe = self._pipe("parentheses", Kind.RIGHT)
                self._levels -= 1
                return self._with_fields(pipe)
            case _:
                return None
        self._next()
        return self._with_fields(found)

    def _with_fields(self, found: Any) -> Any:
        names = []
        while self._touches(Kind.FIELD):
            names.append(self._next().text)
        if not names:
            return found
        match found:
            case Field() | Variable():
                found.names.extend(names)
                return found
            case Pipe():
                return Chain(found, names)
            case _:
                raise TemplateError(f"line {self._peek().line}: .{names[0]} of a value that has no fields")


def _number(token: Token) -> int | float:
    text = token.text
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
        raise TemplateError(f"line {token.line}: the number {text}") from None


def _unexpected(token: Token, where: str) -> TemplateError:
    what = "the end of the text" if token.kind is Kind.END else repr(token.text)
    return TemplateError(f"line {token.line}: {what} is not expected in {where}")
