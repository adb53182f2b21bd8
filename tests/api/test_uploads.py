from __future__ import annotations

import hashlib
from typing import Any

import openai
import pytest

from requests_jsonl import chat_file


def create(client: openai.OpenAI, size: int, **options: Any) -> str:
    upload = client.uploads.create(
        bytes=size, filename="big.jsonl", mime_type="application/jsonl", purpose="batch", **options
    )
    assert upload.id.startswith("upload_") and upload.status == "pending"
    assert upload.expires_at == upload.created_at + 3600
    return upload.id


def test_a_chunked_upload_becomes_the_same_file(client: openai.OpenAI) -> None:
    data = chat_file(100)
    upload = client.uploads.upload_file_chunked(
        file=data, filename="big.jsonl", bytes=len(data), mime_type="text/jsonl", purpose="batch", part_size=5000
    )
    assert upload.status == "completed" and upload.file is not None
    assert (upload.file.filename, upload.file.status) == ("big.jsonl", "processed")
    assert client.files.content(upload.file.id).content == data


def test_parts_sent_out_of_order_are_joined_in_the_order_of_complete(client: openai.OpenAI) -> None:
    data = chat_file(10)
    upload = create(client, len(data))
    second = client.uploads.parts.create(upload, data=data[100:])
    first = client.uploads.parts.create(upload, data=data[:100])
    assert first.id.startswith("part_") and first.upload_id == upload
    md5 = hashlib.md5(data).hexdigest()
    done = client.uploads.complete(upload, part_ids=[first.id, second.id], md5=md5)
    assert done.file is not None and client.files.content(done.file.id).content == data


def test_a_wrong_total_or_md5_or_part_is_refused_and_the_upload_stays_pending(client: openai.OpenAI) -> None:
    data = chat_file(2)
    upload = create(client, len(data))
    half = client.uploads.parts.create(upload, data=data[:50])
    rest = client.uploads.parts.create(upload, data=data[50:])
    for given in ({"part_ids": [half.id]}, {"part_ids": ["part_x"]}, {"part_ids": [half.id, rest.id], "md5": "0" * 32}):
        with pytest.raises(openai.BadRequestError):
            client.uploads.complete(upload, **given)  # type: ignore[arg-type]
    assert client.uploads.complete(upload, part_ids=[half.id, rest.id]).status == "completed"


def test_a_cancelled_upload_takes_no_parts(client: openai.OpenAI) -> None:
    upload = create(client, 10)
    assert client.uploads.cancel(upload).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        client.uploads.parts.create(upload, data=b"0123456789")
    with pytest.raises(openai.BadRequestError):
        client.uploads.complete(upload, part_ids=[])


def test_an_upload_can_set_the_files_expiry(client: openai.OpenAI) -> None:
    data = chat_file(1)
    upload = create(client, len(data), expires_after={"anchor": "created_at", "seconds": 3600})
    part = client.uploads.parts.create(upload, data=data)
    file = client.uploads.complete(upload, part_ids=[part.id]).file
    assert file is not None and file.expires_at == file.created_at + 3600


def test_an_unknown_upload_is_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel("upload_x")
