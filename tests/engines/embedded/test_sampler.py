from __future__ import annotations

import numpy as np
import pytest

from gristmill.engines.embedded.sampler import GenerationState, Sampling, log_softmax, sample

LOGITS = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))


def draw(sampling: Sampling, generated: list[int] | None = None, allowed: list[bool] | None = None) -> int:
    mask = None if allowed is None else np.array(allowed)
    return sample(LOGITS, [GenerationState(sampling, generated or [], mask)])[0].token


def shares(sampling: Sampling, draws: int = 2000) -> list[float]:
    tokens = [draw(sampling._replace(seed=seed)) for seed in range(draws)]
    return [tokens.count(i) / draws for i in range(4)]


def test_temperature_zero_takes_the_most_likely_token():
    assert draw(Sampling(temperature=0)) == 0


def test_draws_follow_the_probabilities():
    assert shares(Sampling()) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.04)


def test_temperature_flattens_them():
    weights = np.array([0.5, 0.3, 0.15, 0.05]) ** 0.5
    assert shares(Sampling(temperature=2)) == pytest.approx(list(weights / weights.sum()), abs=0.04)


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    assert shares(Sampling(top_p=0.7)) == pytest.approx([0.625, 0.375, 0, 0], abs=0.04)
    assert shares(Sampling(top_p=0.0), 50) == [1, 0, 0, 0]


def test_top_k_keeps_the_likeliest():
    assert shares(Sampling(top_k=2)) == pytest.approx([0.625, 0.375, 0, 0], abs=0.04)
    assert shares(Sampling(top_k=1), 50) == [1, 0, 0, 0]
    assert shares(Sampling(top_k=4)) == shares(Sampling(top_k=1000)) == shares(Sampling())


def test_min_p_is_a_share_of_the_likeliest_by_temperature():
    assert shares(Sampling(min_p=0.4)) == pytest.approx([0.625, 0.375, 0, 0], abs=0.04)
    assert shares(Sampling(min_p=1.0), 50) == [1, 0, 0, 0]
    # By the root of each, the third is 0.55 of the first.
    assert shares(Sampling(min_p=0.4, temperature=2))[2] > 0.2


def test_each_limit_is_of_what_the_one_before_it_leaves():
    # Of 0.5, 0.3 and 0.15 the first two are 84 %: without top_k they would not reach 0.83.
    assert set(np.nonzero(shares(Sampling(top_k=3, top_p=0.83)))[0]) == {0, 1}
    assert set(np.nonzero(shares(Sampling(min_p=0.2, top_p=0.83)))[0]) == {0, 1}
    assert set(np.nonzero(shares(Sampling(top_p=0.83)))[0]) == {0, 1, 2}


def test_tokens_as_likely_as_each_other_are_taken_in_the_order_of_their_ids():
    level = np.zeros((1, 500), np.float32)
    found = {sample(level, [GenerationState(Sampling(top_p=0.01, seed=seed), [])])[0].token for seed in range(200)}
    assert found == set(range(5))


def test_the_repetition_penalty_divides_what_is_above_zero_and_multiplies_what_is_below():
    logits = np.array([[2.0, 1.5, -1.0, -1.5]], np.float32)

    def best(penalty: float, repeated: set[int], bias: dict[int, float] | None = None) -> int:
        sampling = Sampling(temperature=0, repetition_penalty=penalty, logit_bias=bias)
        return sample(logits, [GenerationState(sampling, [], None, repeated)])[0].token

    assert best(1.2, {0}) == 0 and best(1.5, {0}) == 1
    assert best(1.5, set()) == 0
    # -1 times 1.6 is below -1.5.
    assert best(1.6, {0, 1, 2}, {0: -100, 1: -100}) == 3


def test_the_same_seed_draws_the_same_token_and_choices_differ():
    assert len({draw(Sampling(seed=7)) for _ in range(20)}) == 1
    assert len({draw(Sampling(seed=7, choice=choice)) for choice in range(40)}) > 1
    assert len({draw(Sampling(seed=7), generated=[0] * n) for n in range(40)}) > 1


def test_a_negative_seed_is_a_seed():
    assert draw(Sampling(seed=-1)) in range(4)


def test_logit_bias_bans_and_forces():
    assert draw(Sampling(temperature=0, logit_bias={0: -100})) == 1
    assert draw(Sampling(temperature=0, logit_bias={3: 100})) == 3


def test_penalties_count_what_was_generated():
    assert draw(Sampling(temperature=0, presence_penalty=0.6), generated=[0]) == 1
    assert draw(Sampling(temperature=0, presence_penalty=0.4), generated=[0]) == 0
    assert draw(Sampling(temperature=0, frequency_penalty=0.4), generated=[0, 0]) == 1


def test_only_allowed_tokens_are_drawn():
    assert {draw(Sampling(seed=seed), allowed=[False, False, True, True]) for seed in range(50)} == {2, 3}


def test_logprobs_are_the_models_own_best_first():
    sampled = sample(LOGITS, [GenerationState(Sampling(temperature=0, logit_bias={0: -100}, top_logprobs=3), [])])[0]
    assert sampled.token == 1
    assert sampled.logprob == pytest.approx(np.log(0.3), abs=1e-6)
    assert sampled.top is not None
    assert [token for token, _ in sampled.top] == [0, 1, 2]
    assert sampled.top[0][1] == pytest.approx(np.log(0.5), abs=1e-6)


def test_rows_of_different_settings_do_not_disturb_each_other():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(6, 50)).astype(np.float32)
    rows = [
        GenerationState(Sampling(temperature=t, seed=3, logit_bias=b, top_logprobs=n), [1, 2])
        for t, b, n in [
            (0, None, None),
            (1, None, 2),
            (0, {4: 5.0}, 0),
            (0.5, {1: 9.0}, None),
            (0, None, 5),
            (2, None, 1),
        ]
    ]
    before = logits.copy()
    together = sample(logits, rows)
    assert together == [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    assert (logits == before).all()


def test_log_softmax_of_huge_logits_is_finite():
    assert log_softmax(np.array([[1e5, 0.0]], np.float32)).tolist() == [[0.0, -1e5]]
