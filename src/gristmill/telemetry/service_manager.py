"""What a service manager such as systemd is told of this process: ready, alive, how it goes, stopping.

The protocol is sd_notify(3): datagrams of NAME=value lines to the socket named by ``NOTIFY_SOCKET``. Podman speaks it.
Ours, because the packages for it send blocking, raise where the socket has gone, or have not been kept for years.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping

from gristmill.printable import printable
from gristmill.telemetry.log import get_logger

log = get_logger(__name__)

#: How often it is told how things go.
BEAT_SECONDS = 5.0
#: systemd reads no more of a datagram than PIPE_BUF, 4,096 bytes; characters here, each of up to four.
_LONGEST_STATUS = 900
#: While it starts, a process that is alive is given this much longer at each beat.
STARTING_SECONDS = 60.0


class ServiceManager:
    """``address``: the socket's; empty: nobody is told anything. ``watchdog_seconds``: the manager ends a process that
    has not said for so long that it is alive; None: it never does.

    What cannot be delivered is tried again at the next beat: the manager may be busy, or be replaced by a new one, and
    nothing of that is a reason to stop serving.
    """

    def __init__(self, address: str, watchdog_seconds: float | None = None) -> None:
        # An abstract socket is written with @ for its first byte, which is null.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        self._watched = watchdog_seconds is not None
        # Half the time is what systemd advises; a third lets one be late.
        self._pause = min(BEAT_SECONDS, (watchdog_seconds or BEAT_SECONDS) / 3)
        self._untold: dict[str, object] = {}
        self._started = False
        self._stopping = False

    def ready(self) -> None:
        """From now on requests are answered."""
        self._started = True
        self._tell(READY=1, STATUS="Ready.")

    def stopping(self, seconds: float) -> None:
        """It may take up to ``seconds`` until the process has ended."""
        self._stopping = True
        self._tell(STOPPING=1, STATUS="Stopping.", EXTEND_TIMEOUT_USEC=_microseconds(seconds))

    async def beat(self, status: Callable[[], str]) -> None:
        """For ever, in the event loop that does the work: that this runs is what shows that it is alive. ``status`` is
        what to say of it in a sentence."""
        while self._socket is not None:
            if not self._started:
                # Loading a large model takes as long as it takes.
                self._tell(EXTEND_TIMEOUT_USEC=_microseconds(STARTING_SECONDS))
            elif self._watched:
                self._tell(WATCHDOG=1)
            try:
                said = f"Stopping. {status()}" if self._stopping else status()
                self._tell(STATUS=printable(said)[:_LONGEST_STATUS])
            except Exception as error:
                # Not to know what to say is no reason to be ended.
                log.error("the service manager is not told how it goes", exc_info=error)
            await asyncio.sleep(self._pause)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _tell(self, **state: object) -> None:
        if self._socket is None:
            return
        self._untold |= state
        message = "\n".join(f"{name}={value}" for name, value in self._untold.items())
        try:
            self._socket.sendto(message.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            log.debug("the service manager cannot be told", reason=str(error))
        else:
            self._untold.clear()


def service_manager(environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
    """The one that started this process, if any. Its variables are taken out: processes that we start are not its."""
    address = environment.pop("NOTIFY_SOCKET", "")
    interval, process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not address.startswith(("/", "@")) or len(address) < 2:
        return ServiceManager("")
    watched = interval.isdecimal() and int(interval) > 0 and process in ("", str(os.getpid()))
    return ServiceManager(address, int(interval) / 1e6 if watched else None)


def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6)
