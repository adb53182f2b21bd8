"""Ray's client, in a process of its own: ``python -m gristmill.engines.ray.driver``, frames on standard input and
output.

Ray ends its client's process when the head is lost for good, and connects a process to one cluster only. This one may
end at any time: ours starts it again. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from typing import BinaryIO, NoReturn

from gristmill.engines.ray import cluster, frames
from gristmill.engines.ray.frames import BEAT_SECONDS, Alive, Connect, FromDriver, Leave, Send, Trouble, Waiting
from gristmill.engines.ray.keeper import Keeper
from gristmill.length_prefix import wait_for_body
from gristmill.user_error import UserError

_CONNECT_SECONDS = 30.0
#: After so long without any replica that can be reached, the cluster is taken to be another than was connected to.
_RECONNECT_SECONDS = 5.0


def main() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print to standard output as they like: keep it for frames by moving theirs to standard error.
    target = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    source = sys.stdin.buffer
    connect = _read(source)
    assert isinstance(connect, Connect)
    writing = threading.Lock()

    def emit(frame: FromDriver) -> None:
        data = memoryview(frames.encode(frame))
        with writing:
            while data:
                data = data[target.write(data) :]

    try:
        emit(Waiting(f"the Ray cluster at {connect.address}" if connect.address else "a Ray cluster on this machine"))
        # What is no head of Ray's is waited for by Ray for minutes.
        giving_up = threading.Timer(_CONNECT_SECONDS, _give_up, (connect.address, emit))
        giving_up.daemon = True
        giving_up.start()
        # In the main thread: a cluster of our own ends with the thread that has started it.
        cluster.connect(connect.address)
        giving_up.cancel()
    except UserError as error:
        emit(Trouble("", str(error), True))
        os._exit(1)
    try:
        asyncio.run(_Driver(connect, emit).run(source))
        import ray

        ray.shutdown()
    except BaseException as error:
        traceback.print_exception(error, limit=-3)
    os._exit(0)


def _give_up(address: str, emit: frames.Emit) -> NoReturn:
    if address:
        sentence = (
            f"Nothing at {address} answered as a Ray cluster's head in {_CONNECT_SECONDS:g} seconds: is this its port?"
        )
    else:
        sentence = f"A Ray cluster on this machine did not start within {_CONNECT_SECONDS:g} seconds."
    emit(Trouble("", sentence, True))
    os._exit(1)


class _Driver:
    def __init__(self, connect: Connect, emit: frames.Emit) -> None:
        self._connect = connect
        self._emit = emit
        pool = connect.replica.pool
        self._keepers = {
            f"{pool}-{number}": Keeper(connect, f"{pool}-{number}", emit) for number in range(connect.replicas)
        }

    async def run(self, source: BinaryIO) -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        threading.Thread(target=self._read, args=(source, loop, over), daemon=True).start()
        await self._end_others()
        keeping = [asyncio.create_task(keeper.run()) for keeper in self._keepers.values()]
        others = (self._end_when_cut_off(), self._end_when_replaced(), self._beat())
        keeping += [asyncio.create_task(each) for each in others]
        await over.wait()
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        await asyncio.gather(*(keeper.leave() for keeper in self._keepers.values()), return_exceptions=True)

    async def _beat(self) -> NoReturn:
        while True:
            self._emit(Alive())
            await asyncio.sleep(BEAT_SECONDS)

    async def _end_when_cut_off(self) -> NoReturn:
        """A head that was started anew is that of another cluster, even at the same address, to which this process
        cannot connect any more: the next one can."""
        while True:
            await asyncio.sleep(1.0)
            if all(self._unreachable()):
                sys.stderr.write("No replica can be reached: the cluster is connected to anew.\n")
                os._exit(1)

    async def _end_when_replaced(self) -> NoReturn:
        """Replicas of the cluster before may go on for long, in processes that nobody ends, while those that are lost
        come to be nowhere. Beside ``_end_when_cut_off``, as Ray waits for a head that is away for a minute."""
        while True:
            await asyncio.sleep(1.0)
            if any(self._unreachable()) and await asyncio.to_thread(cluster.is_another):
                sys.stderr.write("The head is that of another cluster, which is connected to anew.\n")
                os._exit(1)

    def _unreachable(self) -> list[bool]:
        """Of each replica, whether it has been for long."""
        since = [keeper.unreachable_since for keeper in self._keepers.values()]
        return [each is not None and time.monotonic() - each > _RECONNECT_SECONDS for each in since]

    def _read(self, source: BinaryIO, loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
        """Until our process has no more to say, or has ended: then nobody is left to use the replicas, either."""
        while isinstance(frame := _read(source), Send):
            loop.call_soon_threadsafe(self._send, frame)
        loop.call_soon_threadsafe(over.set)

    def _send(self, frame: Send) -> None:
        self._keepers[frame.replica].send(frame)

    async def _end_others(self) -> None:
        """Replicas of other settings that nobody uses: they have what is wanted now."""

        async def end_unused(actor: object) -> None:
            async with asyncio.timeout(self._connect.patience.silence):
                if await actor.users.remote() == 0:  # type: ignore[attr-defined]
                    await actor.end.remote()  # type: ignore[attr-defined]
                    await asyncio.to_thread(cluster.end, actor)

        pool, there = self._connect.replica.pool, await asyncio.to_thread(cluster.replicas)
        others = [actor for name, actor in there.items() if not name.startswith(pool)]
        await asyncio.gather(*map(end_unused, others), return_exceptions=True)


def _read(source: BinaryIO) -> frames.ToDriver:
    """Leave where there is no more."""
    body = wait_for_body(source)
    return Leave() if body is None else frames.decode_to_driver(body)


if __name__ == "__main__":
    main()
