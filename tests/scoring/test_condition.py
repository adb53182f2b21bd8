from __future__ import annotations

import pytest

from gristmill.scoring.condition import Condition
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.prompt import GENERATE, LABELS
from gristmill.user_error import UserError

UNSURE = Outcome("labels", score=5.2, label="5", entropy=1.9, off_scale=0.1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("entropy > 0.8 or 4 <= score <= 6", True),
        ("entropy > 0.8 and not 4 <= score <= 6", False),
        ("label == '5'", True),
        ("off_scale > 0.2", False),
        ("method == 'labels' and score >= 5.2", True),
    ],
)
def test_conditions_read_like_python(text, expected):
    condition = Condition(text)
    condition.check(LABELS)
    assert condition.holds(UNSURE) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entropy >", "cannot be read"),
        ("doubt > 1", "names 'doubt'. It may use: score, label, entropy"),
        ("score > 'a'", "cannot be told"),
        ("score.__class__", "cannot be told"),
        ("", "cannot be read"),
    ],
)
def test_what_is_no_condition_is_one_clear_error(text, message):
    with pytest.raises(UserError, match=message):
        assert Condition(text).holds(UNSURE) is None


def test_only_labels_know_how_sure_they_are():
    Condition("score > 3").check(GENERATE)
    with pytest.raises(UserError, match="only the method labels gives"):
        Condition("entropy > 3").check(GENERATE)
