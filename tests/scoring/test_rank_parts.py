"""What a ranking is made of, without an engine: proxies from words, cuts, the truth, a rehearsal."""

from __future__ import annotations

import math
import random

import pytest

from gristmill.user_error import UserError

numpy = pytest.importorskip("numpy", reason="pip install 'gristmill[score]' to run this")
linear_model = pytest.importorskip("sklearn.linear_model", reason="pip install 'gristmill[score]' to run this")

from gristmill.scoring.rank.evidence import How  # noqa: E402 - needs what may not be there
from gristmill.scoring.rank.goal import Assumption, Goal  # noqa: E402
from gristmill.scoring.rank.rehearsal import rehearse  # noqa: E402
from gristmill.scoring.rank.ridge import Ridge  # noqa: E402
from gristmill.scoring.rank.side import parse_cut  # noqa: E402
from gristmill.scoring.rank.text_proxy import train_text_proxy  # noqa: E402
from gristmill.scoring.rank.truth_check import check_against_truth  # noqa: E402


def test_ridge_from_inner_products_is_scikit_learns_ridge():
    random_numbers = numpy.random.default_rng(1)
    features = random_numbers.normal(size=(60, 200))
    scores = features[:, 0] + random_numbers.normal(size=60)
    ours = Ridge.through(features @ features.T, scores)
    weights = features.T @ ours.dual
    # The penalty that was chosen, from the equation that the dual solves.
    centred = features - features.mean(axis=0)
    left = scores - scores.mean() - centred @ weights
    penalty = float(left @ ours.dual / (ours.dual @ ours.dual))
    theirs = linear_model.Ridge(alpha=penalty).fit(features, scores)
    assert numpy.allclose(theirs.coef_, weights, atol=1e-8)
    fold = numpy.arange(60) % 10
    refitted = linear_model.Ridge(alpha=penalty).fit(features[fold != 3], scores[fold != 3])
    assert numpy.allclose(refitted.predict(features[fold == 3]), ours.held_out[fold == 3], atol=1e-8)


def test_words_that_go_with_scores_are_learnt_and_noise_is_not():
    draw = random.Random(2)
    texts = [" ".join(draw.choice(("stone", "wheel", "flour", "grain")) for _ in range(12)) for _ in range(400)]
    scores = [text.count("flour") + draw.gauss(0, 0.5) for text in texts]
    proxy = train_text_proxy(texts[:200], scores[:200])
    unseen = proxy.guesses(iter(texts[200:]), 200)
    assert numpy.corrcoef(unseen, scores[200:])[0, 1] > 0.8
    assert numpy.corrcoef(proxy.held_out, scores[:200])[0, 1] > 0.8
    noise = [draw.gauss(0, 1) for _ in range(200)]
    assert numpy.corrcoef(train_text_proxy(texts[:200], noise).held_out, noise)[0, 1] < 0.2


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [("score >= 8", 8, 7.99), ("score > 8", 8.01, 8), ("score <= -1", -1, -0.99), ("score<1e1", 9.99, 10)],
)
def test_a_cut_says_which_scores_count(text, inside, outside):
    side = parse_cut(text, "score")
    assert side.sign * inside >= side.cut > side.sign * outside


def test_a_cut_may_name_the_score_as_it_is_called():
    assert parse_cut("fit >= 8", "fit").cut == 8
    with pytest.raises(UserError, match="is about 'fit', but the score is called 'score'"):
        parse_cut("fit >= 8", "score")


def test_how_often_the_list_is_right_by_the_truth_is_counted_where_all_is_known():
    truths = [float(row) for row in range(100)]
    found = check_against_truth(truths, [99, 98, 97, 10, 11], 5, None, 1)
    assert (found.known, found.listed, found.right, found.chance) == (100, 5, 3, 0.05)
    assert found.low is None
    assert check_against_truth(truths, [1, 2, 50], None, -2.0, -1).right == 2


def test_the_interval_of_the_truth_covers_what_it_is_about():
    """400 lists of 60 rows of which half have a right score: an exact interval covers at least 95 %."""
    draw = random.Random(3)
    missed = 0
    for _ in range(400):
        worth = [draw.random() for _ in range(600)]
        listed = [row for row in range(600) if worth[row] + draw.gauss(0, 0.3) > 0.9][:60]
        whole = check_against_truth([float(each) for each in worth], listed, None, 0.8, 1)
        some = [each if draw.random() < 0.5 else None for each in worth]
        part = check_against_truth(some, listed, None, 0.8, 1)
        assert part.low is not None and part.high is not None
        missed += not part.low <= whole.right / whole.listed <= part.high
    assert missed <= 400 * 0.05 + 2 * math.sqrt(400 * 0.05 * 0.95)


def test_a_rehearsal_tells_a_good_proxy_from_a_bad_one():
    goal = Goal(5_000, top=200, recall=0.8, assume=Assumption.THINNING)
    good, bad = (sum(rehearse(goal, correlation, 0.0).values()) for correlation in (0.95, 0.1))
    assert good < 0.5 * bad <= 2_500
    assert rehearse(goal, 0.95, 0.0)[How.PILOT] == 283
    assert rehearse(goal, None, 0.0)[How.PILOT] == 283
