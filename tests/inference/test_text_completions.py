"""What a text completion is asked with, and how its log-probabilities are answered."""

from __future__ import annotations

import pytest

from gristmill.inference import completions
from gristmill.wire.chat import TokenLogprob, TopLogprob


def token(text: str, logprob: float, *top: tuple[str, float]) -> TokenLogprob:
    return TokenLogprob(text, logprob, None, [TopLogprob(*each, None) for each in top])


def test_without_a_limit_an_answer_has_openais_sixteen_tokens() -> None:
    assert [each.max_tokens for each in completions.parse(b'{"model":"m","prompt":["x","y"]}')] == [16, 16]
    assert [each.max_tokens for each in completions.parse(b'{"model":"m","prompt":"x","max_tokens":300}')] == [300]


@pytest.mark.parametrize("position", [0, 7])
def test_the_sampled_token_is_always_among_the_top_ones(position: int) -> None:
    tokens = [token(" Rome", -3.0, (" Paris", -0.1)), token("!", -0.2, ("!", -0.2)), token("?", -1.0)]
    found = completions.logprobs_from(tokens, position)
    assert found.top_logprobs == [{" Paris": -0.1, " Rome": -3.0}, {"!": -0.2}, {"?": -1.0}]
    assert found.tokens == [" Rome", "!", "?"] and found.token_logprobs == [-3.0, -0.2, -1.0]
    assert found.text_offset == [position, position + 5, position + 6]
