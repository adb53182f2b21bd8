"""From a template's text to a tree. Pure.

Rules: https://go.dev/src/text/template/parse/parse.go
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gristmill.models.ollama.go_template.lexeme_reader import LexemeReader, unexpected
from gristmill.models.ollama.go_template.lexer import Kind, Lexeme, TemplateError
from gristmill.models.ollama.go_template.nodes import Action, Branch, Call, Jump, Text, Tree
from gristmill.models.ollama.go_template.pipeline_parser import PipelineParser

_KEYWORDS = frozenset({"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"})


def parse(source: str, functions: Collection[str]) -> Tree:
    """``functions`` are the names that can be called. Raises TemplateError, saying where."""
    return _Parser(source, functions).tree()


class _Parser:
    def __init__(self, source: str, functions: Collection[str]) -> None:
        self._lexemes = LexemeReader(source)
        self._pipelines = PipelineParser(self._lexemes, functions)
        self._defined: dict[str, list[Any]] = {}
        self._ranges = 0

    def tree(self) -> Tree:
        body, end = self._list(until=())
        assert end is None
        return Tree(body, self._defined)

    def _list(self, until: tuple[str, ...]) -> tuple[list[Any], str | None]:
        """Nodes up to an action that begins with one of ``until``, which is taken; or up to the end of the text."""
        with self._lexemes.level():
            return self._nodes(until)

    def _nodes(self, until: tuple[str, ...]) -> tuple[list[Any], str | None]:
        body: list[Any] = []
        while True:
            lexeme = self._lexemes.next()
            if lexeme.kind is Kind.TEXT:
                body.append(Text(lexeme.text))
            elif lexeme.kind is Kind.END:
                if until:
                    raise TemplateError(f"line {lexeme.line}: an action is not ended with {{{{end}}}}")
                return body, None
            else:
                keyword = self._lexemes.peek()
                if keyword.kind is Kind.IDENTIFIER and keyword.text in ("end", "else"):
                    if keyword.text not in until:
                        raise unexpected(keyword, "here")
                    self._lexemes.next()
                    return body, keyword.text
                node = self._action(keyword)
                if node is not None:
                    body.append(node)

    def _action(self, first: Lexeme) -> Any:
        if first.kind is Kind.IDENTIFIER and first.text in _KEYWORDS:
            self._lexemes.next()
            match first.text:
                case "if" | "with" | "range":
                    return self._branch(first.text)
                case "break" | "continue":
                    self._lexemes.expect(Kind.CLOSE, first.text)
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
        return Action(self._pipelines.parse("an action", Kind.CLOSE))

    def _branch(self, keyword: str) -> Branch:
        known = len(self._pipelines.variables)
        pipe = self._pipelines.parse(keyword, Kind.CLOSE)
        if keyword == "range":
            self._ranges += 1
        body, end = self._list(("end", "else"))
        if keyword == "range":
            self._ranges -= 1
        otherwise: list[Any] | None = None
        if end == "else":
            following = self._lexemes.peek()
            if following.kind is Kind.IDENTIFIER and following.text == keyword and keyword in ("if", "with"):
                self._lexemes.next()
                with self._lexemes.level():
                    otherwise = [self._branch(keyword)]
            else:
                self._lexemes.expect(Kind.CLOSE, "else")
                otherwise, _ = self._list(("end",))
                self._lexemes.expect(Kind.CLOSE, "end")
        else:
            self._lexemes.expect(Kind.CLOSE, "end")
        del self._pipelines.variables[known:]
        return Branch(keyword, pipe, body, otherwise)

    def _define(self) -> None:
        if self._lexemes.levels > 1:
            raise TemplateError(f"line {self._lexemes.peek().line}: {{{{define}}}} within another action")
        name = self._lexemes.expect(Kind.STRING, "define").text
        self._lexemes.expect(Kind.CLOSE, "define")
        self._defined[name] = self._own_body()

    def _block(self, first: Lexeme) -> Call:
        name = self._lexemes.expect(Kind.STRING, "block").text
        pipe = self._pipelines.parse("block", Kind.CLOSE)
        self._defined[name] = self._own_body()
        return Call(name, pipe, first.line)

    def _own_body(self) -> list[Any]:
        """Of a template that is defined here: it sees no variables of this one."""
        variables, self._pipelines.variables = self._pipelines.variables, ["$"]
        ranges, self._ranges = self._ranges, 0
        body, _ = self._list(("end",))
        self._lexemes.expect(Kind.CLOSE, "end")
        self._pipelines.variables, self._ranges = variables, ranges
        return body

    def _call(self, first: Lexeme) -> Call:
        name = self._lexemes.expect(Kind.STRING, "template").text
        if self._lexemes.peek().kind is Kind.CLOSE:
            self._lexemes.next()
            return Call(name, None, first.line)
        return Call(name, self._pipelines.parse("template", Kind.CLOSE), first.line)
