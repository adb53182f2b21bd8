"""From the text of an answer, as it becomes certain, to what is said to the user and the tools that are called. Pure.

A grammar has seen to it that calls are well-formed (``tool_grammar.py``); only their end may be missing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from gristmill.engines.embedded.tools.tool_format import ToolFormat
from gristmill.wire.tools import FunctionCall, FunctionCallDelta, ToolCall, ToolCallDelta


class Spoken(NamedTuple):
    """What a piece of the answer came to."""

    text: str = ""
    calls: tuple[ToolCallDelta, ...] = ()


class _Within(enum.Enum):
    TEXT = enum.auto()
    #: Text that cannot become a call any more.
    ONLY_TEXT = enum.auto()
    NAME = enum.auto()
    ARGUMENTS = enum.auto()
    AFTER_ARGUMENTS = enum.auto()


class CallReader:
    """Text is held back only while it may be the beginning of a call, or white space before one, which is dropped."""

    def __init__(self, form: ToolFormat, new_id: Callable[[], str]) -> None:
        self._form = form
        self._new_id = new_id
        self._within = _Within.TEXT
        self._held = ""
        self._scanner = ObjectScanner()
        self._ids: list[str] = []
        self._names: list[str] = []
        self._arguments: list[str] = []

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        made = zip(self._ids, self._names, self._arguments, strict=True)
        return tuple(ToolCall(call_id, FunctionCall(name, arguments)) for call_id, name, arguments in made)

    def push(self, text: str) -> Spoken:
        self._held += text
        said, deltas = "", []
        while True:
            before = self._within, len(self._held)
            if self._within in (_Within.TEXT, _Within.ONLY_TEXT):
                said += self._take_text()
            else:
                deltas += self._take_call()
            if (self._within, len(self._held)) == before or not self._held:
                return Spoken(said, tuple(deltas))

    def finish(self) -> Spoken:
        """The answer has ended: what was held back for a call that has not come is text."""
        rest, self._held = self._held, ""
        begun = rest.lstrip().startswith(self._form.trigger)
        is_text = self._within is _Within.ONLY_TEXT or (self._within is _Within.TEXT and not begun)
        return Spoken(rest if is_text else "")

    def _take_text(self) -> str:
        held, begin = self._held, self._form.beginning
        if self._within is _Within.ONLY_TEXT:
            self._held = ""
            return held
        if self._form.alone:
            if held.startswith(begin):
                self._held = held[len(begin) :]
                self._within = _Within.NAME
            elif not begin.startswith(held):
                self._within = _Within.ONLY_TEXT
            return ""
        place = held.find(begin)
        if place >= 0:
            self._held = held[place + len(begin) :]
            self._within = _Within.NAME
            return held[:place].rstrip()
        keep = len(held) - _suspicious(held, begin)
        keep = len(held[:keep].rstrip())
        self._held = held[keep:]
        return held[:keep]

    def _take_call(self) -> list[ToolCallDelta]:
        if self._within is _Within.NAME:
            return self._take_name()
        if self._within is _Within.ARGUMENTS:
            return self._take_arguments()
        form = self._form
        if form.between is not None:
            another = form.after_arguments + form.between + form.before_name
            if self._held.startswith(another):
                self._held = self._held[len(another) :]
                self._within = _Within.NAME
        return []

    def _take_name(self) -> list[ToolCallDelta]:
        name, end, rest = self._held.partition(self._form.after_name)
        if not end:
            return []
        self._held = rest
        self._within = _Within.ARGUMENTS
        self._scanner = ObjectScanner()
        self._ids.append(self._new_id())
        self._names.append(name)
        self._arguments.append("")
        call = FunctionCallDelta(name, "")
        return [ToolCallDelta(len(self._ids) - 1, self._ids[-1], "function", call)]

    def _take_arguments(self) -> list[ToolCallDelta]:
        size = self._scanner.scan(self._held)
        piece, self._held = self._held[:size], self._held[size:]
        if self._scanner.ended:
            self._within = _Within.AFTER_ARGUMENTS
        if not piece:
            return []
        self._arguments[-1] += piece
        return [ToolCallDelta(len(self._ids) - 1, function=FunctionCallDelta(arguments=piece))]


class ObjectScanner:
    """Finds where a JSON object ends in a text that comes in pieces."""

    def __init__(self) -> None:
        self.ended = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def scan(self, text: str) -> int:
        """How much of ``text`` still belongs to the object."""
        for place, character in enumerate(text):
            if self.ended:
                return place
            self._step(character)
        return len(text)

    def _step(self, character: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.ended = self._depth == 0


def _suspicious(text: str, begin: str) -> int:
    """Length of the longest end of ``text`` that ``begin`` begins with."""
    for length in range(min(len(begin) - 1, len(text)), 0, -1):
        if text.endswith(begin[:length]):
            return length
    return 0
