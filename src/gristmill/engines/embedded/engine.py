"""An embedded engine, as the rest of Gristmill sees it. The model itself lives in a process of its own."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

import msgspec

from gristmill.engines.embedded.model_runner import EmbeddedOptions
from gristmill.engines.embedded.scheduling.step_plan import DEFAULT_LIMITS, StepLimits
from gristmill.engines.embedded.worker.frames import KeepPrefixes, Load, Ready
from gristmill.engines.embedded.worker.heartbeat import Heartbeat
from gristmill.engines.embedded.worker.process import WorkerProcess
from gristmill.engines.errors import unknown_model
from gristmill.engines.parameters import check_parameters
from gristmill.engines.protocol import (
    Capabilities,
    Completion,
    EmbeddingRequest,
    Embeddings,
    LabelRequest,
    LabelScores,
    OnDelta,
    Request,
)
from gristmill.engines.supervision import ProcessSupervisor
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import FORCED_TOKENS
from gristmill.user_error import UserError
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS, SCORE

log = get_logger(__name__)

_PARAMETERS = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "n", "seed",
     "stop", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "add_generation_prompt",
     "continue_final_message", "response_format", "structured_outputs", "tools", "tool_choice", "functions",
     "function_call"}
)  # fmt: skip


class EmbeddedEngine(ABC):
    """Continuous batching over a shared prefix cache. A concrete engine says which library computes, and how models
    are found: ``name``, ``loader``, ``served_name`` and ``model_fingerprint``."""

    #: What the user chooses it by.
    name: str
    #: Where the worker finds its ``LoadModel``: "package.module:function".
    loader: str

    def __init__(self, options: EmbeddedOptions, source: str, heartbeat: Heartbeat | None = None) -> None:
        """``source``: the model, as the user calls it."""
        self._options = options
        self._source = source
        self._heartbeat = heartbeat or Heartbeat()
        self._supervisor = ProcessSupervisor(
            "The embedded engine", self._start_worker, self._note_ready, self._note_death
        )
        self._fingerprint: str | None = None
        #: Of its last start.
        self._limits = DEFAULT_LIMITS
        self.models: tuple[str, ...] = (source,)
        self.capabilities = _capabilities(options, None)

    @abstractmethod
    def served_name(self) -> str:
        """What requests call the model. Raises UserError when it is not on this machine, or nothing for this engine."""

    @abstractmethod
    def model_fingerprint(self) -> str:
        """The model's files, and what changes how it computes; called in a thread, as it may read gigabytes."""

    @property
    def down_reason(self) -> str | None:
        return self._supervisor.down_reason

    async def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = f"{self.name} {await asyncio.to_thread(self.model_fingerprint)}"
        computing = self.capabilities.computing
        precision = "" if computing is None or computing.precision == "f32" else f" {computing.precision}"
        return self._fingerprint + precision

    async def start(self) -> None:
        """Loads the model; the first time one is used it may have to be converted, which takes a while. Raises
        UserError when it cannot be used."""
        self.models = (self.served_name(),)
        await self._supervisor.start()

    async def stop(self) -> None:
        await self._supervisor.stop()

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        if request.model not in self.models:
            raise unknown_model(request.model, self.models)
        check_parameters(request, self.capabilities, self.name)
        worker = await self._supervisor.worker()
        completion = await worker.complete(request, on_delta, interactive)
        FORCED_TOKENS.inc(completion.forced_tokens)
        return completion

    async def score(self, request: LabelRequest, *, interactive: bool = False) -> LabelScores:
        if request.model not in self.models:
            raise unknown_model(request.model, self.models)
        worker = await self._supervisor.worker()
        return await worker.score(request, interactive)

    async def embed(self, request: EmbeddingRequest, *, interactive: bool = False) -> Embeddings:
        if request.model not in self.models:
            raise unknown_model(request.model, self.models)
        worker = await self._supervisor.worker()
        return await worker.embed(request, interactive)

    async def _start_worker(self) -> tuple[WorkerProcess, Ready]:
        load = Load(self.loader, self._source, msgspec.to_builtins(self._options))
        # The model's files are read by both at once, which is once from the disk.
        keeping = asyncio.create_task(self._keep_prefixes())
        try:
            return await WorkerProcess.start(load, self._heartbeat, keeping)
        finally:
            keeping.cancel()

    async def _keep_prefixes(self) -> KeepPrefixes | None:
        """For a worker that is being started; None where no prefixes are kept on disk."""
        if self._options.prefix_disk_gb <= 0:
            return None
        try:
            # Not the one of an earlier start: the files may be others by now.
            model = await asyncio.to_thread(self.model_fingerprint)
        except (OSError, UserError):
            # The worker has more to say about that.
            return None
        most_bytes = int(self._options.prefix_disk_gb * 2**30)
        return KeepPrefixes(f"{self.name} {model}", self.models[0], most_bytes)

    def _note_death(self, how: str) -> None:  # noqa: B027 - most have nothing to do about it
        """The worker's process has ended by itself, and another is started with ``self._options``."""

    def _note_ready(self, ready: Ready) -> None:
        for notice in ready.notices:
            log.warning("embedded engine", notice=notice)
        if ready.steps_from is not None:
            log.info(
                "embedded engine", max_rows=ready.max_rows, step_tokens=ready.step_tokens, because=ready.steps_from
            )
        self._limits = StepLimits(ready.step_tokens, ready.max_rows)
        if ready.computing is not None:
            log.info("embedded engine", computes_on=ready.computing.on, advice=ready.computing.advice)
        self.capabilities = _capabilities(self._options, ready)


def _capabilities(options: EmbeddedOptions, ready: Ready | None) -> Capabilities:
    rows = ready.max_rows if ready else options.max_rows or DEFAULT_LIMITS.max_rows
    return Capabilities(
        # Twice the rows that are computed at a time: a step that ends many rows is followed by the next at once, which
        # is full only if others are waiting in the worker already.
        slots=2 * rows,
        parameters=_PARAMETERS,
        context_length=ready.context_length if ready else None,
        interactive_slots=rows,
        endpoints=frozenset({EMBEDDINGS}) if ready and ready.embeds else frozenset({CHAT, COMPLETIONS, SCORE}),
        computing=ready.computing if ready else None,
        content_parts=frozenset({"text", "image_url"}) if ready and ready.sees else frozenset({"text"}),
    )
