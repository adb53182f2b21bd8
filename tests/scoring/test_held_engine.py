"""The passes of a job share one engine, which is started once and stopped whatever comes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl
import pytest

from gristmill.batches.host import HostSettings
from gristmill.batches.waiting import silently
from gristmill.engines.embedded.worker.process import WorkerProcess
from gristmill.engines.registry import EngineSettings
from gristmill.engines.simulated import SimulatedEngine, SimulatedOptions
from gristmill.scoring import held_engine, passes
from gristmill.scoring.backend import BatchView, NoView
from gristmill.scoring.conductor import ScoredTable, Scoring
from gristmill.scoring.held_engine import HeldEngine
from gristmill.scoring.local import LocalBackend
from gristmill.scoring.questionnaire import ScoreOptions
from gristmill.scoring.scale import parse_scale
from gristmill.storage.open import StorageSettings
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

TABLE = pl.DataFrame({"name": ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn"], "years": [3, 20, 7, 11, 0, 2]})
RUBRIC = "Score how well the miller grinds, from 0 (not at all) to 10 (perfectly). " + "Fine flour is better. " * 30


class Stub(SimulatedEngine):
    """Counts, and takes a few turns of the loop to start and to stop."""

    def __init__(self) -> None:
        super().__init__(SimulatedOptions())
        self.up = False

    async def start(self) -> None:
        await asyncio.sleep(0)
        self.up = True
        try:
            await asyncio.sleep(0)
        except BaseException:
            self.up = False
            raise

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.up = False


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Stub]:
    engines: list[Stub] = []

    def create(settings: EngineSettings) -> Stub:
        engines.append(Stub())
        return engines[-1]

    monkeypatch.setattr(held_engine, "create_engine", create)
    return engines


def test_rows_that_are_longer_than_an_engine_was_started_for_get_another(made: list[Stub]) -> None:
    held = HeldEngine()
    for row_tokens in (100, 100, 50, 200, 150):
        held.loop.run(held.started(EngineSettings("stub", row_tokens=row_tokens), silently, 60))
        assert [each.up for each in made].count(True) == 1
    assert len(made) == 2
    held.close()
    assert not any(each.up for each in made)


def test_an_engine_whose_start_is_cancelled_at_any_moment_is_down_in_the_end(made: list[Stub]) -> None:
    async def cancelled_after(held: HeldEngine, turns: int) -> bool:
        task = asyncio.create_task(held.started(EngineSettings("stub"), silently, 60))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    outcomes = set()
    for turns in range(12):
        held = HeldEngine()
        outcomes.add(held.loop.run(cancelled_after(held, turns)))
        held.close()
        assert not any(each.up for each in made)
    assert outcomes == {True, False} and len(made) > 5


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, pulled_model: str) -> list[int]:
    """The ids of the embedded engine's processes that are started; passes are small enough for six rows to make two."""
    pids: list[int] = []
    start = WorkerProcess.start.__func__  # type: ignore[attr-defined]

    async def noted(kind: type[WorkerProcess], *arguments: object) -> object:
        worker, ready = await start(kind, *arguments)
        pids.append(worker.pid)
        return worker, ready

    monkeypatch.setattr(WorkerProcess, "start", classmethod(noted))
    monkeypatch.setattr(passes, "_FIRST", 2)
    monkeypatch.setattr(passes, "_MANY", 4)
    return pids


def run(folder: Path, most_off_scale: float = 1.0, make_view: Callable[[], BatchView] = NoView) -> ScoredTable:
    engine = EngineSettings("openvino", options={"kv_cache_gb": "0.2", "prefix_disk_gb": "0"})
    backend = LocalBackend(HostSettings(StorageSettings(Path()), engine), make_view=make_view)
    options = ScoreOptions(method="labels", most_off_scale=most_off_scale)
    return Scoring(TABLE, RUBRIC, parse_scale("0..10"), options, backend).run(folder)


def cached_tokens(folder: Path) -> list[int]:
    """Of each answer of a pass, in the order in which they were stored."""
    (output,) = (path for path in (folder / "run" / "blobs").rglob("*") if path.is_file() and not path.is_symlink())
    answers = [msgspec.json.decode(line) for line in output.read_bytes().splitlines()]
    return [each["response"]["body"]["usage"]["prompt_tokens_details"]["cached_tokens"] for each in answers]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_three_passes_start_the_embedded_engine_once_and_compute_the_rubric_once(
    tmp_path: Path, workers: list[int]
) -> None:
    once = run(tmp_path / "once")
    off_scale = sorted(outcome.off_scale or 0.0 for (outcome,) in once.outcomes)
    workers.clear()
    scored = run(tmp_path / "again", most_off_scale=(off_scale[-1] + off_scale[-2]) / 2)
    names = sorted(each.name for each in (tmp_path / "again").iterdir())
    assert names[:3] == ["0-first", "1", "2-off-scale"] and len(scored.batches) == len(names)
    assert len(workers) == 1 and gone(workers[0])
    first, second = (cached_tokens(tmp_path / "again" / name) for name in names[:2])
    # The first row of all finds nothing; from then on the rubric is there.
    assert min(first) == 0 and min(second) > len(RUBRIC.split())


def test_a_job_that_resumes_after_its_passes_starts_no_engine(tmp_path: Path, workers: list[int]) -> None:
    before = run(tmp_path)
    workers.clear()
    assert run(tmp_path).table.equals(before.table) and workers == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("the disk is gone")])
def test_a_job_that_ends_between_two_passes_leaves_no_process(
    tmp_path: Path, workers: list[int], error: type[BaseException] | BaseException
) -> None:
    class EndsIt(NoView):
        def ended(self, batch: Batch) -> None:
            assert not gone(workers[0])
            raise error

    with pytest.raises(BaseException) as raised:
        run(tmp_path, make_view=EndsIt)
    assert isinstance(raised.value, KeyboardInterrupt | UserError) and len(workers) == 1 and gone(workers[0])
    # And it goes on where it was.
    assert run(tmp_path).table["score"].null_count() == 0


def test_a_job_in_a_notebook_that_is_interrupted_leaves_no_process(tmp_path: Path, workers: list[int]) -> None:
    async def notebook() -> None:
        task = asyncio.current_task()
        assert task is not None

        class Interrupts(NoView):
            def update(self, batch: Batch) -> None:
                # As asyncio.run does when a signal comes.
                task.cancel()

        run(tmp_path, make_view=Interrupts)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(notebook())
    assert len(workers) == 1 and gone(workers[0])
