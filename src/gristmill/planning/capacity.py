"""What more replicas do for a job, and what stops them: a discrete simulation, from figures measured. Pure.

A closed queueing network. Servers send groups of rows to replicas of an engine, as many as each may have in flight; a
replica takes them one after the other; the server that sent a group handles its answers, and one database stores them.
Whatever has no room holds up what comes before it, as in the program.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from typing import NamedTuple

#: Groups that a replica has at a time: one that it works on, one that waits.
_IN_FLIGHT = 2
#: Rows that are stored in one transaction, at most, and that a server holds until it sends no more.
_STORED_ROWS, _UNSTORED_ROWS = 512, 1_024
#: Groups for each replica after which the flow is taken to be steady, and those it is measured over.
_WARM_UP, _MEASURED = 8, 24


class Figures(NamedTuple):
    """What each part does alone, as measured (docs/explanation/capacity.md); times in seconds, rates in rows/s."""

    #: Of one replica whose slots are full, behind its prefix.
    replica_rate: float
    #: Until a replica answers its first row: its process, its model, its prefix.
    start: float = 60.0
    #: Of how long groups take at a replica: standard deviation over mean.
    spread: float = 0.1
    group_rows: int = 32
    #: Of a server process for each row: its way through the pipeline on PostgreSQL, and what replicas on Ray add to it.
    server_row: float = 1 / 10_680 + 0.52 / 10_373
    #: From a server to a replica, or back.
    latency: float = 0.002
    #: Of the database for a transaction and for each row of it.
    store_group: float = 0.00214
    store_row: float = 4.6e-6
    #: Of one server, for a batch's rows before and after they run.
    read_rate: float = 18_500.0
    write_rate: float = 160_000.0
    #: Bytes of a row and of its answer, and those that a server's network carries in a second.
    row_bytes: int = 10_000
    answer_bytes: int = 600
    network: float = 1.25e8


class Flow(NamedTuple):
    """Rows a second once it is steady, and how busy each part is then, as a share of its time."""

    rate: float
    replicas: float
    servers: float
    database: float
    network: float

    @property
    def limit(self) -> str:
        """The part that has the least time to spare."""
        return max(("replicas", "servers", "database", "network"), key=lambda part: getattr(self, part))


class Part:
    """Does one thing at a time, in the order of arrival."""

    def __init__(self) -> None:
        self.free_at = 0.0
        self.busy = 0.0

    def take(self, now: float, seconds: float) -> float:
        """When it has done what takes ``seconds``."""
        begin = max(now, self.free_at)
        self.free_at = begin + seconds
        self.busy += seconds
        return self.free_at


class _Server(Part):
    def __init__(self, replicas: list[int]) -> None:
        super().__init__()
        #: Places of its replicas that are free.
        self.free = deque(replica for _ in range(_IN_FLIGHT) for replica in replicas)
        #: Groups that are answered and wait to be stored, and those that are being stored: one transaction at a time.
        self.answered = 0
        self.storing = 0


def simulate(figures: Figures, replicas: int, servers: int = 1, seed: int = 0) -> Flow:
    """``servers`` share the replicas evenly, each with batches of its own, whose rows never end."""
    servers = min(servers, replicas)
    chance = random.Random(seed)
    rows = figures.group_rows
    handling = rows * figures.server_row / 2
    # A log-normal time, whose logarithm has the variance that gives the spread.
    sigma = math.sqrt(math.log1p(figures.spread**2))
    network = rows * (figures.row_bytes + figures.answer_bytes) / figures.network
    senders = [_Server(list(range(number, replicas, servers))) for number in range(servers)]
    engines = [Part() for _ in range(replicas)]
    database, links = Part(), [Part() for _ in range(servers)]
    events: list[tuple[float, int, int, int, str]] = []
    stored_groups = max(_STORED_ROWS // rows, 1)
    unstored_groups = max(_UNSTORED_ROWS // rows, 1)
    order = itertools.count()
    stored, began, busy, counted = 0, 0.0, [0.0] * 4, 0

    def send(number: int, now: float) -> None:
        server = senders[number]
        while server.free and server.answered < unstored_groups:
            replica = server.free.popleft()
            ready = links[number].take(server.take(now, handling), network)
            heapq.heappush(events, (ready + figures.latency, next(order), number, replica, "arrived"))

    def store(number: int, now: float) -> None:
        server = senders[number]
        if server.answered and not server.storing:
            server.storing = min(server.answered, stored_groups)
            server.answered -= server.storing
            seconds = figures.store_group + server.storing * rows * figures.store_row
            heapq.heappush(events, (database.take(now, seconds), next(order), number, -1, "stored"))

    def busy_now() -> list[float]:
        groups = (engines, senders, [database], links)
        return [sum(part.busy for part in group) / len(group) for group in groups]

    for number in range(servers):
        send(number, 0.0)
    warm, last = _WARM_UP * replicas, (_WARM_UP + _MEASURED) * replicas
    now = 0.0
    while stored < last:
        now, _, number, replica, event = heapq.heappop(events)
        server = senders[number]
        if event == "arrived":
            seconds = rows / figures.replica_rate * chance.lognormvariate(-(sigma**2) / 2, sigma)
            done = engines[replica].take(now, seconds)
            heapq.heappush(events, (done + figures.latency, next(order), number, replica, "answered"))
        elif event == "answered":
            server.free.append(replica)
            heapq.heappush(events, (server.take(now, handling), next(order), number, replica, "handled"))
            send(number, now)
        elif event == "handled":
            server.answered += 1
            store(number, now)
        else:
            stored += server.storing
            server.storing = 0
            if not began and stored >= warm:
                began, busy, counted = now, busy_now(), stored
            store(number, now)
            send(number, now)
    seconds = now - began
    shares = [min((after - before) / seconds, 1.0) for after, before in zip(busy_now(), busy, strict=True)]
    return Flow(rows * (stored - counted) / seconds, *shares)


def job_seconds(figures: Figures, flow: Flow, rows: int, servers: int = 1) -> float:
    """From the uploaded input to the written files, of a job that is as many batches as there are ``servers``: each
    reads and writes its own."""
    around = rows / servers * (1 / figures.read_rate + 1 / figures.write_rate)
    return figures.start + rows / flow.rate + around
