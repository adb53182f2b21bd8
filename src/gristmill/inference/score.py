"""``/v1/score``."""

from __future__ import annotations

import math

import msgspec

from gristmill.engines.protocol import LabelRequest, LabelScores
from gristmill.inference import forwarding
from gristmill.inference.answer import MAX_PROMPTS, Answer, Backend, all_of, too_many, usage
from gristmill.wire.chat import Message
from gristmill.wire.errors import ApiError, missing_parameter
from gristmill.wire.json import decode
from gristmill.wire.paths import SCORE
from gristmill.wire.score import ScoreRequest, ScoreResponse

_decoder = msgspec.json.Decoder(ScoreRequest)


def parse(body: bytes) -> ScoreRequest:
    return decode(_decoder, body)


async def answer(body: bytes, backend: Backend) -> Answer:
    if backend.forwards(SCORE):
        return await forwarding.answer(forwarding.plain_request(SCORE, body), backend.ask)
    request = parse(body)
    labels = _labels(request)
    ending = request.add_generation_prompt, request.continue_final_message
    asked = [LabelRequest(request.model, prompt, labels, *ending) for prompt in _prompts(request)]
    found = await all_of(backend.ask(each) for each in asked)
    prompt_tokens = sum(each.prompt_tokens for each in found)
    reported = [each.cached_tokens for each in found if each.cached_tokens is not None]
    cached_tokens = sum(reported) if len(reported) == len(found) else None
    response = ScoreResponse(
        scores=[_probabilities(each, request.apply_softmax) for each in found],
        model=found[0].model,
        usage=usage(prompt_tokens, cached_tokens, 0),
    )
    return Answer(response, prompt_tokens, cached_tokens, 0)


def _labels(request: ScoreRequest) -> list[str] | list[int]:
    if (request.labels is None) == (request.label_token_ids is None):
        raise ApiError(400, "Give the labels either as 'labels' or as 'label_token_ids'.", param="labels")
    labels: list[str] | list[int] = request.labels if request.labels is not None else request.label_token_ids or []
    if len(set(labels)) != len(labels):
        raise ApiError(400, "A label is given twice.", param="labels", code="invalid_value")
    if "" in labels:
        raise ApiError(400, "A label is empty.", param="labels", code="invalid_value")
    return labels


def _prompts(request: ScoreRequest) -> list[str | list[Message]]:
    if request.messages is not None:
        if request.query is not None or request.items is not None:
            raise ApiError(400, "'messages' goes without 'query' and 'items'.", param="messages", code="invalid_value")
        return [request.messages]
    if request.query is None:
        raise missing_parameter("query")
    for name in ("add_generation_prompt", "continue_final_message"):
        if getattr(request, name) is not None:
            raise ApiError(400, f"'{name}' goes with 'messages'.", param=name, code="invalid_value")
    items = [request.items or ""] if request.items is None or isinstance(request.items, str) else request.items
    if not items or not all(isinstance(item, str) for item in items):
        raise ApiError(400, "'items' must be a string or an array of strings.", param="items", code="invalid_type")
    if len(items) > MAX_PROMPTS:
        raise too_many("items", "items", len(items))
    return [item + request.query if request.item_first else request.query + item for item in items]


def _probabilities(scores: LabelScores, apply_softmax: bool) -> list[float]:
    if not apply_softmax:
        return [math.exp(logprob) for logprob in scores.logprobs]
    best = max(scores.logprobs)
    weights = [math.exp(logprob - best) for logprob in scores.logprobs]
    total = sum(weights)
    return [weight / total for weight in weights]
