"""Standard error as the worst reader makes it: it does not read, it goes away, its disk is full."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import Counter

from gristmill.telemetry.line_writer import MAX_LINE, MAX_WAITING, LineWriter


class Pipe:
    """``stream`` writes into it."""

    def __init__(self) -> None:
        self.read_end, write_end = os.pipe()
        self.stream = io.TextIOWrapper(open(write_end, "wb", buffering=0), encoding="utf-8")  # noqa: PTH123, SIM115

    def read_until(self, end: bytes) -> bytes:
        found = b""
        while not found.endswith(end):
            found += os.read(self.read_end, 65536)
        return found


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.stream.close()


def counter() -> Counter:
    return Counter("lost", "Lost lines.", registry=None)


def lost(count: Counter) -> float:
    return count._value.get()


def test_lines_come_out_as_they_were_written(pipe: Pipe) -> None:
    writer = LineWriter(pipe.stream)
    for index in range(100):
        writer.write(f"line {index}\n")
    writer.drain()
    assert pipe.read_until(b"line 99\n") == b"".join(b"line %d\n" % index for index in range(100))


def test_who_does_not_read_holds_up_nobody_and_is_told_what_was_lost(pipe: Pipe) -> None:
    count = counter()
    writer = LineWriter(pipe.stream, count)
    line = "x" * 1023 + "\n"
    for _ in range(3 * MAX_WAITING):
        writer.write(line)  # would wait for ever
    assert lost(count) >= MAX_WAITING
    writer.drain(0.01)
    reader = threading.Thread(target=lambda: read.append(pipe.read_until(b"the last\n")))
    read: list[bytes] = []
    reader.start()
    while writer._waiting.qsize():
        pass
    writer.write("the last\n")
    reader.join(30)
    told = [line for line in read[0].decode().splitlines() if not line.startswith("x")]
    assert told == [f"Lines of the log that were lost, as nobody took them: {lost(count):.0f}", "the last"]
    assert read[0].count(b"x" * 1023 + b"\n") == 3 * MAX_WAITING - lost(count)


def test_a_reader_that_goes_away_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    count = counter()
    writer = LineWriter(pipe.stream, count)
    os.close(pipe.read_end)
    for _ in range(10):
        writer.write("nobody hears this\n")
    writer.drain()
    assert lost(count) == 10 and writer._thread.is_alive()


def test_a_full_disk_costs_lines_and_what_comes_later_is_written() -> None:
    count = counter()
    full = open("/dev/full", "w")  # noqa: PTH123, SIM115
    writer = LineWriter(full, count)
    writer.write("no room\n")
    writer.drain()
    assert lost(count) == 1
    read_end, write_end = os.pipe()
    os.dup2(write_end, full.fileno())
    writer.write("room again\n")
    writer.drain()
    written = os.read(read_end, 65536)
    assert b"nobody took them: 1\n" in written and written.endswith(b"room again\n")


def test_a_pipe_that_others_have_made_non_blocking_gets_every_byte(pipe: Pipe) -> None:
    count = counter()
    os.set_blocking(pipe.stream.fileno(), False)
    writer = LineWriter(pipe.stream, count)
    for index in range(2_000):
        writer.write(f"{index}{'x' * 1000}\n")
    writer.write("end\n")
    assert len(pipe.read_until(b"\nend\n").splitlines()) == 2_001 and not lost(count)


def test_a_line_without_end_is_cut(pipe: Pipe) -> None:
    writer = LineWriter(pipe.stream)
    writer.write("y" * 10 * MAX_LINE + "\n")
    assert len(pipe.read_until(b"...\n")) == MAX_LINE + 4
