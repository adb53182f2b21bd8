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


class OwnItems:
    """Those of one access key, or of everybody where there are no keys."""

    def __init__(self, items: RecentItems, key_id: str | None) -> None:
        self._items = items
        self._key_id = key_id

    def remember(self, response: ResponseObject) -> None:
        self._items.remember(self._key_id, response)

    def resolved(self, items: list[InputItem]) -> list[InputItem]:
        """With remembered items in place of references to them; a reference to any other stays."""
        return [self._items.resolved(self._key_id, item) for item in items]


class RecentItems:
    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: OrderedDict[tuple[str | None, str], bytes] = OrderedDict()

    def of(self, key_id: str | None) -> OwnItems:
        return OwnItems(self, key_id)

    def remember(self, key_id: str | None, response: ResponseObject) -> None:
        for item in response.output:
            data = msgspec.json.encode(item)
            self._items[key_id, item.id] = data
            self._bytes += len(data)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._items.popitem(last=False)[1])

    def resolved(self, key_id: str | None, item: InputItem) -> InputItem:
        if item.id is None or not item.is_reference() or (key_id, item.id) not in self._items:
            return item
        self._items.move_to_end((key_id, item.id))
        return _decoder.decode(self._items[key_id, item.id])
