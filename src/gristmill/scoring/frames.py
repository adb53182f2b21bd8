"""``gristmill.score``: scores for a Polars or pandas frame, from Python."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from gristmill.batches.host import HostSettings
from gristmill.batches.local_run import LocalRun
from gristmill.client import Client
from gristmill.engines.registry import EngineSettings
from gristmill.scoring.job import Scores, with_scores
from gristmill.scoring.local import LocalBackend
from gristmill.scoring.passes import Backend
from gristmill.scoring.plan import Planned, Wanted, choose_method, plan
from gristmill.scoring.remote import RemoteBackend
from gristmill.scoring.scale import Scale, of_numbers, parse_scale
from gristmill.storage.open import StorageSettings
from gristmill.wire.batch import Batch

Frame = TypeVar("Frame")


def score(
    frame: Frame,
    *,
    rubric: str,
    scale: range | str,
    row: str | None = None,
    examples: Any = None,
    criteria: Sequence[str] = (),
    method: str | None = None,
    reason: bool = False,
    name: str = "score",
    columns: Sequence[str] | None = None,
    most_off_scale: float = 0.5,
    server: str | None = None,
    engine: str = "openvino",
    model: str | None = None,
    url: str | None = None,
    options: Mapping[str, object] | None = None,
    concurrency: int | None = None,
    resume: str | Path | None = None,
) -> Frame:
    """The frame (Polars or pandas) with the scores of its rows as further columns, as ``gristmill score`` writes them.

    ``rubric`` is its text; ``scale`` a range or what ``--scale`` takes; ``row`` a Jinja2 template (by default a line
    for each of ``columns``, which are all). ``resume`` names a folder that keeps what is done, so that the same call
    goes on after an interruption; without it, nothing is kept. Raises ``UserError``; rows that fail have no score, but
    say why.
    """
    table = _polars(frame)
    wanted = Wanted(
        rubric=rubric,
        scale=_scale(scale),
        row=row if row is not None or columns is None else _lines_of(columns),
        examples=_polars(examples) if examples is not None else None,
        criteria=criteria,
        reason=reason,
        name=name,
        most_off_scale=most_off_scale,
    )
    texts = {key: str(value) for key, value in (options or {}).items()}
    host = HostSettings(StorageSettings(Path()), EngineSettings(engine, model, url, texts), concurrency)
    backend: Backend = LocalBackend(host, _run_to_end)
    if server is not None:
        backend = RemoteBackend(Client(server), model, lambda client, batch: client.wait(batch))
    planned = plan(table, wanted, choose_method(method, wanted, backend))
    return _like(frame, table, with_scores(table, _run(planned, backend, resume), wanted.names))


def _run(planned: Planned, backend: Backend, resume: str | Path | None) -> Scores:
    if resume is not None:
        return planned.job.run(Path(resume), backend)
    with tempfile.TemporaryDirectory(prefix="gristmill-score-") as folder:
        return planned.job.run(Path(folder), backend)


def _run_to_end(local: LocalRun, settings: HostSettings) -> Batch:
    """An interrupt of the caller's ends the run, with what is done stored, and stays an interrupt."""
    batch = _in_own_thread(local, settings) if _has_loop() else asyncio.run(local.run(settings, _ignore))
    if batch.status not in ("completed", "failed"):
        raise RuntimeError(f"The batch ended as '{batch.status}', which nobody asked for.")
    return batch


def _in_own_thread(local: LocalRun, settings: HostSettings) -> Batch:
    """Where this thread runs an event loop already, as notebooks do."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    ended: Future[Batch] = Future()

    async def work() -> Batch:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await local.run(settings, _ignore)

    def run() -> None:
        try:
            ended.set_result(asyncio.run(work()))
        except BaseException as error:
            ended.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return ended.result()
    except KeyboardInterrupt:
        loop, task = started.result()
        if not ended.done():
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()


def _ignore(_: Batch) -> None:
    pass


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _scale(scale: range | str) -> Scale:
    return parse_scale(scale) if isinstance(scale, str) else of_numbers(scale)


def _lines_of(columns: Sequence[str]) -> str:
    return "\n".join(f'{{% if row[{name!r}] != "" %}}{name}: {{{{ row[{name!r}] }}}}{{% endif %}}' for name in columns)


def _polars(frame: Any) -> pl.DataFrame:
    """A pandas frame by its values: its missing ones are NaN or None, and both are empty cells here."""
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if not hasattr(frame, "columns") or not hasattr(frame, "assign"):
        raise TypeError(f"score takes a Polars or pandas frame, not {type(frame).__name__}")
    return pl.DataFrame({str(name): pl.Series(_values(frame[name]), strict=False) for name in frame.columns})


def _values(column: Any) -> list[Any]:
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def _like(frame: Frame, table: pl.DataFrame, scored: pl.DataFrame) -> Frame:
    """``scored`` as the kind of frame that was given."""
    if isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return scored if isinstance(frame, pl.DataFrame) else scored.lazy()  # type: ignore[return-value]
    new = [name for name in scored.columns if name not in table.columns]
    return frame.assign(**{name: scored[name].to_list() for name in new})  # type: ignore[attr-defined,no-any-return]
