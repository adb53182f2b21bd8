"""The exact tokens of an input file's prompts, by a tokenizer and without an engine."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from gristmill.batches.lines import lines_of
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import (
    AnyRequest,
    Choice,
    Completion,
    EmbeddingRequest,
    Embeddings,
    LabelRequest,
    LabelScores,
    Request,
)
from gristmill.inference.answer import Backend
from gristmill.inference.endpoints import ENDPOINTS
from gristmill.planning.job_plan import JobPlan
from gristmill.planning.token_count import TokenCount
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest
from gristmill.wire.errors import ApiError
from gristmill.wire.line_body import Fields, completed_body, default_fields


class Tokenizer(Protocol):
    """Each method raises EngineError for a prompt that the model cannot be given."""

    def of_request(self, request: Request) -> list[int]: ...

    def of_messages(self, messages: list[Message], opening: bool | None, continuing: bool | None) -> list[int]: ...

    def of_text(self, text: str, param: str) -> list[int]: ...


def count_tokens(
    path: Path, endpoint: str, defaults: dict[str, Any] | None, plan: JobPlan, tokenizer: Tokenizer
) -> JobPlan:
    """``plan``, which is the plan of the file, in tokens. Raises UserError naming a row that has none."""
    return asyncio.run(_count(path, endpoint, default_fields(defaults), plan, tokenizer))


async def _count(path: Path, endpoint: str, defaults: Fields, plan: JobPlan, tokenizer: Tokenizer) -> JobPlan:
    count = TokenCount(plan)
    recorder = _Recorder(tokenizer)
    answer = ENDPOINTS[endpoint].answer
    for number, data in _in_order(path, plan):
        try:
            await answer(completed_body(data, defaults), recorder.asker)
        except (EngineError, ApiError) as error:
            raise UserError(f"The tokens of line {number} of {path} cannot be counted: {error}") from None
        count.add(number, recorder.taken())
    return count.counted()


class _Recorder:
    """Stands where an engine does, and keeps the tokens of what it is asked."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._prompts: list[list[int]] = []
        self.asker = Backend(self._ask)

    def taken(self) -> list[list[int]]:
        prompts, self._prompts = self._prompts, []
        return prompts

    async def _ask(self, request: AnyRequest) -> Any:
        match request:
            case EmbeddingRequest():
                prompts = [self._text(each) if isinstance(each, str) else each for each in request.inputs]
                self._prompts += prompts
                return Embeddings(request.model, [[1.0]] * len(prompts), 0)
            case LabelRequest():
                self._prompts.append(self._label_prompt(request))
                return LabelScores(request.model, (0.0,) * len(request.labels), 0)
            case ChatCompletionRequest() | CompletionRequest():
                self._prompts.append(self._tokenizer.of_request(request))
                return Completion(request.model, (Choice("", "stop"),), 0, 0)

    def _text(self, text: str) -> list[int]:
        return self._tokenizer.of_text(text, "input")

    def _label_prompt(self, request: LabelRequest) -> list[int]:
        if isinstance(request.prompt, str):
            return self._tokenizer.of_text(request.prompt, "query")
        opening, continuing = request.add_generation_prompt, request.continue_final_message
        return self._tokenizer.of_messages(request.prompt, opening, continuing)


def _in_order(path: Path, plan: JobPlan) -> Iterator[tuple[int, bytes]]:
    """The lines to run, by number."""
    offsets, lengths = array("q", [0]), array("q", [0])
    for line in lines_of(path):
        # Blank lines have a number, too.
        missing = line.number - len(offsets)
        offsets.extend([0] * missing + [line.offset])
        lengths.extend([0] * missing + [line.length])
    with path.open("rb") as file:
        for number in plan.order:
            file.seek(offsets[number])
            yield number, file.read(lengths[number])
