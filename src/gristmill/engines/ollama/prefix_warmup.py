"""When a prefix has to be computed once by itself, so that the rows that share it can reuse it. Pure.

A model with sliding-window attention (gemma3) keeps only the window's KV state. After a long row the server can go
back to the end of the shared prefix only if it left a checkpoint there, and it leaves one only near the end of a
prompt. So each slot gets one request that ends where the rows begin to differ. Rows whose own part fits into one
prefill step do not need it.
"""

from __future__ import annotations

from collections import OrderedDict

from gristmill.engines.ollama.wire import ChatMessage

#: Tokens that can be rolled back without a checkpoint: Ollama's smallest prefill step.
ROLLBACK_TOKENS = 512
#: Fewest characters a token that we assume when we ask whether a row is short.
_CHARACTERS_PER_TOKEN = 3
#: Shared starts shorter than this are not worth a request.
_SHORTEST = 2000
_REMEMBERED = 64


class PrefixWarmup:
    """Remembers which prefixes have been met. A group shows itself with its second row."""

    def __init__(self, rollback_tokens: int = ROLLBACK_TOKENS) -> None:
        self._rollback = rollback_tokens
        #: The last message of the first row of each group; None once the group is warm.
        self._groups: OrderedDict[tuple[ChatMessage, ...], str | None] = OrderedDict()

    def due(self, messages: list[ChatMessage], num_predict: int) -> list[ChatMessage] | None:
        """The messages to compute before this row is sent; None for nearly every row."""
        *head, last = messages
        if last.role != "user" or (len(last.content) / _CHARACTERS_PER_TOKEN + num_predict) <= self._rollback:
            return None
        group = tuple(head)
        if group not in self._groups:
            self._groups[group] = last.content
            if len(self._groups) > _REMEMBERED:
                self._groups.popitem(last=False)
            return None
        self._groups.move_to_end(group)
        first = self._groups[group]
        if first is None or first == last.content:  # warm already, or the first row once more
            return None
        self._groups[group] = None
        start = _common_start(first, last.content)
        if sum(len(message.content) for message in head) + len(start) < _SHORTEST:
            return None
        return [*head, ChatMessage("user", start)]

    def forget(self) -> None:
        """The model was loaded again: nothing is warm any more."""
        self._groups.clear()


def _common_start(one: str, other: str) -> str:
    """Both texts' beginning, up to the last blank in it, so that no token of it is cut."""
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    shared = one[:length]
    return shared[: max(shared.rfind(" "), shared.rfind("\n"), 0)]
