"""The input of a batch that asks for scores, and what its answers say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gristmill.scoring.outcome import Outcome, Position, of_probabilities, of_text, of_top_logprobs
from gristmill.scoring.prompt import LABELS, TOP_LOGPROBS, Instrument, Method, row_messages


class Question(NamedTuple):
    """One score of one row: ``row`` counts from 0, ``criterion`` is a place in the instrument's list (0 without)."""

    row: int
    criterion: int

    @property
    def id(self) -> str:
        return f"{self.row}.{self.criterion}"


class _Body(msgspec.Struct):
    model: str
    messages: list[dict[str, str]]


class _QuestionLine(msgspec.Struct):
    custom_id: str
    url: str
    body: _Body
    method: str = "POST"


class _Scores(msgspec.Struct):
    scores: list[list[float]] | None = None
    choices: list[Any] | None = None
    error: Any = None


class _Response(msgspec.Struct):
    status_code: int
    body: _Scores


class _Answer(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: Any = None


#: What a request is refused with for what it is: it is not valid, it is too long.
_REFUSED = frozenset({400, 413, 422})
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Answer)


def write_questions(
    path: Path,
    asked: Iterable[Question],
    text_of: Callable[[int], str],
    instrument: Instrument,
    method: Method,
    model: str,
) -> str:
    """Write a batch's input; the digest of what was written. The same questions give the same file."""
    digest = hashlib.sha256()
    partial = path.with_suffix(".part")
    with partial.open("wb", 1024 * 1024) as file:
        for each in asked:
            criterion = instrument.criteria[each.criterion] if instrument.criteria else None
            messages = row_messages(text_of(each.row), criterion, method, instrument.asked_for)
            line = _encoder.encode(_QuestionLine(each.id, method.endpoint, _Body(model, messages))) + b"\n"
            digest.update(line)
            file.write(line)
    partial.replace(path)
    return digest.hexdigest()


def read_outcomes(files: Iterable[Path], instrument: Instrument, method: Method) -> Iterator[tuple[Question, Outcome]]:
    """What the output and error files of a batch say."""
    for path in files:
        with path.open("rb") as file:
            for line in file:
                answer = _decoder.decode(line)
                row, _, criterion = answer.custom_id.partition(".")
                yield Question(int(row), int(criterion)), _outcome(answer, instrument, method)


def _outcome(answer: _Answer, instrument: Instrument, method: Method) -> Outcome:
    response = answer.response
    if response is None or response.status_code != 200:
        error = answer.error if response is None else response.body.error
        message = error.get("message") if isinstance(error, dict) else None
        told = str(message or error or "there is no answer")
        refused = response is not None and response.status_code in _REFUSED
        return Outcome(method.name, error=told, unanswered=True, refused=refused)
    if method is LABELS:
        scores = response.body.scores or [[]]
        return of_probabilities(scores[0], instrument.scale)
    choice = (response.body.choices or [{}])[0]
    if method.name == TOP_LOGPROBS.name:
        return of_top_logprobs(_positions(choice), instrument.scale)
    content = choice.get("message", {}).get("content") or ""
    if choice.get("finish_reason") == "length":
        return Outcome(method.name, error=f"the answer was cut off: {content[:100]}", invalid=True)
    return of_text(content, instrument.scale, instrument.asked_for)


def _positions(choice: dict[str, Any]) -> list[Position]:
    content = (choice.get("logprobs") or {}).get("content") or []
    return [
        Position(each["token"], [(top["token"], top["logprob"]) for top in each["top_logprobs"]]) for each in content
    ]
