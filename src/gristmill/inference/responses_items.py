"""Items of a response's output while they are being written: each gives the events that say how it grows.

``number`` gives the next event its place in the stream.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import msgspec

from gristmill.inference.answer import new_id
from gristmill.inference.opaque_reasoning import opaque
from gristmill.wire.chat import TokenLogprob
from gristmill.wire.response_events import (
    ArgumentsDelta,
    ArgumentsDone,
    ContentPartAdded,
    ContentPartDone,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    RefusalDelta,
    RefusalDone,
    SummaryPartAdded,
    SummaryPartDone,
    SummaryTextDelta,
    SummaryTextDone,
)
from gristmill.wire.responses import (
    FunctionCallItem,
    ItemStatus,
    OutputItem,
    OutputMessage,
    OutputRefusal,
    OutputText,
    ReasoningItem,
    ReasoningText,
    SummaryText,
)

Number = Callable[[], int]
Events = list[msgspec.Struct]


class OpenItem(abc.ABC):
    """``index`` is the item's place in the output."""

    def __init__(self, number: Number, index: int, prefix: str) -> None:
        self._number = number
        self.index = index
        self.id = new_id(prefix)

    def begin(self) -> Events:
        return [OutputItemAdded(sequence_number=self._number(), output_index=self.index, item=self.item("in_progress"))]

    def close(self, status: ItemStatus) -> Events:
        events = self._close_parts()
        done = OutputItemDone(sequence_number=self._number(), output_index=self.index, item=self.item(status))
        return [*events, done]

    @abc.abstractmethod
    def item(self, status: ItemStatus) -> OutputItem:
        """The item as far as it is known."""

    @abc.abstractmethod
    def _close_parts(self) -> Events: ...


class OpenMessage(OpenItem):
    """A message in parts of text, and of refusal where the model refuses."""

    def __init__(self, number: Number, index: int) -> None:
        super().__init__(number, index, "msg_")
        self._parts: list[OutputText | OutputRefusal] = []
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._refuses: bool | None = None

    def say(self, text: str, logprobs: Sequence[TokenLogprob]) -> Events:
        events = self._part(refuses=False)
        self._pieces.append(text)
        self._logprobs += logprobs
        if not text and not logprobs:
            return events
        delta = OutputTextDelta(
            sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=self._place(),
            delta=text, logprobs=list(logprobs),
        )  # fmt: skip
        return [*events, delta]

    def refuse(self, text: str) -> Events:
        events = self._part(refuses=True)
        self._pieces.append(text)
        delta = RefusalDelta(
            sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=self._place(),
            delta=text,
        )  # fmt: skip
        return [*events, delta]

    def item(self, status: ItemStatus) -> OutputMessage:
        parts = list(self._parts) if self._refuses is None else [*self._parts, self._current()]
        return OutputMessage(self.id, parts, status)

    def _place(self) -> int:
        return len(self._parts)

    def _current(self) -> OutputText | OutputRefusal:
        text = "".join(self._pieces)
        return OutputRefusal(text) if self._refuses else OutputText(text, logprobs=list(self._logprobs))

    def _part(self, refuses: bool) -> Events:
        """See to it that the open part is one of this kind."""
        if self._refuses is refuses:
            return []
        events = self._close_parts()
        self._refuses = refuses
        added = ContentPartAdded(
            sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=self._place(),
            part=OutputRefusal("") if refuses else OutputText(""),
        )  # fmt: skip
        return [*events, added]

    def _close_parts(self) -> Events:
        if self._refuses is None:
            return []
        part = self._current()
        done: msgspec.Struct
        if isinstance(part, OutputText):
            done = OutputTextDone(
                sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=self._place(),
                text=part.text, logprobs=part.logprobs,
            )  # fmt: skip
        else:
            done = RefusalDone(
                sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=self._place(),
                refusal=part.refusal,
            )  # fmt: skip
        ended = ContentPartDone(
            sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=self._place(),
            part=part,
        )  # fmt: skip
        self._parts.append(part)
        self._pieces, self._logprobs, self._refuses = [], [], None
        return [done, ended]


class OpenReasoning(OpenItem):
    """What the model thinks: one part, of content or, where that was asked for, of summary. ``encrypted``: it is wanted
    as encrypted content, too."""

    def __init__(self, number: Number, index: int, *, as_summary: bool, encrypted: bool) -> None:
        super().__init__(number, index, "rs_")
        self._as_summary = as_summary
        self._encrypted = encrypted
        self._pieces: list[str] = []

    def begin(self) -> Events:
        events = super().begin()
        if self._as_summary:
            part = SummaryText("")
            events.append(SummaryPartAdded(
                sequence_number=self._number(), item_id=self.id, output_index=self.index, summary_index=0, part=part
            ))  # fmt: skip
        else:
            events.append(ContentPartAdded(
                sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=0,
                part=ReasoningText(""),
            ))  # fmt: skip
        return events

    def think(self, text: str) -> Events:
        self._pieces.append(text)
        if self._as_summary:
            return [SummaryTextDelta(
                sequence_number=self._number(), item_id=self.id, output_index=self.index, summary_index=0, delta=text
            )]  # fmt: skip
        return [ReasoningTextDelta(
            sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=0, delta=text
        )]  # fmt: skip

    def item(self, status: ItemStatus) -> ReasoningItem:
        text = "".join(self._pieces)
        if not text:
            return ReasoningItem(self.id, [], [], status)
        encrypted = opaque(text) if self._encrypted else None
        if self._as_summary:
            return ReasoningItem(self.id, [SummaryText(text)], [], status, encrypted)
        return ReasoningItem(self.id, [], [ReasoningText(text)], status, encrypted)

    def _close_parts(self) -> Events:
        text = "".join(self._pieces)
        if self._as_summary:
            return [
                SummaryTextDone(
                    sequence_number=self._number(), item_id=self.id, output_index=self.index, summary_index=0, text=text
                ),
                SummaryPartDone(
                    sequence_number=self._number(), item_id=self.id, output_index=self.index, summary_index=0,
                    part=SummaryText(text),
                ),
            ]  # fmt: skip
        return [
            ReasoningTextDone(
                sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=0, text=text
            ),
            ContentPartDone(
                sequence_number=self._number(), item_id=self.id, output_index=self.index, content_index=0,
                part=ReasoningText(text),
            ),
        ]  # fmt: skip


class OpenCall(OpenItem):
    """A call of a function, whose arguments come in pieces."""

    def __init__(self, number: Number, index: int, call_id: str, name: str) -> None:
        super().__init__(number, index, "fc_")
        self._call_id = call_id
        self._name = name
        self._pieces: list[str] = []

    def add(self, arguments: str) -> Events:
        self._pieces.append(arguments)
        return [ArgumentsDelta(
            sequence_number=self._number(), item_id=self.id, output_index=self.index, delta=arguments
        )]  # fmt: skip

    def item(self, status: ItemStatus) -> FunctionCallItem:
        return FunctionCallItem(self.id, self._call_id, self._name, "".join(self._pieces), status)

    def _close_parts(self) -> Events:
        return [ArgumentsDone(
            sequence_number=self._number(), item_id=self.id, output_index=self.index, name=self._name,
            arguments="".join(self._pieces),
        )]  # fmt: skip
