"""Whether PostgreSQL's server answers.

A server that is stopped, or behind a network that swallows what is sent, breaks no connection, and cannot end a
statement that takes too long either: whoever waits for it would wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import psycopg
from psycopg.pq import DiagnosticField

from gristmill.storage.errors import StorageError
from gristmill.storage.sql.postgresql_address import PostgresqlAddress
from gristmill.storage.sql.postgresql_errors import ConnectionLost, Passing, no_connection
from gristmill.telemetry.log import get_logger

T = TypeVar("T")

log = get_logger(__name__)

#: What passes by itself, such as a restart of the server, is tried again for this long, counted from when the server
#: last answered: once it has been away for longer, nobody waits any more until it is back. In seconds, as all here.
PATIENCE = 15.0
_PAUSE = 0.05
#: Who has waited so long lets the server be asked whether it is there.
_SILENCE = 5.0
#: It has so long to take a connection and answer on it: a new process of the server's, on a machine that is busy.
_ANSWER = 10
_LOOK = 1.0

#: The class of codes by which a pooler says that it reaches no server.
_OF_CONNECTIONS = b"08"

_HUNG = (
    f"The database server has answered nobody for {_SILENCE + _ANSWER:g} seconds, though no connection broke: see "
    "whether it hangs, or the network swallows what is sent."
)


class _Wait(NamedTuple):
    driver: psycopg.Connection
    since: float


class _Server(NamedTuple):
    host: str
    hostaddr: str
    port: int


class _Away(NamedTuple):
    """``since`` is on the monotonic clock; ``found``: it was found out here, by asking, and no connection broke."""

    since: float
    reason: str
    found: bool


class Liveness:
    """Of the server at ``address``. A thread looks after those who wait for it, and after a server that is away."""

    def __init__(self, address: PostgresqlAddress) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._waiting: dict[int, _Wait] = {}
        self._away: _Away | None = None
        self._away_is_logged = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watched(self, driver: psycopg.Connection) -> Iterator[None]:
        """Within it, the connection is broken when the server answers nobody any more."""
        with self._lock:
            self._waiting[id(driver)] = _Wait(driver, time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_after, name="sql-liveness", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[id(driver)]
        self._answered()

    def note(self, error: StorageError, since: float) -> StorageError:
        """What to tell of an ``error``; if it is that the server is away, it has been ``since`` then."""
        if not isinstance(error, ConnectionLost):
            return error
        with self._lock:
            if self._away is None:
                self._away = _Away(since, str(error), found=False)
            return ConnectionLost(self._away.reason) if self._away.found else error

    def patience_ends(self) -> float:
        """For who begins to wait now, on the monotonic clock."""
        with self._lock:
            return (time.monotonic() if self._away is None else self._away.since) + PATIENCE

    def require(self) -> None:
        """Raises ConnectionLost, with nothing tried, where the server has been away for long."""
        with self._lock:
            away = self._away
        if away is not None and time.monotonic() >= away.since + PATIENCE:
            raise ConnectionLost(away.reason)

    def patiently(self, work: Callable[[], T]) -> T:
        """``work()``, repeated while it raises Passing, until patience ends; in the thread that it is asked of, so that
        nothing that is asked for later comes before it."""
        deadline = self.patience_ends()
        pause = _PAUSE
        while True:
            try:
                return work()
            except Passing:
                if time.monotonic() + pause > min(deadline, self.patience_ends()):
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def close(self) -> None:
        self._closed.set()

    def _look_after(self) -> None:
        while not self._closed.wait(_LOOK):
            try:
                self._look()
            except Exception as error:
                log.error("cannot look whether the database server answers", exc_info=error)

    def _look(self) -> None:
        silent = self._silent()
        if silent:
            # The very servers that somebody waits for, where there are several.
            servers = {_server_of(each.driver) for each in silent}
            for server in servers:
                if server is not None and (reason := self._silence_of(server)) is not None:
                    self._give_up(server, reason)
        elif self._away is not None and self._answers():
            self._answered()
        if self._away is not None and not self._away_is_logged and time.monotonic() > self._away.since + _SILENCE:
            self._away_is_logged = True
            log.warning("the database server is away", reason=self._away.reason)

    def _silent(self) -> list[_Wait]:
        before = time.monotonic() - _SILENCE
        with self._lock:
            return [each for each in self._waiting.values() if each.since <= before]

    def _give_up(self, server: _Server, reason: str) -> None:
        silent = [each for each in self._silent() if _server_of(each.driver) == server]
        if not silent:
            return
        with self._lock:
            self._away = _Away(min(each.since for each in silent), reason, found=True)
            for each in silent:
                # One that has been answered meanwhile may be anybody's by now.
                if self._waiting.get(id(each.driver)) == each:
                    break_off(each.driver)

    def _answered(self) -> None:
        if self._away is None:
            return
        with self._lock:
            self._away = None
            told, self._away_is_logged = self._away_is_logged, False
        if told:
            log.info("the database server answers again")

    def _silence_of(self, server: _Server) -> str | None:
        """Why those who wait for it are to wait no more; None where it is there."""
        where = {name: value for name, value in server._asdict().items() if value} | {"connect_timeout": _ANSWER}
        try:
            self._ask(**where)
        except ConnectionLost as lost:
            return str(lost)
        except psycopg.Error as error:
            # A server that has no connection left, or takes this user no more, does not hang.
            return None if self._address.is_refused(error, **where) else _HUNG
        return None

    def _answers(self) -> bool:
        try:
            self._ask(connect_timeout=_ANSWER)
        except (psycopg.Error, ConnectionLost):
            return False
        return True

    def _ask(self, **changed: object) -> None:
        """Returns once it says anything. Raises ConnectionLost where it does not in time, or what answers is a pooler
        that reaches no server, and what psycopg raises where there is no connection."""
        with contextlib.closing(self._address.connect(**changed)) as connection:
            # Also of a pooler that is there, while the server behind it is not.
            connection.pgconn.send_query(b"SELECT 1")
            connection.pgconn.flush()
            poll = select.poll()
            poll.register(connection.fileno(), select.POLLIN)
            deadline = time.monotonic() + _ANSWER
            while connection.pgconn.is_busy():
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise ConnectionLost(_HUNG)
                connection.pgconn.consume_input()
            answer = connection.pgconn.get_result()
            if answer is None or (answer.error_field(DiagnosticField.SQLSTATE) or b"").startswith(_OF_CONNECTIONS):
                said = connection.pgconn.error_message.decode(errors="replace")
                raise no_connection(said.strip().partition("\n")[0])


def _server_of(driver: psycopg.Connection) -> _Server | None:
    """None where the connection has just been closed: nobody waits for it."""
    try:
        return _Server(driver.info.host, driver.info.hostaddr, driver.info.port)
    except psycopg.Error:
        return None


def break_off(driver: psycopg.Connection) -> None:
    """Whoever waits for it in another thread finds that it has ended."""
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(driver.fileno())) as same:
        # Else the number may have been another's when it was copied.
        if not driver.closed:
            same.shutdown(socket.SHUT_RDWR)
