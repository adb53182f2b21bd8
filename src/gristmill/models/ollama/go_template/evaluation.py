"""The values of pipelines.

Rules: https://go.dev/src/text/template/exec.go, with the option missingkey=zero, which is what Ollama sets.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from gristmill.models.ollama.go_template import nodes
from gristmill.models.ollama.go_template.functions import LAZY, Function
from gristmill.models.ollama.go_template.lexer import TemplateError
from gristmill.models.ollama.go_template.values import Struct, is_true

#: Nodes that one execution may visit: a template may ask for more than any machine can do.
_MOST_STEPS = 5_000_000
_NOTHING = object()


class TemplateFunction(NamedTuple):
    """``most`` is None where there may be any number of arguments."""

    function: Function
    least: int
    most: int | None


def template_function(function: Function) -> TemplateFunction:
    parameters = inspect.signature(function).parameters.values()
    plain = sum(each.kind is not each.VAR_POSITIONAL for each in parameters)
    return TemplateFunction(function, plain, plain if plain == len(parameters) else None)


class Evaluation:
    """On ``variables``, each its name and value, the innermost last. It counts the steps of one execution."""

    def __init__(self, functions: Mapping[str, TemplateFunction]) -> None:
        self.variables: list[tuple[str, Any]] = []
        self._functions = functions
        self._steps = 0

    def step(self) -> None:
        """Raises TemplateError where that is one too many."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TemplateError(f"more than {_MOST_STEPS:,} steps")

    def pipeline(self, pipe: nodes.Pipeline, dot: Any) -> Any:
        """Raises TemplateError."""
        value: Any = _NOTHING
        for command in pipe.commands:
            value = self._command(command, dot, value)
        for name in pipe.variables:
            if pipe.assigns:
                self.assign(name, value)
            else:
                self.variables.append((name, value))
        return value

    def _command(self, command: nodes.Command, dot: Any, final: Any) -> Any:
        self.step()
        first, *others = command.words
        try:
            if isinstance(first, nodes.FunctionName):
                return self._call(first.name, others, dot, final)
            if others or final is not _NOTHING:
                raise TemplateError("a value that is no function is given arguments")
            if isinstance(first, nodes.Constant) and first.value is None:
                raise TemplateError("nil is no command")
            return self._operand(first, dot)
        except TemplateError as error:
            text = str(error)
            raise error if text.startswith("line ") else TemplateError(f"line {command.line}: {text}") from None

    def _call(self, name: str, words: list[Any], dot: Any, final: Any) -> Any:
        if name in LAZY:
            return self._and_or(name, words, dot, final)
        values = [self._operand(word, dot) for word in words]
        if final is not _NOTHING:
            values.append(final)
        function, least, most = self._functions[name]
        if len(values) < least or (most is not None and len(values) > most):
            raise TemplateError(f"{name} with {len(values)} arguments")
        return function(*values)

    def _and_or(self, name: str, words: list[Any], dot: Any, final: Any) -> Any:
        value: Any = _NOTHING
        for word in words:
            value = self._operand(word, dot)
            if is_true(value) == (name == "or"):
                return value
        value = value if final is _NOTHING else final
        if value is _NOTHING:
            raise TemplateError(f"{name} without arguments")
        return value

    def _operand(self, node: Any, dot: Any) -> Any:
        match node:
            case nodes.Constant():
                return node.value
            case nodes.Dot():
                return dot
            case nodes.Field():
                return _fields(dot, node.names)
            case nodes.Variable():
                return _fields(self._variable(node.name), node.names)
            case nodes.Pipeline():
                return self._inner_pipe(node, dot)
            case nodes.Chain():
                return _fields(self._inner_pipe(node.pipe, dot), node.names)
            case nodes.FunctionName():
                return self._call(node.name, [], dot, _NOTHING)
        raise AssertionError(node)

    def _inner_pipe(self, pipe: nodes.Pipeline, dot: Any) -> Any:
        mark = len(self.variables)
        value = self.pipeline(pipe, dot)
        del self.variables[mark:]
        return value

    def _variable(self, name: str) -> Any:
        for known, value in reversed(self.variables):
            if known == name:
                return value
        raise TemplateError(f"the variable {name} is not declared")

    def assign(self, name: str, value: Any) -> None:
        for index in range(len(self.variables) - 1, -1, -1):
            if self.variables[index][0] == name:
                self.variables[index] = (name, value)
                return
        raise TemplateError(f"the variable {name} is not declared")


def _fields(value: Any, names: list[str]) -> Any:
    for place, name in enumerate(names):
        value = _field(value, name, first=place == 0)
    return value


def _field(value: Any, name: str, first: bool) -> Any:
    match value:
        case None:
            # Of nothing at all there are no fields, which is nothing; of what a map lacks they are an error.
            if first:
                return None
            raise TemplateError(f"the field {name} of nil")
        case dict():
            return value.get(name)
        case Struct() if name in value.fields:
            return value.fields[name]
        case Struct() if name in value.methods:
            return value.methods[name](value)
    raise TemplateError(f"there is no field {name} here")
