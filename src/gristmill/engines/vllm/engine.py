"""The vllm engine: a vLLM server of its own, as the rest of Gristmill sees it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.openai_compatible.engine import OpenAICompatibleEngine
from gristmill.engines.parameters import check_parameters
from gristmill.engines.protocol import (
    Capabilities,
    Completion,
    ForwardedAnswer,
    ForwardRequest,
    OnDelta,
    OnEvent,
    Request,
)
from gristmill.engines.supervision import ProcessSupervisor
from gristmill.engines.vllm.options import VllmOptions
from gristmill.engines.vllm.server import URL, VllmServer
from gristmill.user_error import UserError

__all__ = ["VllmEngine", "VllmOptions"]

T = TypeVar("T")

#: The name of a Unix socket is no longer than 107 bytes.
_LONGEST_FOLDER = 70


class VllmEngine:
    """``model``: a folder, or a name on the hub. While vLLM is started again, requests are refused as unavailable:
    others may be there to answer them."""

    name = "vllm"

    def __init__(self, options: VllmOptions, model: str | None = None) -> None:
        if not model:
            raise UserError("Say which model vLLM is to serve, with --model: a folder, or a name on the model hub.")
        self._options = options
        self._source = model
        self._folder = Path()
        self._supervisor = ProcessSupervisor("vLLM", self._start_server, lambda _: None, lambda _: None, waits=False)
        self._asked_by = self._new_client(None)
        self.models: tuple[str, ...] = (self._served_name(),)

    @property
    def capabilities(self) -> Capabilities:
        return self._asked_by.capabilities

    @property
    def down_reason(self) -> str | None:
        return self._supervisor.down_reason

    async def fingerprint(self) -> None:
        """It names its model, but does not tell which weights those are."""

    async def start(self) -> None:
        """Loads the model. Raises UserError when it cannot."""
        if importlib.util.find_spec("vllm") is None:
            raise UserError(f"vLLM is not installed for {sys.executable}: run {sys.executable} -m pip install vllm.")
        if self._is_folder and not os.path.exists(self._source):  # noqa: ASYNC240, PTH110 - one look
            raise UserError(f"There is no model {self._source} on {os.uname().nodename}.")
        temporary = tempfile.gettempdir()
        self._folder = Path(
            tempfile.mkdtemp(prefix="gristmill-vllm-", dir=temporary if len(temporary) < _LONGEST_FOLDER else "/tmp")
        )
        try:
            await self._supervisor.start()
            self._asked_by = self._new_client(str(self._folder / "socket"))
            await self._asked_by.start()
        except BaseException:
            await self.stop()
            raise
        self.models = self._asked_by.models

    async def stop(self) -> None:
        await self._asked_by.stop()
        await self._supervisor.stop()
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        check_parameters(request, self.capabilities, self.name)
        return await self._counted(lambda: self._asked_by.complete(request, on_delta, interactive=interactive))

    async def forward(
        self, request: ForwardRequest, on_event: OnEvent | None = None, *, interactive: bool = False
    ) -> ForwardedAnswer:
        return await self._counted(lambda: self._asked_by.forward(request, on_event, interactive=interactive))

    async def _counted(self, ask: Callable[[], Awaitable[T]]) -> T:
        server = await self._supervisor.worker()
        try:
            answer = await ask()
        except EngineError as error:
            server.answered += error.kind is ErrorKind.INVALID_REQUEST
            raise
        server.answered += 1
        return answer

    async def _start_server(self) -> tuple[VllmServer, None]:
        # The last of a flag is what counts, so that the user's are.
        arguments = ["serve", self._source, "--served-model-name", self._served_name()]
        arguments += ["--enable-prefix-caching", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
        arguments += self._options.command_line()
        server = await VllmServer.start(arguments, self._folder / "socket", self._options.start_timeout)
        return server, None

    def _new_client(self, socket: str | None) -> OpenAICompatibleEngine:
        return OpenAICompatibleEngine(self._options.asking(), URL, self._served_name(), socket)

    def _served_name(self) -> str:
        """What requests call the model."""
        named = self._options.arguments.get("served_model_name")
        return named or (Path(self._source).name if self._is_folder else self._source)

    @property
    def _is_folder(self) -> bool:
        return self._source.startswith((".", "/"))
