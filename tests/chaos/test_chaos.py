"""Servers, replicas, nodes, the cluster's head, the database and the S3 server are killed and stopped at random while
10,000 rows run: each is in the files once, and none is asked again whose result is stored."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from chaos.schedule import Timetable, What, schedule
from postgres_server import MISSING, programs

ROWS = 10_000
#: It kills and stops the server that runs the batch.
SEED = 2


def test_a_batch_outlives_whatever_it_stands_on(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed: pip install 'gristmill[ray]'")
    if programs() is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip(MISSING)
    from chaos.run import play

    outcome = play(SEED, ROWS, tmp_path)
    assert outcome.faults() == {}
    planned = [(step.what, step.at) for step in schedule(SEED, ROWS)]
    assert [(done.what, done.due) for done in outcome.steps if done.of is not None] == planned
    # Somebody else went on with it, more than once.
    assert outcome.leases > 3


@pytest.mark.parametrize("seed", range(50))
def test_a_seed_decides_what_is_hit_at_how_many_rows(seed: int) -> None:
    steps = schedule(seed, ROWS)
    assert steps == schedule(seed, ROWS) != schedule(seed + 1, ROWS)
    table, done = Timetable(steps), []
    while (step := table.next()) is not None:
        done.append(step)
        # Always late.
        table.done(step, step.at + 300)
    assert {step.what for step in done} == set(What)
    # Never are both servers away, or two of three nodes.
    for kinds in (
        [What.KILL_SERVER, What.START_SERVER, What.HANG_SERVER, What.WAKE_SERVER],
        [What.KILL_NODE, What.REPLACE_NODE, What.HANG_NODE, What.WAKE_NODE, What.HANG_HEAD, What.WAKE_HEAD],
    ):
        assert [kinds.index(step.what) % 2 for step in done if step.what in kinds] == [0, 1] * (len(kinds) // 2)


@pytest.mark.parametrize("seed", range(50))
def test_where_nothing_gets_on_what_is_stopped_is_continued_and_nothing_of_the_schedule_is_left_out(seed: int) -> None:
    table, done, early = Timetable(schedule(seed, ROWS)), [], 0
    while (step := table.next()) is not None:
        if (end := table.end_before(step)) is not None:
            early += end != step
            step = end
        done.append(step)
        table.done(step, step.at)
    assert early > 0
    assert sorted(step.what for step in done) == sorted(_all_steps(seed))


def _all_steps(seed: int) -> list[What]:
    table, found = Timetable(schedule(seed, ROWS)), []
    while (step := table.next()) is not None:
        found.append(step.what)
        table.done(step, step.at)
    return found
