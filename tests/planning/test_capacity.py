"""The capacity simulation, against what queueing says for sure."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.planning.capacity import Figures, job_seconds, simulate

SLOW_ENGINE = Figures(replica_rate=17.0)


@pytest.mark.parametrize("replicas", [1, 2, 4, 10, 100])
def test_while_nothing_else_is_full_every_replica_adds_its_own_rate(replicas: int) -> None:
    flow = simulate(SLOW_ENGINE, replicas)
    assert flow.rate == pytest.approx(17.0 * replicas, rel=0.05)
    assert flow.limit == "replicas" and flow.replicas > 0.95


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1, 5_000), st.integers(1, 60), st.integers(1, 4), st.floats(0, 0.5), st.floats(1e-5, 1e-2),
    st.floats(1e-6, 1e-3),
)  # fmt: skip
def test_no_part_does_more_than_it_can_and_the_fullest_one_sets_the_pace(
    rate: float, replicas: int, servers: int, spread: float, server_row: float, store_row: float
) -> None:
    figures = Figures(rate, spread=spread, server_row=server_row, store_row=store_row)
    flow = simulate(figures, replicas, servers, seed=3)
    used = min(servers, replicas)
    most = {
        "replicas": rate * replicas,
        "servers": used / server_row,
        "database": 512 / (figures.store_group + 512 * store_row),
        "network": used * figures.network / (figures.row_bytes + figures.answer_bytes),
    }
    assert 0.6 * min(most.values()) <= flow.rate <= min(most.values()) * 1.1
    for part, limit in most.items():
        assert getattr(flow, part) <= 1.0
        # Of the database's time, small transactions take more.
        assert getattr(flow, part) >= min(flow.rate / limit, 1.0) - 0.2


def test_a_full_server_is_told_and_a_second_one_helps_until_the_database_is_full() -> None:
    figures = Figures(replica_rate=500.0, store_group=0.002, store_row=1 / 50_000)
    one, two, many = (simulate(figures, 200, servers) for servers in (1, 2, 20))
    assert one.limit == "servers" and one.rate == pytest.approx(1 / figures.server_row, rel=0.05)
    assert two.rate == pytest.approx(2 * one.rate, rel=0.05)
    assert many.limit == "database" and many.rate < 20 * one.rate / 3


def test_the_same_seed_gives_the_same_figures() -> None:
    assert simulate(SLOW_ENGINE, 7, seed=5) == simulate(SLOW_ENGINE, 7, seed=5)


def test_a_job_takes_its_start_its_rows_and_its_files() -> None:
    flow = simulate(SLOW_ENGINE, 10)
    seconds = job_seconds(SLOW_ENGINE, flow, 170_000)
    assert seconds == pytest.approx(60 + 170_000 / flow.rate + 170_000 / SLOW_ENGINE.read_rate, rel=0.01)
    assert job_seconds(SLOW_ENGINE, flow, 170_000, servers=2) < seconds


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gristmill", "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_command_tells_what_each_number_of_replicas_does() -> None:
    said = plan("--replicas", "1,10", "--rows", "170000", "--replica-rate", "17", "--json")
    assert said.returncode == 0, said.stderr
    one, ten = json.loads(said.stdout)
    assert one["replicas"] == 1 and 9_900 < one["seconds"] < 10_500 and ten["seconds"] < 1_200
    said = plan("--replicas", "1,many", "--rows", "1", "--replica-rate", "17")
    assert said.returncode == 2 and "not '1,many'" in said.stderr
