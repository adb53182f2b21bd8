from __future__ import annotations

import msgspec

from gristmill.engines.protocol import Choice, Completion
from gristmill.inference.recent_items import OwnItems, RecentItems
from gristmill.inference.responses_stream import response_of
from gristmill.wire.responses import InputItem, ResponseObject, ResponseRequest


def response(text: str) -> ResponseObject:
    return response_of(ResponseRequest(model="m", input="x"), Completion("m", (Choice(text, "stop"),), 1, 1))


def remembered(recent: OwnItems, found: ResponseObject) -> bool:
    (item,) = recent.resolved([InputItem(type="item_reference", id=found.output[0].id)])
    return item.type == "message"


def test_the_oldest_that_nobody_refers_to_are_forgotten_first() -> None:
    one = len(msgspec.json.encode(response("x" * 100).output[0]))
    recent = RecentItems(max_bytes=3 * one).of(None)
    made = [response("x" * 100) for _ in range(5)]
    for index, each in enumerate(made):
        recent.remember(each)
        if index < 4:
            assert remembered(recent, made[0])
    assert [remembered(recent, each) for each in made] == [True, False, False, True, True]


def test_what_is_too_large_for_all_is_not_kept() -> None:
    recent = RecentItems(max_bytes=1000).of(None)
    large = response("x" * 1000)
    recent.remember(large)
    assert not remembered(recent, large)
    small = response("x")
    recent.remember(small)
    assert remembered(recent, small)


def test_items_that_are_no_references_stay() -> None:
    recent = RecentItems().of(None)
    made = response("x")
    recent.remember(made)
    own = InputItem(type="message", id=made.output[0].id, role="assistant", content="mine")
    unknown = InputItem(id="msg_x")
    assert recent.resolved([own, unknown]) == [own, unknown]
