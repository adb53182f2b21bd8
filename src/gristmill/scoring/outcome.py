"""What one answer says of one score. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from gristmill.scoring.scale import Scale
from gristmill.wire.errors import clip


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
    #: There was none: the request was refused, or it failed. Asked another day, there may be.
    unanswered: bool = False
    #: It was refused for what it is, such as one that is too long.
    refused: bool = False


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


class Position(NamedTuple):
    """A token of an answer, and the most probable ones in its place, with their log-probabilities."""

    token: str
    top: Sequence[tuple[str, float]]


def of_top_logprobs(positions: Sequence[Position], scale: Scale) -> Outcome:
    """From the first tokens of an answer. A token that only one label begins with stands for that label. One that
    several begin with ("1" of 1 and 10) is told apart by the next token, where it is the one that was answered. What
    cannot be told, or is not among the most probable, may be on the scale or off it: it counts as off."""
    shares = dict.fromkeys(scale.labels, 0.0)
    if positions:
        first, later = positions[0], positions[1:]
        whole = {token.strip() for token, _ in first.top}
        for token, logprob in first.top:
            text, probability = token.strip(), math.exp(logprob)
            fitting = [label for label in scale.labels if text and label.startswith(text)]
            if len(fitting) == 1 or (text in fitting and whole.issuperset(fitting)):
                # The second: a tokenizer that has the longer labels as tokens, too.
                shares[text if text in fitting else fitting[0]] += probability
            elif fitting and token == first.token and later:
                for label, share in _told_apart(text, fitting, later[0]).items():
                    shares[label] += probability * share
    found = of_probabilities([shares[label] for label in scale.labels], scale)
    return msgspec.structs.replace(found, method="top_logprobs")


def _told_apart(begun: str, labels: Sequence[str], following: Position) -> dict[str, float]:
    """How probable each label is after its beginning: by the next token, or that the answer ends there."""
    shares = {
        label: math.fsum(
            math.exp(logprob)
            for token, logprob in following.top
            if token.strip() and token[:1] == token.strip()[:1] and label[len(begun) :].startswith(token.strip())
        )
        for label in labels
        if label != begun
    }
    if begun in labels:
        shares[begun] = max(1.0 - math.fsum(shares.values()), 0.0)
    return shares


def of_text(text: str, scale: Scale, asked_for: str = "score") -> Outcome:
    """An answer that should be JSON with what was ``asked_for``, on the scale."""
    try:
        answer: Any = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return Outcome("generate", error=f"the answer is no JSON: {clip(text)}", invalid=True)
    given = answer.get(asked_for) if isinstance(answer, dict) else None
    label = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else None
    if label not in scale.labels:
        return Outcome("generate", error=f"the answer has no {asked_for} on the scale: {clip(text)}", invalid=True)
    reason = answer.get("reason")
    score = scale.values[scale.labels.index(label)]
    return Outcome("generate", score=score, label=label, reason=reason if isinstance(reason, str) else None)
