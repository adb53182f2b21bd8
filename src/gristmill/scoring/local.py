"""Running a pass in this process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gristmill.batches.host import HostSettings
from gristmill.batches.local_run import Job, LocalRun
from gristmill.batches.longest_row import longest_row_tokens
from gristmill.engines.protocol import LabelScorer
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.scoring.passes import PassFiles
from gristmill.scoring.prompt import LABELS, TOP_LOGPROBS, TOP_LOGPROBS_BEGUN, Method
from gristmill.storage.open import StorageSettings
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

#: Runs until the batch has ended; raises whatever ends it before.
RunToEnd = Callable[[LocalRun, HostSettings], Batch]


class LocalBackend:
    """An engine of this machine. A pass that has ended is not run again."""

    def __init__(self, host: HostSettings, run_to_end: RunToEnd, reuse_answers: bool = False) -> None:
        """``host``: the storage in it is replaced by each pass's own."""
        self._host = host
        self._run_to_end = run_to_end
        self._reuse_answers = reuse_answers

    @property
    def labels_method(self) -> Method:
        engine = create_engine(self._host.engine)
        if isinstance(engine, LabelScorer):
            return LABELS
        # A small model whose answer is begun for it puts more of its probability on the labels.
        return TOP_LOGPROBS_BEGUN if "continue_final_message" in engine.capabilities.parameters else TOP_LOGPROBS

    @functools.cached_property
    def model(self) -> str:
        return _served_model(self._host.engine)

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
            batch = self._run_to_end(local, settings)
        if batch.status == "failed":
            errors = batch.errors.data if batch.errors else []
            raise UserError("The rows were refused, nothing ran: " + "; ".join(each.message for each in errors[:3]))
        files = [local.path_of(file) for file in (batch.output_file_id, batch.error_file_id) if file is not None]
        return PassFiles(batch, files)


def _served_model(engine: EngineSettings) -> str:
    """What requests call the engine's model, without starting it. Raises UserError where it must be said."""
    if engine.engine == "openvino":
        from gristmill.engines.openvino.engine import DEFAULT_MODEL
        from gristmill.models.locate import locate_for_engine

        return locate_for_engine(engine.model or DEFAULT_MODEL).name
    if engine.engine == "simulated":
        return engine.model or "simulated"
    if engine.model is None:
        raise UserError(f"Say which model of the {engine.engine} server shall score, with --model.")
    return engine.model
