from __future__ import annotations

import asyncio

import pytest

from gristmill import tasks


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_PAUSE", 0.001)


class Flaky:
    """Fails with each of ``failures`` in turn, then works until ``release``."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.calls = 0
        self.working = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        self.working.set()
        await self.release.wait()


async def test_a_task_that_fails_says_so_and_starts_again(capsys: pytest.CaptureFixture[str]) -> None:
    work = Flaky(OSError(24, "Too many open files"), MemoryError(), ExceptionGroup("two", [ValueError("odd")]))
    task = tasks.supervised("the one that matters", work)
    async with asyncio.timeout(10):
        await work.working.wait()
        work.release.set()
        await task
    assert work.calls == 4
    printed = "".join(capsys.readouterr())
    assert printed.count("a task failed and starts again") == 3 and "Too many open files" in printed


async def test_a_cancelled_task_ends_and_is_not_started_again() -> None:
    work = Flaky()
    task = tasks.supervised("task", work)
    await work.working.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.calls == 1


async def test_a_cancellation_that_was_not_meant_for_the_task_is_a_failure_like_any_other() -> None:
    work = Flaky(asyncio.CancelledError())
    task = tasks.supervised("task", work)
    async with asyncio.timeout(10):
        await work.working.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert work.calls == 2


async def test_a_task_that_is_cancelled_in_the_pause_before_its_next_start_ends() -> None:
    work = Flaky(*[ValueError("again") for _ in range(1_000)])
    task = tasks.supervised("task", work)
    async with asyncio.timeout(10):
        while work.calls < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
