"""The embedded engine, as the rest of Gristmill sees it. The model itself lives in a process of its own."""

from __future__ import annotations

import asyncio

from gristmill.engines.openvino.frames import Ready
from gristmill.engines.openvino.options import OpenVinoOptions
from gristmill.engines.openvino.process import Heartbeat, WorkerProcess
from gristmill.engines.openvino.supervision import WorkerSupervisor
from gristmill.engines.protocol import (
    Capabilities,
    Completion,
    LabelRequest,
    LabelScores,
    OnText,
    Request,
    check_parameters,
    unknown_model,
)
from gristmill.models.checked_file import sha256_of
from gristmill.models.locate import locate, locate_for_engine
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import FORCED_TOKENS

__all__ = ["DEFAULT_MODEL", "OpenVinoEngine", "OpenVinoOptions"]

log = get_logger(__name__)

DEFAULT_MODEL = "smollm2-135m-instruct"

_PARAMETERS = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "seed", "stop", "frequency_penalty",
     "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "add_generation_prompt", "continue_final_message",
     "response_format", "structured_outputs"}
)  # fmt: skip


class OpenVinoEngine:
    """Continuous batching over a shared prefix cache, on the CPU of this machine."""

    name = "openvino"

    def __init__(self, options: OpenVinoOptions, model: str | None = None, heartbeat: Heartbeat | None = None) -> None:
        self._options = options
        self._source = model or DEFAULT_MODEL
        self._heartbeat = heartbeat or Heartbeat()
        self._supervisor = WorkerSupervisor(self._start_worker, self._note_ready)
        self._fingerprint: str | None = None
        self.models: tuple[str, ...] = (self._source,)
        self.capabilities = _capabilities(options, None)

    @property
    def down_reason(self) -> str | None:
        return self._supervisor.down_reason

    async def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = await asyncio.to_thread(_fingerprint, self._source, self._options)
        return self._fingerprint

    async def start(self) -> None:
        """Loads the model; the first time a GGUF file is used it is converted, which takes a while. Raises
        UserError when the model is not on this machine or cannot be used."""
        self.models = (locate_for_engine(self._source).name,)
        await self._supervisor.start()

    async def stop(self) -> None:
        await self._supervisor.stop()

    async def complete(
        self, request: Request, on_text: OnText | None = None, *, interactive: bool = False
    ) -> Completion:
        if request.model not in self.models:
            raise unknown_model(request.model, self.models)
        check_parameters(request, self.capabilities, self.name)
        worker = await self._supervisor.worker()
        completion = await worker.complete(request, on_text, interactive)
        FORCED_TOKENS.inc(completion.forced_tokens)
        return completion

    async def score(self, request: LabelRequest, *, interactive: bool = False) -> LabelScores:
        if request.model not in self.models:
            raise unknown_model(request.model, self.models)
        worker = await self._supervisor.worker()
        return await worker.score(request, interactive)

    async def _start_worker(self) -> tuple[WorkerProcess, Ready]:
        return await WorkerProcess.start(self._source, self._options, self._heartbeat)

    def _note_ready(self, ready: Ready) -> None:
        for notice in ready.notices:
            log.warning("embedded engine", notice=notice)
        self.capabilities = _capabilities(self._options, ready.context_length)


def _fingerprint(source: str, options: OpenVinoOptions) -> str:
    """The files of the model, and what changes how it computes."""
    path = locate(source).path
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    digests = " ".join(f"{each.name}={sha256_of(each)}" for each in files)
    return f"openvino {options.weights} {options.attention} {digests}"


def _capabilities(options: OpenVinoOptions, context_length: int | None) -> Capabilities:
    return Capabilities(
        # Twice the rows that are computed at a time: a step that ends many rows is followed by the next at once, which
        # is full only if others are waiting in the worker already.
        slots=2 * options.max_rows,
        parameters=_PARAMETERS,
        context_length=context_length,
        interactive_slots=options.max_rows,
    )
