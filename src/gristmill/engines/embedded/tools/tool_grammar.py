"""Grammars of answers that may, or must, call tools: in a family's own words, with arguments by each tool's schema.

Also where a model may choose, what has begun as a call goes on as one: the grammar takes hold at the trigger. The
notation is llguidance's (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md#tool-calling). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from gristmill.engines.embedded.tools.tool_format import ToolFormat
from gristmill.engines.structured_outputs import invalid
from gristmill.engines.tools.offer import Offer, Offered

#: Calls of one answer. Small models go on and on.
MOST_CALLS = 16
#: Spaced as models have seen JSON in training, by Python's ``json.dumps``; no byte is left to chance.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def tool_grammar(
    offer: Offer,
    functions: Sequence[Offered],
    form: ToolFormat,
    special: Mapping[str, int],
    content: str | None = None,
) -> str:
    """``functions`` are those of the offer that the grammar is for. ``special``: marks of the format that are tokens of
    their own, by token id. ``content``: the grammar of an answer that calls nothing, where it is not free text. Raises
    EngineError for schemas that no grammar can be made of."""
    words = _Words(special)
    separator = (form.between or "") + form.before_name
    more = f" ({words(separator)} call){{0,{MOST_CALLS - 1}}}" if offer.several and form.between is not None else ""
    rest = f"call{more} {words(form.closing)}"
    if offer.forced:
        lines = [f"start: {words(form.beginning)} {rest}"]
    elif content is not None:
        if form.alone:
            raise invalid(
                "response_format",
                "cannot be combined with tools that may be called on this model, whose calls are JSON",
            )
        lines = [f"start: content | {words(form.beginning)} {rest}", f"content: {content}"]
    elif form.alone:
        lines = [f"start: TEXT | {words(form.beginning)} {rest}", f"TEXT: /([^{re.escape(form.trigger)}](.|\\n)*)?/"]
    else:
        after_trigger = words(form.beginning.removeprefix(form.trigger))
        lines = ["start: TEXT | begun", "TEXT: /(.|\\n)*/"]
        if form.trigger in special:
            lines += [f"begun: TEXT {words(form.trigger)} {after_trigger} {rest}"]
        else:
            lines += [f"begun: head {after_trigger} {rest}", f"head[lazy]: TEXT {words(form.trigger)}"]
    names = [f"tool_{number}" for number in range(len(functions))]
    lines.append("call: " + " | ".join(names))
    for name, each in zip(names, functions, strict=True):
        body = f"{words(each.name + form.after_name)} {_arguments(each)} {words(form.after_arguments)}"
        lines.append(f"{name}: {body}")
    return "%llguidance {}\n" + "\n".join(lines) + "\n"


def text_grammar(form: ToolFormat, special: Mapping[str, int]) -> str:
    """Of an answer that calls nothing. A model that has called tools before may go on to, offered any or not."""
    # A special token is no text.
    anything = r"/(?s:.*)/"
    text = anything if form.trigger in special else rf"{anything} & ~/(?s:.*){re.escape(form.trigger)}(?s:.*)/"
    return f"%llguidance {{}}\nstart: TEXT\nTEXT: {text}\n"


def _arguments(offered: Offered) -> str:
    lenient = {} if offered.function.strict else {"lenient": True}
    schema = offered.arguments() | {"x-guidance": _SPACING | lenient}
    return f"%json {msgspec.json.encode(schema).decode()}"


class _Words:
    """Fixed text in the grammar's notation, with what is a special token as one."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        marks = "|".join(map(re.escape, special))
        self._marks = re.compile(f"({marks})") if special else None

    def __call__(self, text: str) -> str:
        parts = [text] if self._marks is None else self._marks.split(text)
        return " ".join(self._part(part) for part in parts if part)

    def _part(self, part: str) -> str:
        if part in self._special:
            return f"<[{self._special[part]}]>"
        # Texts in a Lark grammar are escaped as in JSON.
        return msgspec.json.encode(part).decode()
