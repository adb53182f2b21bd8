"""From logits to the next token of each row. Vectorised over rows where rows are alike, which greedy ones are."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


class Sampling(NamedTuple):
    """``seed`` and ``choice`` with a position determine every random draw, so preemption cannot change an answer.

    ``top_k`` 0: all tokens. ``repetition_penalty`` is over the last ``repetition_window`` tokens of prompt and answer,
    over all where that is None. ``logit_bias`` maps token ids to added logits. ``top_logprobs`` is None when none are
    wanted.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int | None = None
    seed: int = 0
    choice: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] | None = None
    top_logprobs: int | None = None


class GenerationState(NamedTuple):
    """What sampling a row depends on: its settings, the tokens generated so far, what a grammar allows next
    (a boolean per token id; None: everything), and the token ids that the repetition penalty is for."""

    sampling: Sampling
    generated: list[int]
    allowed: NDArray[np.bool_] | None = None
    repeated: Collection[int] = ()

    @property
    def adjusts(self) -> bool:
        """Whether anything stands between the model's logits and the choice."""
        sampling = self.sampling
        penalties = sampling.presence_penalty or sampling.frequency_penalty
        return bool(penalties or self.repeated or sampling.logit_bias or self.allowed is not None)


class Sampled(NamedTuple):
    """``logprob`` and ``top`` (token id, log-probability, best first) are the model's own, before temperature,
    penalties and bias; None where they are not wanted."""

    token: int
    logprob: float | None
    top: list[tuple[int, float]] | None


def sample(logits: Logits, rows: list[GenerationState]) -> list[Sampled]:
    """One token for each row of ``logits``, shape (rows, vocabulary). ``logits`` is not changed."""
    adjusted = {i: _adjust(logits[i], row) for i, row in enumerate(rows) if row.adjusts}
    plain = [i for i in range(len(rows)) if i not in adjusted]
    best = np.zeros(len(rows), np.int64)
    if plain:
        chosen = logits if len(plain) == len(rows) else logits[plain]
        best[plain] = chosen.argmax(axis=-1)
    tokens = []
    for i, row in enumerate(rows):
        scores = adjusted.get(i)
        if row.sampling.temperature > 0:
            tokens.append(_draw(logits[i] if scores is None else scores, row))
        else:
            tokens.append(int(best[i]) if scores is None else int(scores.argmax()))
    return [_with_logprobs(logits[i], tokens[i], row.sampling.top_logprobs) for i, row in enumerate(rows)]


def _adjust(logits: Logits, row: GenerationState) -> Logits:
    scores = logits.copy()
    sampling = row.sampling
    # Bias, repetition, then the rest: the order of vLLM and llama.cpp.
    for token, bias in (sampling.logit_bias or {}).items():
        scores[token] += bias
    if row.repeated:
        ids = np.fromiter(row.repeated, np.int64, len(row.repeated))
        found, penalty = scores[ids], np.float32(sampling.repetition_penalty)
        scores[ids] = np.where(found > 0, found / penalty, found * penalty)
    if row.generated and (sampling.presence_penalty or sampling.frequency_penalty):
        ids, counts = np.unique(np.asarray(row.generated), return_counts=True)
        scores[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts.astype(np.float32)
    if row.allowed is not None:
        allowed = row.allowed[: len(scores)]
        scores[: len(allowed)][~allowed] = -np.inf
        scores[len(allowed) :] = -np.inf
    return scores


def _draw(scores: Logits, row: GenerationState) -> int:
    sampling = row.sampling
    generator = np.random.default_rng([sampling.seed & (2**64 - 1), sampling.choice, len(row.generated)])
    # In float64 and shifted: tiny temperatures must not overflow.
    weights = np.exp((scores - scores.max()) / np.float64(sampling.temperature))
    order = _kept(weights, sampling)
    mass = np.cumsum(weights if order is None else weights[order])
    place = min(int(np.searchsorted(mass, generator.random() * mass[-1], side="right")), len(mass) - 1)
    return place if order is None else int(order[place])


def _kept(weights: NDArray[np.float64], sampling: Sampling) -> NDArray[np.int64] | None:
    """The tokens that may be drawn, the likeliest first; None: all. Each limit is of what the one before it leaves:
    min_p, top_k, top_p, as in vLLM. ``weights`` are probabilities by temperature, but for a factor."""
    top_k = sampling.top_k if 0 < sampling.top_k < len(weights) else None
    if top_k is None and not sampling.min_p and sampling.top_p >= 1:
        return None
    tokens = np.arange(len(weights)) if top_k is None else np.argpartition(-weights, top_k - 1)[:top_k]
    if sampling.min_p:
        tokens = tokens[weights[tokens] >= sampling.min_p * weights.max()]
    order: NDArray[np.int64] = tokens[np.lexsort((tokens, -weights[tokens]))]
    if sampling.top_p < 1:
        mass = np.cumsum(weights[order])
        # The smallest set that reaches top_p: everything up to and including the token that crosses it.
        order = order[: int(np.searchsorted(mass, sampling.top_p * mass[-1])) + 1]
    return order


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _with_logprobs(logits: Logits, token: int, count: int | None) -> Sampled:
    if count is None:
        return Sampled(token, None, None)
    logprobs = log_softmax(logits)
    if not count:
        return Sampled(token, float(logprobs[token]), [])
    candidates = np.argpartition(logprobs, -count)[-count:]
    best = sorted(candidates.tolist(), key=lambda i: (-logprobs[i], i))
    return Sampled(token, float(logprobs[token]), [(i, float(logprobs[i])) for i in best])
