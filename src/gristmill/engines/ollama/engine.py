"""The ollama engine, as the rest of Gristmill sees it."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import msgspec

from gristmill.engines.errors import EngineError, ErrorKind, unavailable, unknown_model
from gristmill.engines.http import Unreachable
from gristmill.engines.ollama import embedding, facts
from gristmill.engines.ollama.answers import PartCollector, whole_deltas
from gristmill.engines.ollama.client import OllamaClient
from gristmill.engines.ollama.load_watch import LoadWatch, held
from gristmill.engines.ollama.prefix_warmup import ROLLBACK_TOKENS, PrefixWarmup
from gristmill.engines.ollama.reloads import ReloadWatch
from gristmill.engines.ollama.residency import Residency
from gristmill.engines.ollama.settings import OllamaOptions, base_url
from gristmill.engines.ollama.structured import Structure
from gristmill.engines.ollama.translation import (
    BEGUN_ANSWERS,
    CONTENT_PARTS,
    PARAMETERS,
    Asked,
    Frozen,
    leaves_open,
    options_in_words,
    render_body,
    translate,
    warmup_body,
)
from gristmill.engines.ollama.wire import (
    ChatBody,
    RenderedPrompt,
    RunningModel,
    RunningModels,
    Show,
    ShowBody,
    Tags,
    Version,
)
from gristmill.engines.parameters import check_parameters
from gristmill.engines.protocol import Capabilities, Completion, EmbeddingRequest, Embeddings, OnDelta, Request
from gristmill.http_values import shown
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import MODEL_RELOADS
from gristmill.user_error import NotNow, UserError

__all__ = ["OllamaEngine", "OllamaOptions"]

log = get_logger(__name__)


class _Running(NamedTuple):
    """Everything that exists between ``start`` and ``stop``."""

    client: OllamaClient
    frozen: Frozen
    residency: Residency
    watch: ReloadWatch
    loading: LoadWatch
    warmup: PrefixWarmup | None


class OllamaEngine:
    """One model of one Ollama server."""

    name = "ollama"

    def __init__(
        self, options: OllamaOptions, url: str | None = None, model: str | None = None, row_tokens: int = 0
    ) -> None:
        """``row_tokens``: what the longest row needs, if known; the context is chosen to hold it."""
        self._options = options
        self._row_tokens = row_tokens
        self._url = base_url(url)
        self._shown = shown(self._url)
        self._model = model or ""
        self._digest = ""
        self._running: _Running | None = None
        self._loading: LoadWatch | None = None
        self._warming = asyncio.Lock()
        self.models: tuple[str, ...] = ()
        self.capabilities = Capabilities(options.parallel, PARAMETERS, content_parts=CONTENT_PARTS)

    @property
    def loads(self) -> int:
        """How often a row found the model not loaded."""
        return self._running.watch.loads if self._running is not None else 0

    @property
    def waiting_for(self) -> str | None:
        """What the engine waits for, at the start or for an answer; None where that is nothing unusual."""
        return self._loading.waiting_for if self._loading is not None else None

    async def start(self) -> None:
        """Check the server and the model, and load it. Raises UserError saying what to do."""
        client = OllamaClient(self._url)
        try:
            self._running = await self._started(client)
        except Unreachable as error:
            raise NotNow(
                f"No Ollama answers at {self._shown}: start it with `ollama serve`; if it runs on another machine, "
                f"start it there with OLLAMA_HOST=0.0.0.0 and let its port through the firewall. ({error.message})"
            ) from None
        except EngineError as error:
            raise NotNow(f"Ollama at {self._shown} cannot be used: {error.message}") from None
        finally:
            if self._running is None:
                await client.close()

    async def fingerprint(self) -> str | None:
        if self._running is None or not self._digest:
            return None
        runner = msgspec.json.encode(self._running.frozen.runner).decode()
        return f"ollama {self._digest} {runner} think={self._running.frozen.think}"

    async def stop(self) -> None:
        """Give the model back the keep_alive it had before."""
        running, self._running = self._running, None
        if running is not None:
            await running.residency.restore()
            await running.client.close()

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        running = self._running
        if running is None:
            raise unavailable("The ollama engine is not running.")
        if request.model not in self.models:
            raise unknown_model(request.model, self.models)
        check_parameters(request, self.capabilities, self.name)
        asked = translate(request, running.frozen, stream=on_delta is not None)
        await self._warm_prefix(running, asked)
        if running.watch.should_look():
            await _look(running)
        # What is read from the whole answer is told at its end.
        at_once = not (asked.structure.choice or asked.forced)
        collector = PartCollector(on_delta if at_once else None, asked.several)
        sent_at = time.monotonic()
        async with running.loading.request():
            await running.client.answer(asked, collector, self.models)
        answered = collector.finish(request.model, asked, running.frozen.num_ctx)
        if on_delta is not None and not at_once:
            for delta in whole_deltas(answered.completion.choices[0]):
                on_delta(delta)
        if running.watch.row(answered.load_seconds, sent_at, time.monotonic()):
            await self._reloaded(running, answered.load_seconds)
        return answered.completion

    async def embed(self, request: EmbeddingRequest, *, interactive: bool = False) -> Embeddings:
        running = self._running
        if running is None:
            raise unavailable("The ollama engine is not running.")
        if request.model not in self.models:
            raise unknown_model(request.model, self.models)
        body = embedding.embed_body(request, running.frozen)
        if running.watch.should_look():
            await _look(running)
        sent_at = time.monotonic()
        async with running.loading.request():
            try:
                data = await running.client.embed(body, self.models)
            except EngineError as error:
                raise embedding.refused(error, running.frozen.num_ctx) from None
        answer, load_seconds = embedding.read_embeddings(request, data)
        if running.watch.row(load_seconds, sent_at, time.monotonic()):
            await self._reloaded(running, load_seconds)
        return answer

    async def _started(self, client: OllamaClient) -> _Running:
        version = await _version(client)
        facts.check_version(version)
        await self._check_model(client)
        model = facts.model_facts(await client.ask("/api/show", Show, ShowBody(self._model)), self._model)
        found = facts.find_running((await client.ask("/api/ps", RunningModels)).models, self._model)
        num_ctx = facts.choose_num_ctx(self._options.num_ctx, model, found, self._row_tokens)
        frozen = Frozen(
            model=self._model,
            runner=facts.runner_options(self._options, num_ctx),
            num_ctx=num_ctx,
            stops=model.stops,
            think=self._options.think if model.thinks else None,
            default_num_predict=self._options.num_predict,
            abilities=model.abilities,
        )
        residency = Residency(client, frozen, found)
        loaded = await self._load(client, residency)
        frozen = frozen._replace(num_ctx=_loaded_num_ctx(num_ctx, loaded))
        full = facts.full_name(self._model)
        # Requests may name the model either way, as they may on Ollama.
        self.models = tuple(dict.fromkeys((self._model, full, full.removesuffix(":latest"))))
        begun = BEGUN_ANSWERS if frozen.generates and await _begins_answers(client, frozen) else frozenset()
        self.capabilities = msgspec.structs.replace(
            self.capabilities,
            parameters=PARAMETERS | begun,
            context_length=frozen.num_ctx,
            endpoints=model.endpoints,
        )
        log.info("ollama ready", url=self._shown, version=version, model=self._model, num_ctx=frozen.num_ctx)
        loading = self._loading = LoadWatch(client, self._model)
        slides = model.sliding_window is not None and self._options.prefix_warmup
        warmup = PrefixWarmup(self._options.num_batch or ROLLBACK_TOKENS) if slides else None
        return _Running(client, frozen, residency, ReloadWatch(self._model, frozen.num_ctx), loading, warmup)

    async def _load(self, client: OllamaClient, residency: Residency) -> RunningModel | None:
        """Load the model, saying meanwhile what that waits for. Raises UserError once ``load_timeout`` is over."""
        timeout = self._options.load_timeout
        self._loading = LoadWatch(client, self._model, patience=0.0)
        try:
            async with self._loading.request(), asyncio.timeout(timeout):
                return await residency.load()
        except TimeoutError:
            running = (await client.ask("/api/ps", RunningModels)).models
            raise NotNow(
                f"Ollama at {self._shown} has not loaded '{self._model}' within {timeout:g} seconds{held(running)}. "
                "If it only needs longer, raise the option load_timeout."
            ) from None

    async def _check_model(self, client: OllamaClient) -> None:
        models = (await client.ask("/api/tags", Tags)).models
        names = [each.name for each in models]
        full = facts.full_name(self._model)
        self._digest = next((each.digest for each in models if facts.full_name(each.name) == full), "")
        has = f"It has: {', '.join(names)}." if names else "It has none yet: get one with `ollama pull gemma3`."
        if not self._model:
            raise UserError(f"Say which model Ollama at {self._shown} should use, with --model. {has}")
        if full not in map(facts.full_name, names):
            raise UserError(
                f"Ollama at {self._shown} has no model '{self._model}': get it with `ollama pull {self._model}`. {has}"
            )

    async def _warm_prefix(self, running: _Running, asked: Asked) -> None:
        """Before a group's second long row: its common start, once on each slot at the same time."""
        if running.warmup is None or not isinstance(asked.body, ChatBody) or not asked.body.only_text:
            return
        async with self._warming:  # rows of the group that come meanwhile wait for it
            due = running.warmup.due(asked.body.messages, asked.num_predict)
            if due is None:
                return
            body = warmup_body(running.frozen, due)
            text = "".join(message.content for message in due)
            one = Asked("/api/chat", body, text, 1, Structure(), logprobs=False)
            tries = (running.client.answer(one, PartCollector(), self.models) for _ in range(self._options.parallel))
            # It only saves time: the row itself will show what is wrong.
            await asyncio.gather(*tries, return_exceptions=True)

    async def _reloaded(self, running: _Running, load_seconds: float) -> None:
        MODEL_RELOADS.inc()
        if running.warmup is not None:
            running.warmup.forget()
        await _look(running)
        log.info("Ollama loaded the model again", model=self._model, seconds=round(load_seconds, 1), loads=self.loads)
        cause = running.watch.warning()
        if cause is not None:
            log.warning(
                "Ollama reloads the model again and again: each time costs seconds and the prefix cache",
                model=self._model, loads=self.loads, frozen_options=options_in_words(running.frozen), cause=cause,
            )  # fmt: skip


async def _begins_answers(client: OllamaClient, frozen: Frozen) -> bool:
    """Whether the model goes on with a last message of the assistant's; its template decides, so it is looked at."""
    try:
        return leaves_open(await client.ask("/api/chat", RenderedPrompt, render_body(frozen)))
    except EngineError:
        return False  # a template that wants another order of messages, or a server without such a call


async def _version(client: OllamaClient) -> str:
    try:
        return (await client.ask("/api/version", Version)).version
    except Unreachable:
        raise
    except EngineError as error:
        kind = UserError if error.kind is ErrorKind.INVALID_REQUEST else NotNow
        raise kind(
            f"What answers at {client.url} is not Ollama: check --url, or use another engine. ({error.message})"
        ) from None


async def _look(running: _Running) -> None:
    """Note what Ollama has loaded. It is for the log only, so a failure is none of the row's."""
    try:
        running.watch.looked((await running.client.ask("/api/ps", RunningModels)).models)
    except EngineError:
        pass


def _loaded_num_ctx(asked: int, loaded: RunningModel | None) -> int:
    """What one request may use, in tokens: what the server says it loaded, which is not always what was asked."""
    if loaded is None or loaded.context_length in (None, asked):
        return asked
    log.warning("Ollama loaded the model with another context", asked=asked, loaded=loaded.context_length)
    return loaded.context_length or asked
