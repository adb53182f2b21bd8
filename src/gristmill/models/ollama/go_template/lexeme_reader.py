"""The lexemes of a template one behind the other, and how deep within one another what they say is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gristmill.models.ollama.go_template.lexer import Kind, Lexeme, TemplateError, lex

#: Parentheses and blocks within one another: Python's stack bears no more.
_MOST_LEVELS = 100


class LexemeReader:
    """``at`` is the place of the next one, which may be set to one it had before."""

    def __init__(self, source: str) -> None:
        """Raises TemplateError."""
        self.at = 0
        self.levels = 0
        self._lexemes = list(lex(source))

    def peek(self) -> Lexeme:
        """The next one, spaces left aside."""
        while self._lexemes[self.at].kind is Kind.SPACE:
            self.at += 1
        return self._lexemes[self.at]

    def next(self) -> Lexeme:
        lexeme = self.peek()
        if lexeme.kind is not Kind.END:
            self.at += 1
        return lexeme

    def touches(self, kind: Kind) -> bool:
        """Whether the very next lexeme, without a space before it, is of that kind."""
        return self._lexemes[self.at].kind is kind

    def expect(self, kind: Kind, where: str) -> Lexeme:
        """Raises TemplateError where the next one is of another kind."""
        lexeme = self.next()
        if lexeme.kind is not kind:
            raise unexpected(lexeme, where)
        return lexeme

    @contextmanager
    def level(self) -> Iterator[None]:
        """One more within the others. Raises TemplateError where that is one too many."""
        self.levels += 1
        if self.levels > _MOST_LEVELS:
            raise TemplateError(f"line {self.peek().line}: more than {_MOST_LEVELS} levels within one another")
        yield
        self.levels -= 1


def unexpected(lexeme: Lexeme, where: str) -> TemplateError:
    what = "the end of the text" if lexeme.kind is Kind.END else repr(lexeme.text)
    return TemplateError(f"line {lexeme.line}: {what} is not expected in {where}")
