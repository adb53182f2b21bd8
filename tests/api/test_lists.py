from __future__ import annotations

import openai
import pytest

from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess


def test_batches_are_listed_newest_first_over_several_pages(client: openai.OpenAI, server: ServerProcess) -> None:
    made = [client.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h").id for _ in range(45)]
    first = client.batches.list()
    assert len(first.data) == 20 and first.has_more
    assert [batch.id for batch in client.batches.list()] == made[::-1]
    assert [batch.id for batch in client.batches.list(limit=7)] == made[::-1]
    assert [batch.id for batch in client.batches.list(after=made[2])] == made[1::-1]
    assert not client.batches.list(limit=45).has_more


def test_files_are_listed_by_purpose_and_order_over_several_pages(client: openai.OpenAI) -> None:
    made = [client.files.create(file=chat_file(1), purpose="batch").id for _ in range(12)]
    other = client.files.create(file=b"text", purpose="user_data").id
    assert [file.id for file in client.files.list(limit=5)] == [other, *made[::-1]]
    assert [file.id for file in client.files.list(limit=5, order="asc", purpose="batch")] == made
    assert [file.id for file in client.files.list(purpose="user_data")] == [other]
    page = client.files.list(limit=5)
    assert page.has_more and (page.first_id, page.last_id) == (page.data[0].id, page.data[-1].id)  # type: ignore[attr-defined]


def test_an_empty_list_has_every_key(client: openai.OpenAI) -> None:
    page = client.files.list(purpose="vision")
    assert page.data == [] and page.has_more is False


def test_an_unknown_cursor_is_refused_not_answered_with_page_one(client: openai.OpenAI) -> None:
    for lister in (client.files, client.batches):
        with pytest.raises(openai.BadRequestError) as refused:
            lister.list(after="nobody")
        assert refused.value.param == "after"


@pytest.mark.parametrize("limit", [0, -1, 101])
def test_a_batch_page_has_1_to_100_batches(client: openai.OpenAI, limit: int) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.list(limit=limit)
    assert refused.value.param == "limit"


def test_a_file_page_has_at_most_10000_files_in_a_known_order(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.files.list(limit=10_001)
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.list(order="sideways")  # type: ignore[arg-type]
    assert refused.value.param == "order"
