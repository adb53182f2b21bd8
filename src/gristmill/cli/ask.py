"""``gristmill ask``: one question, answered here or by a server, as it comes."""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli import config, show, stdio
from gristmill.cli.progress_view import ProgressView
from gristmill.telemetry import log
from gristmill.user_error import UserError

if TYPE_CHECKING:
    # Imported where it is used: a server is asked without an engine.
    from gristmill.dispatch.dispatcher import Dispatcher
    from gristmill.engines.protocol import Completion
    from gristmill.engines.registry import EngineSettings
    from gristmill.wire.chat import ChatCompletionRequest

#: Seconds without anything on standard input after which it is said that it is waited for.
_PATIENCE = 2.0


def ask(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="What is piped in comes after it; -: that alone is the question.")
    ],
    system: Annotated[str | None, typer.Option(help="A system message before the question.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The most tokens of the answer.")] = None,
    server: Annotated[
        str | None, typer.Option(envvar="GRISTMILL_SERVER", help="Ask this server instead of an engine here.")
    ] = None,
    engine: config.EngineName = config.AUTOMATIC,
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    request_timeout: config.RequestTimeout = 600.0,
    wait: config.Wait = "30m",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole chat completion as JSON.")] = False,
    log_level: config.LogLevel = "warning",
) -> None:
    """Ask one question; the answer goes to standard output as it comes."""
    log.configure(config.check_log_level(log_level))
    start_wait = config.wait_seconds(wait, "--wait")
    body: dict[str, Any] = {"messages": _messages(system, _whole(question))}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    out = _PrintedAnswer(silent=as_json)
    try:
        if server is not None:
            finish_reason = _ask_server(server, model, body, out, as_json)
        else:
            settings = config.settled(config.engine_settings(engine, model, url, engine_option))
            finish_reason = asyncio.run(_ask_engine(settings, body, out, as_json, request_timeout, start_wait))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        out.end()
    if finish_reason == "length" and not as_json:
        limit = "--max-tokens allows no more" if max_tokens else "the model's context is full"
        show.console.print(f"The answer was cut off: {limit}.")


class _PrintedAnswer:
    """Text to standard output, piece by piece."""

    def __init__(self, silent: bool) -> None:
        self._output = stdio.Output()
        self._silent = silent
        self._open_line = False

    def write(self, text: str) -> None:
        """Raises Exit where nobody reads it any more."""
        if not self._silent and text:
            self._open_line = not text.endswith("\n")
            self._output.write(text.encode("utf-8", "replace"))
            self._output.flush()

    def end(self) -> None:
        if self._open_line:
            self.write("\n")


def _ask_server(server: str, model: str | None, body: dict[str, Any], out: _PrintedAnswer, as_json: bool) -> str | None:
    from gristmill.client import Client

    client = Client(server)
    body["model"] = model or client.only_model()
    if as_json:
        show.print_json(client.chat(body))
        return None
    return client.stream_chat(body, out.write)


async def _ask_engine(
    settings: EngineSettings, body: dict[str, Any], out: _PrintedAnswer, as_json: bool, timeout: float, wait: float
) -> str | None:
    import msgspec

    from gristmill.batches.waiting import start_waits_for, while_told
    from gristmill.dispatch.dispatcher import Dispatcher
    from gristmill.engines.errors import EngineError
    from gristmill.engines.registry import create_engine
    from gristmill.inference.chat import chat_completion
    from gristmill.wire.chat import ChatCompletionRequest

    engine = create_engine(settings)
    with ProgressView() as view:
        await while_told(engine.start(), lambda: start_waits_for(engine), view.waiting, wait)
    try:
        body["model"] = _served(engine.models, settings.model)
        request = msgspec.convert(body, ChatCompletionRequest)
        completion = await _streamed(Dispatcher(engine, timeout=timeout), request, out.write)
    except EngineError as error:
        raise UserError(error.message) from None
    finally:
        await engine.stop()
    if as_json:
        show.print_json(chat_completion(completion))
    return completion.choices[0].finish_reason


async def _streamed(dispatcher: Dispatcher, request: ChatCompletionRequest, write: Callable[[str], None]) -> Completion:
    """Whatever ``write`` raises ends the request, not the engine that decodes."""
    pieces: asyncio.Queue[str | None] = asyncio.Queue()

    async def answer() -> Completion:
        try:
            return await dispatcher.ask_once(request, lambda delta: pieces.put_nowait(delta.text))
        finally:
            pieces.put_nowait(None)

    answering = asyncio.create_task(answer())
    try:
        while (piece := await pieces.get()) is not None:
            write(piece)
        return await answering
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


def _served(models: tuple[str, ...], given: str | None) -> str:
    """What requests call the model; an engine may name it otherwise than the person did."""
    if given in models:
        return str(given)
    if len(models) == 1:
        return models[0]
    raise UserError(f"Say which model to ask, with --model. There are: {', '.join(models) or 'none'}.")


def _messages(system: str | None, question: str) -> list[dict[str, str]]:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": question}]


def _whole(question: str) -> str:
    """With what comes on standard input, where that is not a terminal. Raises UserError."""
    if question == stdio.DASH:
        text = _decoded(stdio.standard_input().read())
    elif sys.stdin.isatty():
        text = question
    else:
        if not select.select([sys.stdin], [], [], _PATIENCE)[0]:
            show.console.print("Waiting for the end of standard input; with nothing to add, start with < /dev/null.")
        text = "\n\n".join(filter(None, (question, _decoded(sys.stdin.buffer.read()).strip("\n"))))
    if not text.strip():
        raise UserError("There is no question: write one, or pipe one in with 'gristmill ask -'.")
    return text


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("Standard input is not UTF-8 text.") from None
