"""Serving the application on a port, until a signal says stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import uvicorn

from gristmill.access.gate import Gate
from gristmill.access.host_rules import AccessRules
from gristmill.api.app import create_app
from gristmill.api.connection import KEEP_ALIVE_SECONDS, ClientConnection
from gristmill.batches.host import BatchHost, HostSettings
from gristmill.tasks import supervised
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.service_manager import ServiceManager, service_manager
from gristmill.user_error import NotNow, UserError

log = get_logger(__name__)

#: File descriptors for the engine's connections, databases, blobs and logs.
_OTHER_DESCRIPTORS = 1024
#: What a stop takes at most besides the grace of what is in flight: clients that read, the engine, the database.
_STOP_SECONDS = 60.0


class ServerSettings(NamedTuple):
    """``port`` 0 takes any free one. For ``allowed_hosts`` and ``allowed_origins`` see ``access.AccessRules``."""

    address: str
    port: int
    host: HostSettings
    allowed_hosts: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()
    max_connections: int = 1024
    #: Whether callers need a key.
    keys: bool = False
    #: Whether one is made where there was never any.
    first_key: bool = True


class Started(NamedTuple):
    """``first_key``: the admin's key that was made just now, which nobody is told again. ``keys``: how many are valid;
    None where nobody needs one."""

    base_url: str
    first_key: str | None
    keys: int | None


def serve(settings: ServerSettings, ready: Callable[[Started], None]) -> None:
    """Serve until SIGTERM or SIGINT; returns with everything stored. ``ready`` is told where, and of keys.

    Raises UserError for wrong settings, and NotNow for what another start may find mended.
    """
    with _listen(settings.address, settings.port) as listener, asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_serve(settings, listener, ready))


async def _serve(settings: ServerSettings, listener: socket.socket, ready: Callable[[Started], None]) -> None:
    host = BatchHost(settings.host)
    manager = service_manager()
    telling = supervised("service manager", lambda: manager.beat(lambda: host.status_line))
    try:
        await _serve_host(host, settings, listener, manager, ready)
    finally:
        telling.cancel()
        manager.close()


async def _serve_host(
    host: BatchHost,
    settings: ServerSettings,
    listener: socket.socket,
    manager: ServiceManager,
    ready: Callable[[Started], None],
) -> None:
    rules = AccessRules.of(settings.address, settings.allowed_hosts, settings.allowed_origins)
    await host.start()
    # What exists now stays. To walk through it at every full collection would stop the event loop for a tenth of a
    # second each two thousand rows (measured by benchmarks/http_overhead).
    gc.collect()
    gc.freeze()
    gate = Gate(host.storage.metadata) if settings.keys else None
    app = create_app(host, rules, gate)
    try:
        app.state.scoring_jobs.start()
        config = uvicorn.Config(
            app,
            http=_connection_class(settings.max_connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=5,
        )
        logging.getLogger("uvicorn.error").addFilter(_log_once)
        server = _Server(config, manager.ready)

        def stopping() -> None:
            manager.stopping(settings.host.stop_grace + _STOP_SECONDS)
            app.state.dashboard.streams.close()

        _stop_on_signals(server, stopping)
        address, port = listener.getsockname()[:2]
        base_url = f"http://{f'[{address}]' if ':' in address else address}:{port}/v1"
        first_key = await gate.keyring.add_first() if gate is not None and settings.first_key else None
        ready(Started(base_url, first_key, await gate.keyring.count() if gate is not None else None))
        await server.serve(sockets=[listener])
    finally:
        await app.state.background_responses.close()
        await app.state.scoring_jobs.close()
        await host.stop()


def _connection_class(max_connections: int) -> type[ClientConnection]:
    """With room for the descriptors that connections take, where the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + _OTHER_DESCRIPTORS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limit = min(max_connections, max(soft - _OTHER_DESCRIPTORS, soft // 2))
    if limit < max_connections:
        log.warning("fewer connections, for want of file descriptors", connections=limit, descriptors=soft)
    return type("ClientConnection", (ClientConnection,), {"max_connections": limit})


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again before the work in flight is stored. ``answers`` is called
    once requests are answered."""

    def __init__(self, config: uvicorn.Config, answers: Callable[[], None]) -> None:
        super().__init__(config)
        self._answers = answers

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._answers()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, ClientConnection):
                    connection.check(now)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _log_once(record: logging.LogRecord) -> bool:
    """An answer that fails in the middle has been logged with its cause (``boundary``); uvicorn tells of it again."""
    return record.getMessage() != "ASGI callable returned without completing response."


def _stop_on_signals(server: uvicorn.Server, stopping: Callable[[], None]) -> None:
    def stop() -> None:
        stopping()
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _kind_of(error)(_why_not(error, address, port)) from None
    return listener


def _kind_of(error: OSError) -> type[UserError]:
    """A name that is looked up before the network is up may be known later; one that nobody knows is a wrong one."""
    if isinstance(error, socket.gaierror):
        return NotNow if error.errno == socket.EAI_AGAIN else UserError
    return UserError if error.errno == errno.EACCES else NotNow


def _why_not(error: OSError, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken by another program: stop it, or choose another port with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than you have: choose one above 1023 with --port."
    return f"Cannot listen on {address}: {error.strerror or error}. Use an address of this machine with --host."
