"""Delivering what is stored: at least once, with one id, without one target holding up another."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai.types.webhooks import BatchCompletedWebhookEvent
from receiver import SECRET, Received, Receiver, hang, status

from gristmill.notify import notifier as notifying
from gristmill.notify import schedule
from gristmill.notify.addresses import AllowedHosts
from gristmill.notify.notifier import PLACES, PLACES_A_KEY, PLACES_A_TARGET, Notifier
from gristmill.notify.sender import Sender, SendOutcome
from gristmill.notify.webhooks import WebhookService
from gristmill.storage.errors import StorageError
from gristmill.storage.records import BatchRecord, DeliveryRecord, WebhookRecord
from gristmill.storage.sql.store import SqlMetadataStore

LOOPBACK = AllowedHosts.of(["127.0.0.1"])
YEAR = 366 * 86400


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlMetadataStore]:
    opened = SqlMetadataStore.at(f"sqlite:///{tmp_path / 'test.db'}")
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(notifying, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(notifying, "FIRST_STORE_PAUSE", 0.01)


def webhook(url: str) -> WebhookRecord:
    return WebhookRecord(url, SECRET, "/".join(url.split("/")[:3]))


async def end_batch(store: SqlMetadataStore, name: str, of: WebhookRecord | None, key: str | None = None) -> None:
    endpoint = "/v1/chat/completions"
    record = BatchRecord(0, name, endpoint, "file-1", "24h", "in_progress", 1, 2**40, webhook=of, key_id=key)
    await store.batches.add(record)
    ended = {"status": "completed", "completed_at": 1_700_000_000}
    assert await store.batches.change(name, ended, expected="in_progress")


async def deliveries(store: SqlMetadataStore) -> list[DeliveryRecord]:
    return (await store.deliveries.page(after=None, limit=1_000)).records


async def until(store: SqlMetadataStore, holds: Callable[[list[DeliveryRecord]], bool]) -> list[DeliveryRecord]:
    async with asyncio.timeout(60):
        while not holds(found := await deliveries(store)):
            await asyncio.sleep(0.01)
    return found


def all_are(wanted: str) -> Callable[[list[DeliveryRecord]], bool]:
    return lambda found: bool(found) and {each.status for each in found} == {wanted}


class Working:
    """A notifier that works until it is left."""

    def __init__(
        self,
        store: Any,
        sender: Any = None,
        own: WebhookRecord | None = None,
        grace: float = 0,
        shared: bool = False,
    ) -> None:
        self.notifier = Notifier(getattr(store, "deliveries", store), sender or Sender(LOOPBACK), own, shared)
        self._grace = grace

    async def __aenter__(self) -> Notifier:
        self._task = asyncio.create_task(self.notifier.run())
        return self.notifier

    async def __aexit__(self, *_: object) -> None:
        await self.notifier.stop(self._grace)
        await self._task


class Scripted:
    """Answers by the URL; remembers what was sent."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self._answer = answer
        self.sent: list[Received] = []
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> SendOutcome:
        self.sent.append(Received(url, headers, body))
        self.now[url] += 1
        self.now["all"] += 1
        for name in (url, "all"):
            self.most[name] = max(self.most[name], self.now[name])
        try:
            answered = self._answer(url)
            return SendOutcome(await answered if asyncio.iscoroutine(answered) else answered, "x")
        finally:
            self.now[url] -= 1
            self.now["all"] -= 1


async def test_a_failure_is_tried_again_with_the_same_event_until_it_is_taken(store: SqlMetadataStore) -> None:
    with Receiver(status(500), hang_up, status(302, "Location: /x"), status(204)) as receiver:
        await end_batch(store, "batch_1", webhook(receiver.url))
        async with Working(store):
            (delivery,) = await until(store, all_are("delivered"))
    assert delivery.attempts == 4 and delivery.last_status == 204 and delivery.last_error is None
    (event_id,) = {each.id for each in receiver.received}
    (body,) = {each.body for each in receiver.received}
    for each in receiver.received:
        event = each.unwrap()
        assert isinstance(event, BatchCompletedWebhookEvent)
        assert (event.id, event.data.id, event.created_at) == (event_id, "batch_1", 1_700_000_000)
        assert event.object == "event" and event.type == "batch.completed"
    assert set(msgspec.json.decode(body)) == {"id", "object", "created_at", "type", "data"}


def hang_up(connection: Any) -> None:
    connection.close()


async def test_the_servers_own_webhook_is_told_of_every_batch_and_a_batchs_own_besides(store: SqlMetadataStore) -> None:
    own, of_batch = webhook("http://own.example/"), webhook("http://a.example/")
    sender = Scripted(lambda _: 200)
    await end_batch(store, "batch_1", None)
    await end_batch(store, "batch_2", of_batch)
    async with Working(store, sender, own):
        await until(store, all_are("delivered"))
    told = sorted((each.path, msgspec.json.decode(each.body)["data"]["id"]) for each in sender.sent)
    assert told == [(of_batch.url, "batch_2"), (own.url, "batch_1"), (own.url, "batch_2")]
    assert len({each.id for each in sender.sent}) == 2


async def test_without_a_webhook_of_its_own_a_server_keeps_nothing_for_one(store: SqlMetadataStore) -> None:
    await end_batch(store, "batch_1", None)
    await end_batch(store, "batch_2", webhook("http://a.example/"))
    async with Working(store, Scripted(lambda _: 200)):
        found = await until(store, lambda found: len(found) == 1 and found[0].status == "delivered")
    assert found[0].batch_id == "batch_2"


async def test_a_target_that_never_answers_holds_up_no_other(store: SqlMetadataStore) -> None:
    with Receiver(hang) as slow, Receiver() as good:
        for number in range(20):
            await end_batch(store, f"slow_{number}", webhook(slow.url))
        for number in range(20):
            await end_batch(store, f"good_{number}", webhook(good.url))
        async with Working(store):
            await asyncio.to_thread(good.wait, 20)
            found = await until(store, lambda all_: sum(each.status == "delivered" for each in all_) == 20)
            assert {each.batch_id.split("_")[0] for each in found if each.status == "delivered"} == {"good"}
            assert len(slow.received) == PLACES_A_TARGET


async def test_many_targets_of_one_key_that_never_answer_hold_up_no_other_key(store: SqlMetadataStore) -> None:
    async def answer(url: str) -> int:
        if "slow" in url:
            await asyncio.Event().wait()
        return 200

    sender = Scripted(answer)
    for number in range(2 * PLACES):
        await end_batch(store, f"slow_{number}", webhook(f"http://slow-{number}.example/"), "key_1")
    for number in range(20):
        await end_batch(store, f"good_{number}", webhook(f"http://good-{number}.example/"), "key_2")
    async with Working(store, sender) as working:
        found = await until(store, lambda all_: sum(each.status == "delivered" for each in all_) == 20)
        assert {each.key_id for each in found if each.status == "delivered"} == {"key_2"}
        assert sender.now["all"] == len(working._under_way) == PLACES_A_KEY


async def test_a_flood_is_bounded_in_memory_and_all_of_it_is_tried(store: SqlMetadataStore) -> None:
    """10,000 batches end at once, of 40 targets that take their time."""
    end = asyncio.Event()

    async def answer() -> int:
        await end.wait()
        return 200

    await end_batch(store, "batch_1", webhook("http://a/"))
    (first, *_) = await deliveries(store)
    values = [
        {"id": f"whd_{number}", "event_id": f"evt_{number}", "type": "batch.completed", "batch_id": f"batch_{number}",
         "created_at": 1, "webhook": msgspec.to_builtins(webhook(f"http://{number % 40}.example/")),
         "target": f"http://{number % 40}.example", "status": "pending", "attempts": 0, "due_at": 0.0}
        for number in range(10_000)
    ]  # fmt: skip
    from gristmill.storage.sql.schema import webhook_deliveries

    await store._database.write(lambda connection: connection.execute(webhook_deliveries.insert(), values))
    sender = Scripted(lambda _: answer())
    asked: list[int] = []
    due = store.deliveries.due

    async def watched(*given: Any) -> list[DeliveryRecord]:
        found = await due(*given)
        asked.append(len(found))
        return found

    store.deliveries.due = watched  # type: ignore[method-assign]
    async with Working(store, sender) as working:
        async with asyncio.timeout(60):
            while sender.now["all"] < PLACES:
                await asyncio.sleep(0.01)
        assert len(working._under_way) == PLACES
        end.set()
        async with asyncio.timeout(60):
            while len(sender.sent) < 300:
                await asyncio.sleep(0.01)
    assert max(asked) <= PLACES
    assert sender.most.pop("all") == PLACES and max(sender.most.values()) == PLACES_A_TARGET
    assert len(sender.most) >= 40
    assert len({each.id for each in sender.sent}) == len(sender.sent)
    assert first.id not in {each.id for each in sender.sent}


async def test_the_last_failure_makes_it_dead_and_by_hand_it_is_sent_again(
    store: SqlMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, offset = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    answered = 500
    sender = Scripted(lambda _: answered)
    await end_batch(store, "batch_1", webhook("http://a.example/"))
    async with Working(store, sender) as working:
        service = WebhookService(store.deliveries, working)
        await until(store, lambda found: found[0].attempts >= 2)
        # The clock jumps by more than there is time for: the next failure is the last.
        offset = 73 * 3600.0
        (delivery,) = await until(store, all_are("dead"))
        page = await service.page(None, 10, "dead")
        assert [(each.id, each.last_status, each.next_attempt_at) for each in page.data] == [(delivery.id, 500, None)]
        assert (await service.page(None, 10, "delivered")).data == []
        answered = 200
        again = await service.resend(delivery.id)
        assert again.status == "pending" and again.event_id == delivery.event_id
        (delivery,) = await until(store, all_are("delivered"))
    assert delivery.attempts == 1
    assert len({each.id for each in sender.sent}) == 1 and len({each.body for each in sender.sent}) == 1
    assert int(sender.sent[-1].headers["webhook-timestamp"]) >= real() + offset - 60


@pytest.mark.parametrize("jump", [-YEAR, YEAR])
async def test_a_clock_that_jumps_neither_loses_nor_delays_a_delivery(
    store: SqlMetadataStore, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    real, offset = time.time, 0
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    answered = 500
    sender = Scripted(lambda _: answered)
    monkeypatch.setattr(schedule, "FIRST_PAUSE", 1_000.0)
    await end_batch(store, "batch_1", webhook("http://a.example/"))
    async with Working(store, sender):
        await until(store, lambda found: found[0].attempts == 1)
        answered = 200
        # Due in a quarter of an hour by the clock as it was.
        offset = jump
        await until(store, all_are("delivered"))
    assert len(sender.sent) == 2


class Failing:
    """Storage that fails, or a process that dies, at one call of a method: before it is done or after."""

    def __init__(self, inner: Any, method: str, after: bool, error: BaseException, times: int = 1) -> None:
        self._inner, self._method, self._after = inner, method, after
        self._error, self._left = error, times

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._inner, name)
        if name != self._method:
            return original

        async def failing(*args: Any) -> Any:
            if self._left and not self._after:
                self._left -= 1
                raise self._error
            result = await original(*args)
            if self._left:
                self._left -= 1
                raise self._error
            return result

        return failing


async def test_an_outcome_that_storage_refuses_is_not_sent_again_and_again(store: SqlMetadataStore) -> None:
    sender = Scripted(lambda _: 200)
    await end_batch(store, "batch_1", webhook("http://a.example/"))
    async with Working(Failing(store.deliveries, "record", False, StorageError("full"), times=5), sender):
        (delivery,) = await until(store, all_are("delivered"))
    assert len(sender.sent) == 1 and delivery.attempts == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", ["due", "send", "record"])
async def test_a_death_between_any_two_steps_loses_nothing_and_tells_with_the_same_id(
    store: SqlMetadataStore, method: str, after: bool
) -> None:
    sender = Scripted(lambda _: 200)
    await end_batch(store, "batch_1", webhook("http://a.example/"))
    died = asyncio.CancelledError()
    dying = Failing(sender if method == "send" else store.deliveries, method, after, died)
    store_of, sends = (store.deliveries, dying) if method == "send" else (dying, sender)
    first = Notifier(store_of, sends)
    try:
        await first._start_due()
    except asyncio.CancelledError:
        assert method == "due"
    await asyncio.gather(*(each.task for each in list(first._under_way.values())), return_exceptions=True)
    sent = len(sender.sent)
    assert sent == ((method, after) not in (("due", False), ("due", True), ("send", False)))
    done = (await deliveries(store))[0].status == "delivered"
    assert done == ((method, after) == ("record", True))
    async with Working(store, sender):
        await until(store, all_are("delivered"))
    assert len(sender.sent) == sent + (not done)
    assert len({each.id for each in sender.sent}) == 1


async def test_what_is_under_way_at_a_stop_may_end_and_else_is_delivered_after_it(store: SqlMetadataStore) -> None:
    began, end = asyncio.Event(), asyncio.Event()

    async def answer() -> int:
        began.set()
        await end.wait()
        return 200

    sender = Scripted(lambda _: answer())
    await end_batch(store, "batch_1", webhook("http://a.example/"))
    async with Working(store, sender):
        await began.wait()
    assert (await deliveries(store))[0].status == "pending"
    began.clear()
    async with Working(store, sender, grace=60):
        await began.wait()
        asyncio.get_running_loop().call_later(0.05, end.set)
    assert (await deliveries(store))[0].status == "delivered"
    assert len(sender.sent) == 2 and len({each.id for each in sender.sent}) == 1


async def test_a_stop_while_it_looks_for_what_is_due_begins_nothing(store: SqlMetadataStore) -> None:
    sender, due = Scripted(lambda _: 200), store.deliveries.due

    async def stopped_meanwhile(*given: Any) -> list[DeliveryRecord]:
        found = await due(*given)
        await notifier.stop(0)
        return found

    await end_batch(store, "batch_1", webhook("http://a.example/"))
    store.deliveries.due = stopped_meanwhile  # type: ignore[method-assign]
    notifier = Notifier(store.deliveries, sender)
    await notifier.run()
    await asyncio.sleep(0)
    assert sender.sent == [] and not notifier._under_way


async def test_a_receiver_that_is_killed_and_comes_back_is_told(store: SqlMetadataStore) -> None:
    with Receiver(hang) as receiver:
        await end_batch(store, "batch_1", webhook(receiver.url))
        async with Working(store):
            await asyncio.to_thread(receiver.wait, 1)
            receiver.close()
            await until(store, lambda found: found[0].attempts >= 2)
            with Receiver(port=receiver.port) as again:
                await until(store, all_are("delivered"))
                assert {each.id for each in again.received} == {each.id for each in receiver.received}


async def test_of_several_servers_one_delivers_and_another_where_that_one_died_meanwhile(
    store: SqlMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        await end_batch(store, f"batch_{number}", webhook(f"http://127.0.0.1:{number + 1}/"))

    async def slowly() -> int:
        await asyncio.sleep(0.05)
        return 200

    sender = Scripted(lambda _: slowly())
    servers = [Working(store, sender, webhook("http://127.0.0.1:99/"), shared=True) for _ in range(3)]
    async with servers[0], servers[1], servers[2]:
        await until(store, all_are("delivered"))
    # Each batch's own, and the server's, of each.
    assert len(sender.sent) == 80 == len({(each.path, each.body) for each in sender.sent})

    monkeypatch.setattr(notifying, "CLAIM_SECONDS", 0.2)
    await end_batch(store, "batch_again", webhook("http://127.0.0.1:1/"))
    dead = Scripted(lambda _: asyncio.sleep(3600))
    async with Working(store, dead, webhook("http://127.0.0.1:99/"), shared=True):
        async with asyncio.timeout(60):
            while len(dead.sent) < 2:
                await asyncio.sleep(0.01)
    sender.sent.clear()
    async with Working(store, sender, webhook("http://127.0.0.1:99/"), shared=True):
        await until(store, all_are("delivered"))
    assert len(sender.sent) == 2
