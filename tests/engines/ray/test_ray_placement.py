"""Placement: rows of one prefix stay together until that costs more than it saves; no replica is sent too many."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.ray.options import Bounds, RayOptions, ReplicaSettings
from gristmill.engines.ray.placement import Homes, Load, Loads, choose
from gristmill.user_error import UserError


def test_a_row_goes_to_the_replica_that_has_its_prefix():
    loads = Loads({"a": Load(3, 16), "b": Load(0, 16)})
    assert choose(loads, frozenset("a")) == "a"
    assert choose(loads, frozenset()) == "b"


def test_a_replica_with_more_than_its_share_gives_its_prefix_to_the_emptiest():
    loads = Loads({"a": Load(9, 16), "b": Load(0, 16), "c": Load(2, 16)})
    assert choose(loads, frozenset("a")) == "b"


def test_with_one_slot_each_the_replicas_take_turns():
    assert choose(Loads({"a": Load(1, 1), "b": Load(0, 1)}), frozenset("a")) == "b"


def test_where_all_are_full_nobody_gets_it():
    assert choose(Loads({"a": Load(4, 4), "b": Load(5, 4)}), frozenset("a")) is None
    assert choose(Loads(), frozenset("a")) is None


@pytest.mark.parametrize("prefixes", [1, 3, 4, 40])
def test_however_few_prefixes_there_are_all_replicas_work_and_few_prefixes_move(prefixes):
    chance, homes = random.Random(7), Homes()
    in_flight: Counter[str] = Counter(dict.fromkeys("abcd", 0))
    running: list[str] = []
    done: Counter[str] = Counter()
    for number in range(4000):
        if len(running) == 32:
            ended = running.pop(chance.randrange(len(running)))
            in_flight[ended] -= 1
            done[ended] += 1
        prefix = number * prefixes // 4000
        loads = Loads({name: Load(in_flight[name], 8) for name in "abcd"})
        chosen = choose(loads, homes.of(prefix))
        assert chosen is not None and in_flight[chosen] < 8
        homes.add(prefix, chosen)
        in_flight[chosen] += 1
        running.append(chosen)
    assert min(done[name] for name in "abcd") > 600


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 4) | st.none()), max_size=200))
def test_the_emptiest_is_the_one_with_the_least_after_whatever_came_and_went(changes):
    loads, there = Loads(), {}
    for name, in_flight in changes:
        if in_flight is None:
            loads.drop(name)
            there.pop(name, None)
        else:
            loads.set(name, load := Load(in_flight, 4))
            there[name] = load
        least = min((each.in_flight for each in there.values()), default=4)
        emptiest = loads.emptiest()
        assert (emptiest is None) == (least == 4)
        assert emptiest is None or there[emptiest].in_flight == least


def test_what_a_lost_replica_had_computed_is_forgotten():
    homes = Homes()
    homes.add(1, "a")
    homes.add(1, "b")
    homes.forget("a")
    assert homes.of(1) == {"b"}


def test_replicas_are_a_number_or_two():
    assert Bounds.parse("4") == (4, 4)
    assert Bounds.parse("2:8") == (2, 8)
    for wrong in ("0", "-1", "8:2", "many", "", "1:2:3", "99999"):
        with pytest.raises(UserError, match="no number of replicas"):
            Bounds.parse(wrong)


def test_a_pool_must_say_what_is_in_it():
    with pytest.raises(UserError, match="--replica-engine NAME"):
        RayOptions.split({"replicas": "2"})
    with pytest.raises(UserError, match="name the one that computes"):
        RayOptions.split({"replica_engine": "ray"})
    with pytest.raises(UserError, match="address of Ray's client server"):
        RayOptions.split({"replica_engine": "simulated", "ray_address": "ray://head:10001"})


def test_options_that_are_not_the_pools_are_the_replicas():
    pool, rest = RayOptions.split({"replica_engine": "llama_cpp", "replica_gpus": "1", "kv_cache_gb": "2"})
    assert (pool.cpus, pool.replica_gpus, rest) == (1.0, 1.0, {"kv_cache_gb": "2"})


def test_other_settings_are_another_pool():
    one = ReplicaSettings("simulated", None, None, {"a": "1", "b": "2"}, 0, 0)
    same = ReplicaSettings("simulated", None, None, {"b": "2", "a": "1"}, 0, 0)
    other = ReplicaSettings("simulated", None, None, {"a": "1"}, 0, 0)
    assert one.pool == same.pool != other.pool
