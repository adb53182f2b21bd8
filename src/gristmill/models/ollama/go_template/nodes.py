"""What a template is made of. Lists may be edited: Ollama does, to find where an answer begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Text:
    text: str


@dataclass
class Constant:
    """A boolean, a number, a string or nil."""

    value: Any


@dataclass
class Dot:
    pass


@dataclass
class Field:
    """``.A.B``"""

    names: list[str]


@dataclass
class Variable:
    """``$x.A.B``; ``name`` with its dollar sign, "$" being the data as a whole."""

    name: str
    names: list[str]


@dataclass
class FunctionName:
    name: str


@dataclass
class Chain:
    """``(pipeline).A.B``"""

    pipe: Pipeline
    names: list[str]


@dataclass
class Command:
    words: list[Any]
    line: int


@dataclass
class Pipeline:
    """``variables`` are declared, or assigned to, with what the last of the ``commands`` gives."""

    commands: list[Command]
    variables: list[str] = field(default_factory=list)
    assigns: bool = False


@dataclass
class Action:
    pipe: Pipeline


@dataclass
class Branch:
    """``keyword`` is if, with or range."""

    keyword: str
    pipe: Pipeline
    body: list[Any]
    otherwise: list[Any] | None


@dataclass
class Jump:
    """Out of the innermost range, or to its next round."""

    keyword: str


@dataclass
class Call:
    """``{{template "name" pipeline}}``"""

    name: str
    pipe: Pipeline | None
    line: int


@dataclass
class Tree:
    """``body`` is the template itself, ``defined`` those that it defines by name."""

    body: list[Any]
    defined: dict[str, list[Any]]
