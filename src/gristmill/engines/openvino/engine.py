"""The embedded engine, as the rest of Gristmill sees it. The model itself lives in a process of its own."""

from __future__ import annotations

import asyncio

from gristmill.engines.openvino.options import OpenVinoOptions
from gristmill.engines.openvino.process import WorkerProcess
from gristmill.engines.protocol import (
    Capabilities,
    Completion,
    EngineError,
    ErrorKind,
    LabelRequest,
    LabelScores,
    OnText,
    Request,
    check_parameters,
    unknown_model,
)
from gristmill.models.checked_file import sha256_of
from gristmill.models.locate import locate
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import FORCED_TOKENS
from gristmill.user_error import UserError

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

    def __init__(self, options: OpenVinoOptions, model: str | None = None) -> None:
        self._options = options
        self._source = model or DEFAULT_MODEL
        self._worker: WorkerProcess | None = None
        self._starting = asyncio.Lock()
        self._stopped = False
        self._fingerprint: str | None = None
        self.models: tuple[str, ...] = (self._source,)
        self.capabilities = Capabilities(_slots(options), _PARAMETERS, reports_cached_tokens=True)

    async def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = await asyncio.to_thread(_fingerprint, self._source, self._options)
        return self._fingerprint

    async def start(self) -> None:
        """Loads the model; the first time a GGUF file is used it is converted, which takes a while. Raises
        UserError when the model is not on this machine or cannot be used."""
        self.models = (locate(self._source).name,)
        self._stopped = False
        await self._running_worker()

    async def stop(self) -> None:
        self._stopped = True
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()

    async def complete(self, request: Request, on_text: OnText | None = None) -> Completion:
        if request.model not in self.models:
            raise unknown_model(request.model, self.models)
        check_parameters(request, self.capabilities, self.name)
        worker = await self._running_worker()
        completion = await worker.complete(request, on_text)
        FORCED_TOKENS.inc(completion.forced_tokens)
        return completion

    async def score(self, request: LabelRequest) -> LabelScores:
        if request.model not in self.models:
            raise unknown_model(request.model, self.models)
        worker = await self._running_worker()
        return await worker.score(request)

    async def _running_worker(self) -> WorkerProcess:
        """The worker; a dead one is replaced, once however many requests ask."""
        async with self._starting:
            if self._stopped:
                raise EngineError(ErrorKind.UNAVAILABLE, "The embedded engine has been stopped.", status=503)
            if self._worker is None or not self._worker.alive:
                try:
                    self._worker, ready = await WorkerProcess.start(self._source, self._options)
                except UserError as error:
                    if self._worker is None:
                        raise
                    raise EngineError(ErrorKind.UNAVAILABLE, str(error), status=503) from error
                if ready.fallback:
                    log.warning("slower attention", kernel="openvino", because=ready.fallback)
                self.capabilities = Capabilities(
                    _slots(self._options), _PARAMETERS, True, context_length=ready.context_length
                )
            return self._worker


def _fingerprint(source: str, options: OpenVinoOptions) -> str:
    """The files of the model, and what changes how it computes."""
    path = locate(source).path
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    digests = " ".join(f"{each.name}={sha256_of(each)}" for each in files)
    return f"openvino {options.weights} {options.attention} {digests}"


def _slots(options: OpenVinoOptions) -> int:
    """Twice the rows that are computed at a time: a step that ends many rows is followed by the next at once, which
    is full only if others are waiting in the worker already."""
    return 2 * options.max_rows
