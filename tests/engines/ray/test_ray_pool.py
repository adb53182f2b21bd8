"""A pool of replicas on a real Ray cluster answers as one engine does, whoever dies: each row exactly once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator

import pytest

from gristmill.doctor.ray import examine_ray
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import ChoiceDelta, EmbeddingRequest, LabelRequest
from gristmill.engines.ray.look import look
from gristmill.engines.simulated import SimulatedEngine, SimulatedOptions
from gristmill.wire.chat import ChatCompletionRequest, Message
from poison_rows import asked_of, of_poison, outcomes_of
from ray_cluster import RayCluster, ray_cluster, stop_or_kill
from ray_pool import all_joined, answered_once, row, started


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as running:
        yield running


async def test_it_answers_as_the_replicas_engine_does(cluster):
    alone = SimulatedEngine(SimulatedOptions())
    async with started(cluster.address) as engine:
        assert engine.models == alone.models
        assert engine.capabilities.endpoints == alone.capabilities.endpoints
        assert engine.capabilities.slots == 2 * alone.capabilities.slots
        assert await engine.fingerprint() == await alone.fingerprint()
        answer, expected = await engine.complete(row(1)), await alone.complete(row(1))
        assert (answer.choices, answer.prompt_tokens) == (expected.choices, expected.prompt_tokens)
        labels = LabelRequest("simulated", "yes or no?", ["yes", "no"])
        assert (await engine.score(labels)).logprobs == (await alone.score(labels)).logprobs
        texts = EmbeddingRequest("simulated", ["one", "two"])
        assert (await engine.embed(texts)).vectors == (await alone.embed(texts)).vectors
        tokens = EmbeddingRequest("simulated", [[1, 2], [3]], 8)
        assert (await engine.embed(tokens)).vectors == (await alone.embed(tokens)).vectors
        pieces: list[ChoiceDelta] = []
        streamed = await engine.complete(row(1), pieces.append)
        assert len(pieces) > 1
        assert "".join(piece.text for piece in pieces) == streamed.choices[0].text == expected.choices[0].text
        with pytest.raises(EngineError) as refused:
            await engine.complete(ChatCompletionRequest(model="other", messages=[Message("user", "hi")]))
        assert (refused.value.kind, refused.value.code) == (ErrorKind.INVALID_REQUEST, "model_not_found")
    assert cluster.replica_pids() == []


async def test_a_replicas_errors_keep_their_kind_and_what_the_caller_is_told(cluster):
    async with started(cluster.address, "1", fail_on="row 7.", failure_kind="invalid_request") as engine:
        with pytest.raises(EngineError) as refused:
            await engine.complete(row(7))
        assert (refused.value.kind, refused.value.code) == (ErrorKind.INVALID_REQUEST, "simulated_failure")
        assert await engine.complete(row(8))


async def test_rows_of_a_prefix_stay_at_one_replica_while_it_has_no_more_than_its_share(cluster):
    async with started(cluster.address, "2") as engine:
        await all_joined(engine, 2)
        cached = []
        for number in range(12):
            answers = await asyncio.gather(*(engine.complete(row(number, rubric)) for rubric in range(4)))
            cached.append([answer.cached_tokens > 0 for answer in answers])
        assert all(all(each) for each in cached[1:])


async def test_a_cancelled_request_frees_its_place(cluster):
    async with started(cluster.address, "1", slots=2, latency=30) as engine:
        asking = [asyncio.create_task(engine.complete(row(number))) for number in range(4)]
        await asyncio.sleep(0.5)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        (member,) = engine._pool.members.values()
        assert not member.in_flight and not engine._pool._queue


async def test_replicas_are_kept_for_the_next_if_asked_for_and_ended_by_one_that_wants_others(cluster):
    async with started(cluster.address, "2", keep_replicas=True) as engine:
        await all_joined(engine, 2)
        before = cluster.replica_pids()
    async with started(cluster.address, "2") as engine:
        await all_joined(engine, 2)
        assert cluster.replica_pids() == before
        assert await engine.complete(row(1))
    assert cluster.replica_pids() == []
    async with started(cluster.address, "1", keep_replicas=True):
        (kept,) = cluster.replica_pids()
    async with started(cluster.address, "1", latency=0.01):
        assert kept not in cluster.replica_pids()
    assert cluster.replica_pids() == []


async def test_replicas_that_were_left_are_listed_and_ended_by_a_person(cluster):
    async with started(cluster.address, "2", keep_replicas=True) as engine:
        await all_joined(engine, 2)
        used = await asyncio.to_thread(look, cluster.address)
        assert [each.users for each in used.replicas] == [1, 1]
    assert [each.users for each in look(cluster.address).replicas] == [0, 0]
    findings = {(each.check, each.verdict) for each in examine_ray(cluster.address)}
    assert findings == {("cluster", "ok"), ("replicas", "note")}
    look(cluster.address, end_replicas=True)
    assert look(cluster.address).replicas == []
    assert cluster.replica_pids() == []


async def test_two_users_share_the_replicas_and_the_last_ends_them(cluster):
    async with started(cluster.address, "1") as first:
        async with started(cluster.address, "1") as second:
            assert len(cluster.replica_pids()) == 1
            assert await asyncio.gather(first.complete(row(1)), second.complete(row(2)))
        assert await first.complete(row(3))
    assert cluster.replica_pids() == []


@pytest.mark.parametrize("what", ["killed", "stopped"])
async def test_replicas_that_die_or_hang_cost_no_row(cluster, what):
    chance = random.Random(11)
    killed: list[int] = []

    async def disturb() -> None:
        for _ in range(3):
            await asyncio.sleep(0.5)
            if pids := cluster.replica_pids():
                victim = chance.choice(pids)
                killed.append(victim)
                stop_or_kill(victim, signal.SIGKILL if what == "killed" else signal.SIGSTOP)

    async with started(cluster.address, "3", latency=0.05, slots=8) as engine:
        await all_joined(engine, 3)
        came = await answered_once(engine, 1000, disturb)
    assert len(killed) == 3
    assert len(came) == 1000 and set(came.values()) == {1}
    assert cluster.replica_pids() == []


async def test_a_killed_client_process_costs_no_row(cluster):
    async with started(cluster.address, "2", latency=0.05, slots=8) as engine:

        async def disturb() -> None:
            for _ in range(2):
                await asyncio.sleep(1.0)
                if engine._driver is not None:
                    os.kill(engine._driver.pid, signal.SIGKILL)

        came = await answered_once(engine, 1000, disturb)
    assert len(came) == 1000 and set(came.values()) == {1}
    assert cluster.replica_pids() == []


async def test_rows_that_crash_their_replica_end_in_errors_and_only_one_replica_at_a_time_is_kept_for_them(
    cluster, tmp_path
):
    async with started(cluster.address, "4", **of_poison(tmp_path)) as engine:
        await all_joined(engine, 4)
        assert engine.capabilities.alone_slots == 1
        came = await outcomes_of(engine, 600, poisonous=frozenset({3, 77, 150, 151, 152, 290}))
    assert came.errors == came.poisonous and came.answered == came.others
    # Each was asked alone three times, and cut nothing off then: what was cut off was so by the times before.
    asked = asked_of(tmp_path)
    in_company = sum(asked[number] - 3 for number in came.poisonous)
    assert min(asked[number] for number in came.poisonous) == 4
    assert sum(asked[number] for number in came.others) <= len(came.others) + 7 * in_company
    assert came.most_alone == 1
    # The rows of the other replicas went on meanwhile.
    assert sum(came.meanwhile) >= len(came.meanwhile) >= 3 * len(came.poisonous)


async def test_a_row_is_alone_at_a_replica_that_two_servers_use(cluster, tmp_path):
    options = of_poison(tmp_path)
    async with started(cluster.address, "2", **options) as one, started(cluster.address, "2", **options) as other:
        await asyncio.gather(all_joined(one, 2), all_joined(other, 2))
        first, second = await asyncio.gather(
            outcomes_of(one, 150, poisonous=frozenset({5, 60})),
            outcomes_of(other, 200, poisonous=frozenset({1150, 1151}), since=1000),
        )
    for came in (first, second):
        assert came.errors == came.poisonous and came.answered == came.others
    asked = asked_of(tmp_path)
    in_company = sum(asked[number] - 3 for number in first.poisonous | second.poisonous)
    others = first.others | second.others
    assert sum(asked[number] for number in others) <= len(others) + 15 * in_company
