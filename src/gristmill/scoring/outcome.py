"""What one answer says of one score. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from gristmill.scoring.scale import Scale


class Outcome(msgspec.Struct, frozen=True):
    """``score`` is None where there is none, and ``error`` says why. With ``labels``: the expected value over the
    scale, the most probable ``label``, the ``entropy`` over the scale in bits, and the probability that the answer is
    ``off_scale``. With ``generate``: the label that was answered, and a ``reason`` where one was asked for."""

    method: str
    score: float | None = None
    label: str | None = None
    entropy: float | None = None
    off_scale: float | None = None
    reason: str | None = None
    #: The better model that was asked because ``before``, the first one's score, was unsure.
    model: str | None = None
    before: float | None = None
    error: str | None = None
    #: There was an answer, but not on the scale; another might be.
    invalid: bool = False


def of_probabilities(probabilities: Sequence[float], scale: Scale) -> Outcome:
    """``probabilities`` of the scale's labels, in its order; what they lack of 1 is off the scale."""
    mass = math.fsum(probabilities)
    if not mass > 0:
        return Outcome("labels", off_scale=1.0, error="no label of the scale has any probability")
    shares = [each / mass for each in probabilities]
    best = max(range(len(shares)), key=shares.__getitem__)
    return Outcome(
        "labels",
        score=math.fsum(share * value for share, value in zip(shares, scale.values, strict=True)),
        label=scale.labels[best],
        entropy=-math.fsum(share * math.log2(share) for share in shares if share > 0) + 0.0,
        off_scale=max(1.0 - mass, 0.0),
    )


def of_top_logprobs(tokens: Sequence[tuple[str, float]], scale: Scale) -> Outcome:
    """``tokens`` are the most probable first tokens of an answer, with their log-probabilities. A token stands for the
    label that begins with it; no two labels of the scale begin alike. What is missing may be on the scale or off it:
    it counts as off."""
    probabilities = [0.0] * len(scale.labels)
    for token, logprob in tokens:
        text = token.strip()
        for place, label in enumerate(scale.labels):
            if text and label.startswith(text):
                probabilities[place] += math.exp(logprob)
    found = of_probabilities(probabilities, scale)
    return msgspec.structs.replace(found, method="top_logprobs")


def of_text(text: str, scale: Scale) -> Outcome:
    """An answer that should be JSON with a ``score`` on the scale."""
    try:
        answer: Any = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return Outcome("generate", error=f"the answer is no JSON: {_clip(text)}", invalid=True)
    given = answer.get("score") if isinstance(answer, dict) else None
    label = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else None
    if label not in scale.labels:
        return Outcome("generate", error=f"the answer has no score on the scale: {_clip(text)}", invalid=True)
    reason = answer.get("reason")
    score = scale.values[scale.labels.index(label)]
    return Outcome("generate", score=score, label=label, reason=reason if isinstance(reason, str) else None)


def _clip(text: str) -> str:
    return text if len(text) <= 100 else text[:100] + "..."
