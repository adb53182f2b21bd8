"""A template's text on given values.

Rules: https://go.dev/src/text/template/exec.go, with the option missingkey=zero, which is what Ollama sets.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gristmill.models.ollama.go_template.functions import BUILTINS, LAZY, MOST_CHARACTERS, Function
from gristmill.models.ollama.go_template.lexer import TemplateError
from gristmill.models.ollama.go_template.nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Command,
    Constant,
    Dot,
    Field,
    Jump,
    Pipe,
    Text,
    Tree,
    Variable,
)
from gristmill.models.ollama.go_template.nodes import Function as FunctionNode
from gristmill.models.ollama.go_template.parser import parse
from gristmill.models.ollama.go_template.values import Struct, is_true, printed

#: Nodes that one execution may visit, and templates that may be within one another: a template may ask for more than
#: any machine can do.
_MOST_STEPS = 5_000_000
_MOST_CALLS = 100
_NOTHING = object()


class GoTemplate:
    """Parsed once, executed on any values, by several threads at a time."""

    def __init__(self, source: str, functions: Mapping[str, Function] | None = None) -> None:
        """``functions`` besides Go's own and json. Raises TemplateError."""
        found = {**BUILTINS, **(functions or {})}
        self._functions = {name: _Callable(function, *_arity(function)) for name, function in found.items()}
        self.tree = parse(source, found.keys() | LAZY)

    def execute(self, data: Any, tree: Tree | None = None) -> str:
        """``tree``: an edited one instead of its own. Raises TemplateError."""
        try:
            return _Execution(tree or self.tree, self._functions).run(data)
        except RecursionError:
            raise TemplateError("too many levels within one another") from None


class _Callable(NamedTuple):
    """``most`` is None where there may be any number of arguments."""

    function: Function
    least: int
    most: int | None


def _arity(function: Function) -> tuple[int, int | None]:
    parameters = inspect.signature(function).parameters.values()
    plain = sum(each.kind is not each.VAR_POSITIONAL for each in parameters)
    return plain, plain if plain == len(parameters) else None


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Execution:
    def __init__(self, tree: Tree, functions: Mapping[str, _Callable]) -> None:
        self._tree = tree
        self._functions = functions
        self._output: list[str] = []
        self._written = 0
        self._steps = 0
        self._calls = 0
        #: Name and value, the innermost last.
        self._variables: list[tuple[str, Any]] = []

    def run(self, data: Any) -> str:
        self._variables = [("$", data)]
        self._walk_all(self._tree.body, data)
        return "".join(self._output)

    def _walk_all(self, body: list[Any], dot: Any) -> None:
        for node in body:
            self._walk(node, dot)

    def _walk(self, node: Any, dot: Any) -> None:
        self._step()
        match node:
            case Text():
                self._write(node.text)
            case Action():
                value = self._pipe(node.pipe, dot)
                if not node.pipe.variables:
                    self._write(printed(value))
            case Branch(keyword="range"):
                self._range(node, dot)
            case Branch():
                self._branch(node, dot)
            case Jump():
                raise _Break if node.keyword == "break" else _Continue
            case Call():
                self._call_template(node, dot)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TemplateError(f"more than {_MOST_STEPS:,} steps")

    def _write(self, text: str) -> None:
        self._written += len(text)
        if self._written > MOST_CHARACTERS:
            raise TemplateError(f"a text of more than {MOST_CHARACTERS:,} characters")
        self._output.append(text)

    # Control

    def _branch(self, node: Branch, dot: Any) -> None:
        mark = len(self._variables)
        value = self._pipe(node.pipe, dot)
        if is_true(value):
            self._walk_all(node.body, value if node.keyword == "with" else dot)
        elif node.otherwise is not None:
            self._walk_all(node.otherwise, dot)
        del self._variables[mark:]

    def _range(self, node: Branch, dot: Any) -> None:
        outer = len(self._variables)
        value = self._pipe(node.pipe, dot)
        mark = len(self._variables)
        ran = False
        try:
            for place, element in _elements(value, node.pipe.commands[0].line):
                ran = True
                self._step()
                self._set_range_variables(node.pipe, place, element, mark)
                try:
                    self._walk_all(node.body, element)
                except _Continue:
                    pass
                finally:
                    del self._variables[mark:]
        except _Break:
            pass
        if not ran and node.otherwise is not None:
            self._walk_all(node.otherwise, dot)
        del self._variables[outer:]

    def _set_range_variables(self, pipe: Pipe, place: Any, element: Any, mark: int) -> None:
        if not pipe.variables:
            return
        values = (element,) if len(pipe.variables) == 1 else (place, element)
        for offset, (name, value) in enumerate(zip(pipe.variables, values, strict=True)):
            if pipe.assigns:
                self._assign(name, value)
            else:
                self._variables[mark - len(pipe.variables) + offset] = (name, value)

    def _call_template(self, node: Call, dot: Any) -> None:
        body = self._tree.defined.get(node.name)
        if body is None:
            raise TemplateError(f"line {node.line}: there is no template {node.name!r}")
        if self._calls == _MOST_CALLS:
            raise TemplateError(f"line {node.line}: more than {_MOST_CALLS} templates within one another")
        data = self._pipe(node.pipe, dot) if node.pipe is not None else None
        outer, self._variables = self._variables, [("$", data)]
        self._calls += 1
        self._walk_all(body, data)
        self._calls -= 1
        self._variables = outer

    # Pipelines

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        value: Any = _NOTHING
        for command in pipe.commands:
            value = self._command(command, dot, value)
        for name in pipe.variables:
            if pipe.assigns:
                self._assign(name, value)
            else:
                self._variables.append((name, value))
        return value

    def _command(self, command: Command, dot: Any, final: Any) -> Any:
        self._step()
        first, *others = command.words
        try:
            if isinstance(first, FunctionNode):
                return self._call(first.name, others, dot, final)
            if others or final is not _NOTHING:
                raise TemplateError("a value that is no function is given arguments")
            if isinstance(first, Constant) and first.value is None:
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
            case Constant():
                return node.value
            case Dot():
                return dot
            case Field():
                return _fields(dot, node.names)
            case Variable():
                return _fields(self._variable(node.name), node.names)
            case Pipe():
                return self._inner_pipe(node, dot)
            case Chain():
                return _fields(self._inner_pipe(node.pipe, dot), node.names)
            case FunctionNode():
                return self._call(node.name, [], dot, _NOTHING)
        raise AssertionError(node)

    def _inner_pipe(self, pipe: Pipe, dot: Any) -> Any:
        mark = len(self._variables)
        value = self._pipe(pipe, dot)
        del self._variables[mark:]
        return value

    def _variable(self, name: str) -> Any:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise TemplateError(f"the variable {name} is not declared")

    def _assign(self, name: str, value: Any) -> None:
        for index in range(len(self._variables) - 1, -1, -1):
            if self._variables[index][0] == name:
                self._variables[index] = (name, value)
                return
        raise TemplateError(f"the variable {name} is not declared")


def _elements(value: Any, line: int) -> Iterable[tuple[Any, Any]]:
    match value:
        case None:
            return ()
        case bool():
            pass
        case int():
            return ((number, number) for number in range(value))
        case list():
            return enumerate(value)
        case dict():
            return ((name, value[name]) for name in sorted(value))
    raise TemplateError(f"line {line}: range over a value that holds no others")


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
