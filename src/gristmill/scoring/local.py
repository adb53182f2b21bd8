"""Running a pass in this process."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gristmill.batches.host import HostSettings
from gristmill.batches.lifecycle import is_terminal
from gristmill.batches.local_run import Job, LocalRun
from gristmill.batches.longest_row import longest_row_tokens
from gristmill.engines.choice import AUTOMATIC
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import LabelScorer
from gristmill.engines.registry import EMBEDDED, EngineSettings, create_engine
from gristmill.inference.endpoints import check_offered
from gristmill.scoring.backend import BatchView, Interrupted, MakeView, NoView, PassFiles
from gristmill.scoring.computation import computation_here, note_computation
from gristmill.scoring.held_engine import HeldEngine
from gristmill.scoring.prompt import LABELS, TOP_LOGPROBS, Method
from gristmill.storage.open import StorageSettings
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch


class LocalBackend:
    """An engine of this machine. A pass that has ended is not run again."""

    def __init__(
        self,
        host: HostSettings,
        reuse_answers: bool = False,
        make_view: MakeView = NoView,
        stop_on: Sequence[signal.Signals] = (),
    ) -> None:
        """``host``: the storage in it is replaced by each pass's own. ``stop_on``: signals that
        end a run in good order, which only a command may take."""
        self._host = host
        self._reuse_answers = reuse_answers
        self._make_view = make_view
        self._stop_on = stop_on
        self._held: HeldEngine | None = None

    @contextlib.contextmanager
    def session(self) -> Iterator[HeldEngine]:
        if self._held is not None:
            yield self._held
            return
        held = self._held = HeldEngine()
        try:
            yield held
        finally:
            self._held = None
            held.close()

    @property
    def labels_method(self) -> Method:
        engine = self._host.engine
        # Whichever embedded one it will be.
        scores = engine.engine == AUTOMATIC or isinstance(create_engine(engine), LabelScorer)
        return LABELS if scores else TOP_LOGPROBS

    @functools.cached_property
    def begins_answers(self) -> bool:
        # Of some engines it is known only once they have started, as it goes by the model.
        with self.session() as held, self._make_view() as view:
            engine = held.loop.run(held.started(self._host.engine, view.waiting, self._host.start_wait))
            return "continue_final_message" in engine.capabilities.parameters

    @functools.cached_property
    def model(self) -> str:
        return _model_of(self._host.engine)

    @property
    def place(self) -> str:
        return f"{self._host.engine.engine} engine"

    def run(
        self, folder: Path, input_file: Path, endpoint: str, shared: dict[str, Any], identity: dict[str, Any]
    ) -> PassFiles:
        engine = self._host.engine
        identity = identity | {"engine": engine.engine, "model": engine.model}
        local = LocalRun(folder / "run", Job(input_file, endpoint, identity, shared, self._reuse_answers))
        local.check()
        batch = local.ended()
        if batch is None:
            row_tokens = longest_row_tokens(input_file, len(msgspec.json.encode(shared)), shared.get("max_tokens", 0))
            storage = StorageSettings(local.state)
            settings = self._host._replace(storage=storage, engine=engine._replace(row_tokens=row_tokens))
            with self.session() as held:
                with self._make_view() as view:
                    batch = held.loop.run(self._until_ended(held, folder, local, settings, view))
                view.ended(batch)
        if batch.status == "failed":
            errors = batch.errors.data if batch.errors else []
            raise UserError("The rows were refused, nothing ran: " + "; ".join(each.message for each in errors[:3]))
        files = [local.path_of(file) for file in (batch.output_file_id, batch.error_file_id) if file is not None]
        return PassFiles(batch, files)

    async def _until_ended(
        self, held: HeldEngine, folder: Path, local: LocalRun, settings: HostSettings, view: BatchView
    ) -> Batch:
        engine = await held.started(settings.engine, view.waiting, settings.start_wait)
        try:
            check_offered(local.job.endpoint, engine.name, engine.capabilities.endpoints)
        except EngineError as error:
            raise UserError(f"{self.model} cannot be asked: {error.message}") from None
        computed = await computation_here(engine, self._host.engine, self.model, self.place, self._reuse_answers)
        note_computation(folder, computed)
        batch = await local.run(settings, view.update, view.waiting, self._stop_on, engine)
        if not is_terminal(batch.status):
            raise Interrupted(local.state)
        return batch


def _model_of(engine: EngineSettings) -> str:
    """What requests call the engine's model, without starting it. Raises UserError where it must be said."""
    made = create_engine(engine)
    if made.name in EMBEDDED:
        from gristmill.engines.embedded.engine import EmbeddedEngine

        assert isinstance(made, EmbeddedEngine)
        return made.served_name()
    if engine.engine == "simulated":
        return engine.model or "simulated"
    if engine.model is None:
        raise UserError(f"Say which model of the {engine.engine} server shall score, with --model.")
    return engine.model
