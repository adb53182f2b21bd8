"""Which scores are unsure enough to be asked of a better model: an expression over an outcome. Pure."""

from __future__ import annotations

import jinja2
import jinja2.meta
import jinja2.sandbox

from gristmill.scoring.outcome import Outcome
from gristmill.scoring.prompt import GENERATE, Method
from gristmill.user_error import UserError

#: What an expression may name, and those that only labels give.
_NAMES = ("score", "label", "entropy", "off_scale", "method")
_OF_LABELS = ("entropy", "off_scale")


class Condition:
    """``entropy > 0.8 or 4 <= score <= 6``, in the syntax of Jinja2's expressions, which is Python's for these."""

    def __init__(self, text: str) -> None:
        """Raises UserError for what is no expression, or names something else than an outcome has."""
        self._text = text
        environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)
        try:
            self._used = jinja2.meta.find_undeclared_variables(environment.parse(f"{{{{ {text} }}}}"))
            self._expression = environment.compile_expression(text, undefined_to_none=False)
        except jinja2.TemplateError as error:
            raise UserError(f"The condition '{text}' cannot be read: {error}.") from None
        if unknown := sorted(self._used - set(_NAMES)):
            raise UserError(f"The condition '{text}' names '{unknown[0]}'. It may use: {', '.join(_NAMES)}.")

    def check(self, method: Method) -> None:
        """Raises UserError where the method does not give what the condition asks for."""
        missing = sorted(self._used & set(_OF_LABELS))
        if missing and method is GENERATE:
            raise UserError(f"The condition '{self._text}' uses {missing[0]}, which only the method labels gives.")

    def holds(self, outcome: Outcome) -> bool:
        """Of an outcome that has a score. Raises UserError for a comparison that makes no sense."""
        try:
            return bool(self._expression(**{name: getattr(outcome, name) for name in _NAMES}))
        except (TypeError, ValueError, ArithmeticError, jinja2.TemplateError) as error:
            raise UserError(f"The condition '{self._text}' cannot be told: {error}.") from None
