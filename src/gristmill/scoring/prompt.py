"""What is asked: the part that all rows share, and a row's own. Pure.

All that differs from row to row, and from criterion to criterion, stands at the end, so that the rubric and the
examples are one prefix for the whole job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from gristmill.scoring.scale import Scale, labels_begin_differently

#: Tokens of an answer: JSON around a score, and a short reason.
_SCORE_TOKENS, _REASON_TOKENS = 32, 200
_REASON_CHARS = 400
#: As many as OpenAI, Ollama and vLLM give.
_TOP = 20
#: What an answer is called where nothing else is asked for.
SCORE = "score"


class Example(NamedTuple):
    """A row's text with its right label, of one criterion where there are several."""

    text: str
    criterion: str | None
    label: str


class Wording(NamedTuple):
    """Changes to how the same is asked, to see whether they change the scores."""

    reversed_scale: bool = False
    paraphrased: bool = False


class Instrument(NamedTuple):
    """What every row is measured with. ``criteria`` is empty where there is one score for the whole rubric.
    ``asked_for``: what the answer is called, in JSON and where it is begun for the model."""

    rubric: str
    scale: Scale
    criteria: tuple[str, ...] = ()
    examples: Sequence[Example] = ()
    reason: bool = False
    wording: Wording = Wording()
    asked_for: str = SCORE


class Method(NamedTuple):
    """How an engine is asked: ``labels`` for the probability of every label, ``top_logprobs`` for the most probable
    first tokens, which labels can be told by, ``generate`` for JSON. ``begun``: the answer is begun for the model, up
    to where the label comes, which an engine must be able to go on from (``continue_final_message``)."""

    name: str
    endpoint: str
    begun: bool = False


LABELS = Method("labels", "/v1/score", begun=True)
TOP_LOGPROBS = Method("top_logprobs", "/v1/chat/completions")
TOP_LOGPROBS_BEGUN = TOP_LOGPROBS._replace(begun=True)
GENERATE = Method("generate", "/v1/chat/completions")


def shared_body(instrument: Instrument, method: Method) -> dict[str, Any]:
    """Body parameters of all rows; a row adds its model and its one message."""
    messages = [{"role": "system", "content": _system(instrument, method)}]
    for example in instrument.examples:
        messages.append({"role": "user", "content": question(example.text, example.criterion)})
        messages.append({"role": "assistant", "content": _answer(example, instrument, method)})
    if method is LABELS:
        labels = [f" {label}" for label in instrument.scale.labels]
        return {"messages": messages, "labels": labels, "continue_final_message": True}
    if method.name == TOP_LOGPROBS.name:
        tokens = 1 if labels_begin_differently(instrument.scale) else 2
        told = {"temperature": 0, "max_tokens": tokens, "logprobs": True, "top_logprobs": _TOP}
        begun = {"continue_final_message": True, "add_generation_prompt": False} if method.begun else {}
        return {"messages": messages} | told | begun
    tokens = _REASON_TOKENS if instrument.reason else _SCORE_TOKENS
    schema = {"name": "score", "strict": True, "schema": _schema(instrument)}
    form = {"type": "json_schema", "json_schema": schema}
    return {"messages": messages, "temperature": 0, "max_tokens": tokens, "response_format": form}


def question(text: str, criterion: str | None) -> str:
    """The message of a row's own."""
    return text if criterion is None else f"{text}\n\nScore this criterion: {criterion}"


def row_messages(text: str, criterion: str | None, method: Method, asked_for: str = SCORE) -> list[dict[str, str]]:
    """What a row adds to the shared messages."""
    asked = {"role": "user", "content": question(text, criterion)}
    return [asked, {"role": "assistant", "content": _opening(asked_for)}] if method.begun else [asked]


def _opening(asked_for: str) -> str:
    """How an answer begins whose next tokens are the label. Without it a small model puts its probability elsewhere:
    with a 135M model 5 % was left for the labels, with it 85 %."""
    return f"{asked_for.capitalize()}:"


def _system(instrument: Instrument, method: Method) -> str:
    parts = [instrument.rubric]
    if instrument.criteria:
        parts.append(f"The criteria, one of which is asked for at a time: {'; '.join(instrument.criteria)}.")
    parts.append(_instruction(instrument, method))
    return "\n\n".join(parts)


def _instruction(instrument: Instrument, method: Method) -> str:
    scale = instrument.scale.told(instrument.wording.reversed_scale)
    paraphrased, asked_for = instrument.wording.paraphrased, instrument.asked_for
    if method.begun:
        opening = _opening(asked_for)
        if paraphrased:
            return f'Write "{opening}", then {scale}. Nothing may come before or after it.'
        return f'Answer with "{opening}" and {scale}, and with nothing else.'
    if method.name == TOP_LOGPROBS.name:
        return f"Write only {scale}." if paraphrased else f"Answer with {scale}, and with nothing else."
    fields = f'first "reason", one short sentence, then "{asked_for}"' if instrument.reason else f'"{asked_for}"'
    if paraphrased:
        return f"Your whole answer is one JSON object. It holds {fields}, which is {scale}."
    return f"Answer with a JSON object that has {fields}: {scale}."


def _answer(example: Example, instrument: Instrument, method: Method) -> str:
    if method.begun:
        return f"{_opening(instrument.asked_for)} {example.label}"
    if method.name == TOP_LOGPROBS.name:
        return example.label
    return msgspec.json.encode({instrument.asked_for: _json_label(example.label, instrument.scale)}).decode()


def _schema(instrument: Instrument) -> dict[str, Any]:
    labels = [_json_label(label, instrument.scale) for label in instrument.scale.labels]
    properties: dict[str, Any] = {"reason": {"type": "string", "maxLength": _REASON_CHARS}} if instrument.reason else {}
    properties[instrument.asked_for] = {"enum": labels}
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def _json_label(label: str, scale: Scale) -> int | str:
    """Numbers are answered as numbers."""
    numeric = all(each.lstrip("-").isdigit() for each in scale.labels)
    return int(label) if numeric else label
