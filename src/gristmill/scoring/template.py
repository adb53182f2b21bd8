"""From a row of a table to its text: by a sandboxed Jinja2 template whose variables are the columns."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox

from gristmill.user_error import UserError

#: The whole row, for columns whose names are no variable names: {{ row["years of experience"] }}.
_ROW = "row"


class RowTemplate:
    """``render`` one row after another. Cells without a value are empty texts."""

    def __init__(self, source: str | None, columns: Sequence[str], shown: Sequence[str]) -> None:
        """``source`` None: a line for each column in ``shown`` that has a value. Raises UserError for what is no
        template, or names a column that is not in ``columns``."""
        self._columns = list(columns)
        self.source = source
        self.shown = list(shown)
        self._template = self._read(source) if source is not None else None

    def _read(self, source: str) -> jinja2.Template:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
        try:
            used = jinja2.meta.find_undeclared_variables(environment.parse(source))
            template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(f"The row template is damaged at its line {error.lineno}: {error.message}.") from None
        for name in sorted(used - {_ROW, *self._columns}):
            raise UserError(f"The row template uses the column '{name}', {_but_not(name, self._columns)}")
        return template

    def render(self, row: dict[str, Any]) -> str:
        """Raises UserError for a column asked for as ``row["..."]`` that does not exist."""
        values = {name: "" if value is None or value != value else value for name, value in row.items()}
        if self._template is None:
            return "\n".join(f"{name}: {values[name]}" for name in self.shown if values.get(name, "") != "")
        try:
            # A column may be named like ours; then it is meant.
            return self._template.render({_ROW: values} | values).strip()
        except jinja2.UndefinedError as error:
            raise UserError(f"The row template cannot be filled in: {error.message}. {_has(self._columns)}") from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f"The row template cannot be filled in: {error}.") from None


def render_rubric(source: str, columns: Sequence[str], values: dict[str, str]) -> str:
    """The rubric is the same for all rows. Raises UserError where it uses a column."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
    try:
        used = jinja2.meta.find_undeclared_variables(environment.parse(source)) - set(values)
        for name in sorted(used):
            if name in columns or name == _ROW:
                raise UserError(
                    f"The rubric uses the column '{name}', but it is shared by all rows: put what differs from row to "
                    "row into the row template (--row)."
                )
            raise UserError(
                f"The rubric uses '{name}', which does not exist. It may use: {', '.join(values)}. Braces that "
                "are meant as text are written {{ '{{' }}."
            )
        return environment.from_string(source).render(values).strip()
    except jinja2.TemplateSyntaxError as error:
        raise UserError(
            f"The rubric is damaged as a template at its line {error.lineno}: {error.message}. Braces that are meant "
            "as text stand between {% raw %} and {% endraw %}."
        ) from None


def _but_not(name: str, columns: list[str]) -> str:
    near = difflib.get_close_matches(name, columns, 1)
    return f"which the table does not have.{f' Is it {near[0]!r}?' if near else ''} {_has(columns)}"


def _has(columns: list[str]) -> str:
    return f"It has: {', '.join(columns)}."
