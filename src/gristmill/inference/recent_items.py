"""Items of the last responses, for clients that refer to them instead of sending them again. The AI SDK does.

Kept in memory only, oldest forgotten first, and not those of requests that say ``"store": false``.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from gristmill.wire.responses import InputItem, ResponseObject

#: Of items, as JSON.
MAX_BYTES = 32 * 1024 * 1024

_decoder = msgspec.json.Decoder(InputItem)


class RecentItems:
    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: OrderedDict[str, bytes] = OrderedDict()

    def remember(self, response: ResponseObject) -> None:
        for item in response.output:
            data = msgspec.json.encode(item)
            self._items[item.id] = data
            self._bytes += len(data)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._items.popitem(last=False)[1])

    def resolved(self, items: list[InputItem]) -> list[InputItem]:
        """With remembered items in place of references to them; a reference to any other stays."""
        return [self._resolved(item) for item in items]

    def _resolved(self, item: InputItem) -> InputItem:
        if item.id is None or not item.is_reference() or item.id not in self._items:
            return item
        self._items.move_to_end(item.id)
        return _decoder.decode(self._items[item.id])
