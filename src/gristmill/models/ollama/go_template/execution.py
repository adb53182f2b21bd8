"""A template's text on given values.

Rules: https://go.dev/src/text/template/exec.go
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gristmill.models.ollama.go_template.evaluation import Evaluation, TemplateFunction, template_function
from gristmill.models.ollama.go_template.functions import BUILTINS, LAZY, MOST_CHARACTERS, Function
from gristmill.models.ollama.go_template.lexer import TemplateError
from gristmill.models.ollama.go_template.nodes import Action, Branch, Call, Jump, Pipeline, Text, Tree
from gristmill.models.ollama.go_template.parser import parse
from gristmill.models.ollama.go_template.values import is_true, printed

#: Templates that may be within one another.
_MOST_CALLS = 100


class GoTemplate:
    """Parsed once, executed on any values, by several threads at a time."""

    def __init__(self, source: str, functions: Mapping[str, Function] | None = None) -> None:
        """``functions`` besides Go's own and json. Raises TemplateError."""
        found = {**BUILTINS, **(functions or {})}
        self._functions = {name: template_function(function) for name, function in found.items()}
        self.tree = parse(source, found.keys() | LAZY)

    def execute(self, data: Any, tree: Tree | None = None) -> str:
        """``tree``: an edited one instead of its own. Raises TemplateError."""
        try:
            return _Execution(tree or self.tree, self._functions).run(data)
        except RecursionError:
            raise TemplateError("too many levels within one another") from None


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Execution:
    def __init__(self, tree: Tree, functions: Mapping[str, TemplateFunction]) -> None:
        self._tree = tree
        self._values = Evaluation(functions)
        self._output: list[str] = []
        self._written = 0
        self._calls = 0

    def run(self, data: Any) -> str:
        self._values.variables = [("$", data)]
        self._walk_all(self._tree.body, data)
        return "".join(self._output)

    def _walk_all(self, body: list[Any], dot: Any) -> None:
        for node in body:
            self._walk(node, dot)

    def _walk(self, node: Any, dot: Any) -> None:
        self._values.step()
        match node:
            case Text():
                self._write(node.text)
            case Action():
                value = self._values.pipeline(node.pipe, dot)
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

    def _write(self, text: str) -> None:
        self._written += len(text)
        if self._written > MOST_CHARACTERS:
            raise TemplateError(f"a text of more than {MOST_CHARACTERS:,} characters")
        self._output.append(text)

    # Control

    def _branch(self, node: Branch, dot: Any) -> None:
        mark = len(self._values.variables)
        value = self._values.pipeline(node.pipe, dot)
        if is_true(value):
            self._walk_all(node.body, value if node.keyword == "with" else dot)
        elif node.otherwise is not None:
            self._walk_all(node.otherwise, dot)
        del self._values.variables[mark:]

    def _range(self, node: Branch, dot: Any) -> None:
        outer = len(self._values.variables)
        value = self._values.pipeline(node.pipe, dot)
        mark = len(self._values.variables)
        ran = False
        try:
            for place, element in _elements(value, node.pipe.commands[0].line):
                ran = True
                self._values.step()
                self._set_range_variables(node.pipe, place, element, mark)
                try:
                    self._walk_all(node.body, element)
                except _Continue:
                    pass
                finally:
                    del self._values.variables[mark:]
        except _Break:
            pass
        if not ran and node.otherwise is not None:
            self._walk_all(node.otherwise, dot)
        del self._values.variables[outer:]

    def _set_range_variables(self, pipe: Pipeline, place: Any, element: Any, mark: int) -> None:
        if not pipe.variables:
            return
        values = (element,) if len(pipe.variables) == 1 else (place, element)
        for offset, (name, value) in enumerate(zip(pipe.variables, values, strict=True)):
            if pipe.assigns:
                self._values.assign(name, value)
            else:
                self._values.variables[mark - len(pipe.variables) + offset] = (name, value)

    def _call_template(self, node: Call, dot: Any) -> None:
        body = self._tree.defined.get(node.name)
        if body is None:
            raise TemplateError(f"line {node.line}: there is no template {node.name!r}")
        if self._calls == _MOST_CALLS:
            raise TemplateError(f"line {node.line}: more than {_MOST_CALLS} templates within one another")
        data = self._values.pipeline(node.pipe, dot) if node.pipe is not None else None
        outer, self._values.variables = self._values.variables, [("$", data)]
        self._calls += 1
        self._walk_all(body, data)
        self._calls -= 1
        self._values.variables = outer


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
