"""A connection that hears (LISTEN) what other servers tell (NOTIFY) of batches, where one can.

It is a hint only: whoever misses it finds the same by looking, a little later. So nothing waits for this connection,
and what happens to it is no fault; it is opened again, less and less often while that fails.

NOTIFY takes a lock of the whole database server until its transaction has ended. What tells here holds the lock of
all metadata already, and there are a few of it in the life of a batch; what stores results tells nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import select
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
from psycopg.pq import PGnotify
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from gristmill.storage.errors import StorageError
from gristmill.storage.sql.postgresql_address import PostgresqlAddress
from gristmill.storage.sql.postgresql_liveness import Liveness, break_off
from gristmill.telemetry.log import get_logger

log = get_logger(__name__)

# Channels are a database's: two Gristmills in one have tables in a schema each.
_OF_SCHEMA = "FROM pg_namespace WHERE nspname = current_schema()"
_FACTS = f"SELECT pg_backend_pid(), 'gristmill_' || oid::text {_OF_SCHEMA}"
# With a queue that is full, as some listener of anybody's has hung for long, no transaction that tells is committed.
_TELL = text(
    f"SELECT pg_notify('gristmill_' || oid::text, CAST(:payload AS text)) {_OF_SCHEMA}"
    " AND pg_notification_queue_usage() < 0.5"
)
_PROVE = text("SELECT pg_notify(CAST(:channel AS text), '')")

#: Before it is opened again, in seconds, as all here; doubled each time that it ends soon.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
#: After so long in which nothing was heard, it is to prove anew that something would be.
_PROOF_LASTS = 60.0
_PROOF_TAKES = 10.0
_ENDS_IN = 1.0


def tell(connection: Connection, batch_id: str) -> None:
    """Whoever listens, once the transaction is committed."""
    connection.execute(_TELL, {"payload": batch_id})


class _Deaf(Exception):
    """What is told elsewhere does not arrive; why, in words."""


class Listener:
    """``transaction`` runs its argument in one, on any of the connections that tell. ``heard`` is called in the event
    loop with the id of a batch that was told of, or None where something may have been missed."""

    def __init__(
        self,
        address: PostgresqlAddress,
        liveness: Liveness,
        transaction: Callable[[Callable[[Connection], object]], object],
        heard: Callable[[str | None], None],
    ) -> None:
        self._address = address
        self._liveness = liveness
        self._transaction = transaction
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._connection: psycopg.Connection | None = None
        self._deaf_is_logged = False
        self._thread = threading.Thread(target=self._run, name="sql-listen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Its thread may still be in a transaction: see ``join``."""
        with self._lock:
            self._closed.set()
            if self._connection is not None:
                break_off(self._connection)

    def join(self) -> None:
        """Until its thread has ended, but not for long, as that may be waiting for a server that is away."""
        self._thread.join(_ENDS_IN)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                self._listen()
            except _Deaf as deaf:
                self._note_deaf(str(deaf))
            except (psycopg.Error, DBAPIError, StorageError) as error:
                log.debug("does not hear of batches for a while", reason=str(error))
            except Exception as error:
                if not self._closed.is_set():
                    log.error("cannot listen for batches", exc_info=error)
            if time.monotonic() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            # Not all servers at the same time, when the database is back.
            self._closed.wait(random.uniform(0.5, 1) * pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _listen(self) -> None:
        """Until it is closed. Raises _Deaf, and whatever says that the connection or the database is away."""
        with contextlib.closing(self._address.connect()) as connection:
            with self._lock:
                self._connection = connection
            if self._closed.is_set():
                return
            with self._liveness.watched(connection):
                own = self._subscribe(connection)
            while not self._closed.is_set():
                self._require_proof(connection, own)
                if self._deaf_is_logged:
                    self._deaf_is_logged = False
                    log.info("hears of batches at once")
                # Of what was told before it listened, or while it waited for its own.
                self._pass_on(None)
                self._hear(connection)

    def _subscribe(self, connection: psycopg.Connection) -> str:
        """To what is told of batches, and to a channel of its own, which is returned."""
        facts = connection.execute(_FACTS).fetchone()
        assert facts is not None
        if facts[0] != connection.info.backend_pid:
            # Nothing may be left on a connection of the pooler's, which is somebody else's in a moment.
            raise _Deaf("a pooler, such as pgbouncer, is between here and the database server")
        own = f"{facts[1]}_{secrets.token_hex(8)}"
        connection.execute(f"LISTEN {facts[1]}; LISTEN {own}".encode())
        return own

    def _require_proof(self, connection: psycopg.Connection, channel: str) -> None:
        self._transaction(lambda telling: telling.execute(_PROVE, {"channel": channel}))
        for heard in _notifications(connection, _PROOF_TAKES):
            if heard.relname.decode() == channel:
                return
        raise _Deaf("a notification that it sent itself did not arrive: the URL leads to different servers")

    def _hear(self, connection: psycopg.Connection) -> None:
        """Until nothing has been heard for long."""
        silent = False
        while not silent:
            silent = True
            for notification in _notifications(connection, _PROOF_LASTS):
                silent = False
                self._pass_on(notification.extra.decode())

    def _pass_on(self, batch_id: str | None) -> None:
        # What is heard in the last moment, nobody needs any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._heard, batch_id)

    def _note_deaf(self, reason: str) -> None:
        if not self._deaf_is_logged and not self._closed.is_set():
            self._deaf_is_logged = True
            log.info("does not hear of batches at once, and looks for them from time to time", reason=reason)


def _notifications(connection: psycopg.Connection, seconds: float) -> Iterator[PGnotify]:
    """Those that come within so many seconds. Raises psycopg.Error where the connection ends."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1000)
        connection.pgconn.consume_input()
        while (found := connection.pgconn.notifies()) is not None:
            yield found
