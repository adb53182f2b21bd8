"""A pool and what it talks to, without a cluster: replicas that answer as a test says."""

from __future__ import annotations

import asyncio
from typing import Any

from gristmill.engines.answer_frames import Done
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import Capabilities, Choice, Completion
from gristmill.engines.ray import messages
from gristmill.engines.ray.frames import Answers, Joined, Send
from gristmill.engines.ray.messages import Alone, NotAnswered, ReplicaFacts
from gristmill.engines.ray.pool import Pool
from gristmill.engines.request_frames import Cancel
from gristmill.wire.chat import ChatCompletionRequest, Message

FACTS = ReplicaFacts("1", "node", ("m",), Capabilities(slots=4, parameters=frozenset()))
ROW = ChatCompletionRequest(model="m", messages=[Message("user", "row")])
ANSWER = Completion("m", (Choice("yes", "stop"),), 1, 1)


class Replicas:
    """What is sent to them, and what they answer: ``away`` maps a replica to why its engine cannot."""

    def __init__(self, *names: str, stale: float = 10.0) -> None:
        self.pool = Pool(self._take, stale)
        self.asked: list[tuple[str, int]] = []
        #: The numbers of those that are to be alone.
        self.alone: set[int] = set()
        self.away: dict[str, EngineError] = {}
        self.holds = False
        for name in names:
            self.pool.joined(Joined(name, f"session of {name}", FACTS))

    def _take(self, frame: Send) -> None:
        for number, data in messages.decode_group(frame.group):
            message = messages.decode_to_replica(data)
            if isinstance(message, Cancel):
                continue
            if isinstance(message, Alone):
                self.alone.add(number)
            self.asked.append((frame.replica, number))
            if not self.holds:
                error = self.away.get(frame.replica)
                self.answer(frame.replica, Done(number, ANSWER) if error is None else NotAnswered.of(number, error))

    def answer(self, replica: str, message: Any) -> None:
        group = messages.encode_group([messages.encode(message)])
        answers = Answers(replica, f"session of {replica}", group)
        asyncio.get_running_loop().call_soon(self.pool.answered, answers)

    async def ask(self, interactive: bool = False, alone: bool = False) -> Completion:
        answer: Completion = await self.pool.ask(
            lambda number: messages.question(number, ROW, False, interactive), interactive=interactive, alone=alone
        )
        return answer
