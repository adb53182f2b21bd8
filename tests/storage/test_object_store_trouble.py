"""An object store that is not there, refuses, or breaks off in the middle."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from blob_contract import chunks

from cutting_proxy import CuttingProxy
from gristmill.storage.blobs.diagnosis import CREDENTIALS
from gristmill.storage.blobs.objects import PART_BYTES, ObjectBlobStore
from gristmill.storage.blobs.open import open_blobs
from gristmill.storage.blobs.store_trouble import StoreAnswer, Trouble, trouble
from gristmill.storage.errors import BlobLost, StorageError, Unreachable
from gristmill.user_error import NotNow, UserError
from s3_server import BUCKET, FULL, READER, Key, S3Server

PLACE = f"s3://{BUCKET}/trouble"
_BUSY = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: 44\r\n\r\n"
SLOW_DOWN = _BUSY % b"503 Slow Down" + b"<Error><Code>SlowDown</Code></Error>        "
TOO_MANY = _BUSY % b"429 Too Many Requests" + b"<Error><Code>TooManyRequests</Code></Error> "


@pytest.fixture
def environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Environment:
    return Environment(s3_server, monkeypatch)


class Environment:
    def __init__(self, server: S3Server, patch: pytest.MonkeyPatch) -> None:
        self.server = server
        self._patch = patch
        self.use()

    def use(self, key: Key = FULL, url: str | None = None) -> None:
        for name, value in self.server.environment(key, url).items():
            self._patch.setenv(name, value)


async def large(size: int, seed: int = 0) -> AsyncIterator[bytes]:
    chance = random.Random(seed)
    for _ in range(0, size, 1_000_000):
        yield chance.randbytes(1_000_000)


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize(
    ("location", "key", "told"),
    [
        ("s3://no-such-bucket/x", FULL, "There is no bucket 'no-such-bucket': make it"),
        (PLACE, Key("full", "wrong"), "does not know the credentials (SignatureDoesNotMatch): check AWS_ACCESS_KEY_ID"),
        (PLACE, Key("nobody", "x"), "does not know the credentials (InvalidAccessKeyId): check AWS_ACCESS_KEY_ID"),
        (PLACE, READER, "do not allow what was to be done in s3://gristmill-test/trouble: they need the rights"),
    ],
)
async def test_what_is_wrong_with_a_bucket_is_one_sentence_at_the_start(
    environment: Environment, location: str, key: Key, told: str
) -> None:
    environment.use(key)
    with pytest.raises(UserError) as raised:
        await ObjectBlobStore(location).try_out()
    assert told in str(raised.value) and "\n" not in str(raised.value)
    assert not isinstance(raised.value, NotNow)


def test_the_variables_that_a_sentence_names_are_those_of_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "object-storage.md").read_text()
    for names in CREDENTIALS.values():
        for name in names.split(" and "):
            assert f"`{name}`" in guide


async def test_a_store_that_is_not_there_is_one_sentence_at_the_start(environment: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    environment.use(url=nobody)
    with pytest.raises(UserError, match=f"The object store at {nobody[7:]} cannot be reached") as raised:
        await ObjectBlobStore(PLACE).try_out()
    assert "\n" not in str(raised.value)
    # It may be there at the next start.
    assert isinstance(raised.value, NotNow)


async def test_a_store_without_tls_that_is_asked_for_it_is_one_sentence(environment: Environment) -> None:
    environment.use(url=environment.server.url.replace("http://", "https://"))
    with pytest.raises(UserError, match="does not speak TLS") as raised:
        await ObjectBlobStore(PLACE).try_out()
    assert "\n" not in str(raised.value) and not isinstance(raised.value, NotNow)


@pytest.mark.parametrize(
    ("location", "told"),
    [
        (PLACE, "No credentials for the object store can be had: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("az://container/x", "such as AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
async def test_credentials_that_are_not_there_are_one_sentence(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, location: str, told: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    # Where a machine of Amazon's would have a role.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(UserError) as raised:
        await open_blobs(location).try_out()
    assert told in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3://key:hunter2@bucket/x", "nothing more"),
        ("s3://bucket/x?secret=hunter2", "nothing more"),
        ("s3://bucket/x#hunter2", "nothing more"),
        ("s3://bucket/a//b", "in its prefix"),
        ("s3://bucket/../b", "in its prefix"),
        ("ftp://hunter2@bucket", "is not supported"),
        ("S3://bucket", "is not supported"),
    ],
)
def test_a_location_that_is_none_is_one_sentence_and_shows_no_secret(location: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        open_blobs(location)
    assert told in str(raised.value) and "hunter2" not in str(raised.value)


@pytest.mark.parametrize("busy", [SLOW_DOWN, TOO_MANY])
async def test_a_store_that_asks_for_fewer_requests_is_asked_again(environment: Environment, busy: bytes) -> None:
    await ObjectBlobStore(PLACE).write("files/busy", chunks(b"content"))
    with CuttingProxy(environment.server.port, 0) as proxy:
        environment.use(url=proxy.url)
        proxy.answers.extend([busy] * 3)
        assert await ObjectBlobStore(PLACE).read("files/busy", 0, 7) == b"content"
        assert not proxy.answers


async def test_a_store_that_goes_on_asking_for_fewer_requests_is_not_one_that_has_lost_something(
    environment: Environment,
) -> None:
    with CuttingProxy(environment.server.port, 0) as proxy:
        environment.use(url=proxy.url)
        proxy.answers.extend([SLOW_DOWN] * 30)
        with pytest.raises(Unreachable, match="takes no more requests at the moment"):
            await ObjectBlobStore(PLACE).size("files/busy")


async def test_a_bucket_that_is_gone_is_not_a_blob_that_is_lost(environment: Environment) -> None:
    with pytest.raises(BlobLost):
        await ObjectBlobStore(PLACE).size("files/none")
    with pytest.raises(StorageError, match="There is no bucket") as raised:
        await ObjectBlobStore("s3://no-such-bucket/x").size("files/none")
    assert not isinstance(raised.value, BlobLost)


@pytest.mark.parametrize("seed", range(2))
async def test_connections_that_break_at_random_bytes_change_nothing_of_what_is_read(
    environment: Environment, seed: int
) -> None:
    expected = await whole(large(24_000_000, seed))
    await ObjectBlobStore(PLACE).write("files/read", large(24_000_000, seed))
    with CuttingProxy(environment.server.port, seed) as proxy:
        environment.use(url=proxy.url)
        proxy.within = 3_000_000
        blobs = ObjectBlobStore(PLACE)
        assert await whole(blobs.stream("files/read")) == expected
        assert await whole(blobs.stream("files/read", 7, 23_999_999, 256 * 1024)) == expected[7:23_999_999]
        assert proxy.cuts > 0


@pytest.mark.parametrize("seed", range(2))
async def test_connections_that_break_at_random_bytes_change_nothing_of_what_is_written(
    environment: Environment, seed: int
) -> None:
    with CuttingProxy(environment.server.port, seed) as proxy:
        environment.use(url=proxy.url)
        blobs = ObjectBlobStore(PLACE)
        proxy.within = 20_000_000
        assert await blobs.write("files/written", large(48_000_000, seed)) == 48_000_000
        assert proxy.cuts > 0
    environment.use()
    assert await whole(ObjectBlobStore(PLACE).stream("files/written")) == await whole(large(48_000_000, seed))


async def test_what_a_killed_writer_has_left_is_found_and_removed(environment: Environment) -> None:
    """Its connections are cut for good in the middle, so that it cannot abort: what it sent stays as parts."""
    waiting = asyncio.Event()

    async def cut_off() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield bytes(PART_BYTES)
        waiting.set()
        await asyncio.Event().wait()

    with CuttingProxy(environment.server.port, 0) as proxy:
        environment.use(url=proxy.url)
        writing = asyncio.create_task(ObjectBlobStore(PLACE).write("files/killed", cut_off()))
        await waiting.wait()
        proxy.refuse()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    environment.use()
    blobs = ObjectBlobStore(PLACE)
    with pytest.raises(BlobLost):
        await blobs.size("files/killed")
    assert await blobs.discard("files/killed") >= PART_BYTES
    assert await blobs.discard("files/killed") == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (StoreAnswer(404, "NoSuchKey", 0, None), None),
        (StoreAnswer(206, "", 0, None), None),
        (StoreAnswer(416, "InvalidRange", 0, None), None),
        (StoreAnswer(404, "NoSuchBucket", 0, None), Trouble.BUCKET),
        (StoreAnswer(404, "ContainerNotFound", 0, None), Trouble.BUCKET),
        (StoreAnswer(403, "AccessDenied", 0, None), Trouble.PERMISSION),
        (StoreAnswer(403, "", 0, None), Trouble.PERMISSION),
        (StoreAnswer(403, "InvalidAccessKeyId", 0, None), Trouble.CREDENTIALS),
        (StoreAnswer(400, "ExpiredToken", 0, None), Trouble.CREDENTIALS),
        (StoreAnswer(401, "", 0, None), Trouble.CREDENTIALS),
        (StoreAnswer(301, "PermanentRedirect", 0, "eu-west-1"), Trouble.REGION),
        (StoreAnswer(400, "AuthorizationHeaderMalformed", 0, "eu-west-1"), Trouble.REGION),
        (StoreAnswer(403, "RequestTimeTooSkewed", 3, None), Trouble.CLOCK),
        (StoreAnswer(403, "AccessDenied", -3600, None), Trouble.CLOCK),
        (StoreAnswer(403, "AuthenticationFailed", 3600, None), Trouble.CLOCK),
        (StoreAnswer(404, "NoSuchBucket", 3600, None), Trouble.BUCKET),
        (StoreAnswer(503, "SlowDown", 0, None), Trouble.THROTTLED),
        (StoreAnswer(429, "", 0, None), Trouble.THROTTLED),
        (StoreAnswer(500, "InternalError", 0, None), Trouble.FAILING),
    ],
)
def test_trouble_is_told_by_status_code_and_clock(answer: StoreAnswer, expected: Trouble | None) -> None:
    assert trouble(answer) is expected
