from __future__ import annotations

import os.path

from hypothesis import given
from hypothesis import strategies as st

from gristmill.common_prefix import common_prefix


@given(st.text("ab", max_size=300), st.text("ab", max_size=20), st.text("ab", max_size=20), st.integers(-5, 400))
def test_the_common_prefix_is_the_same_whatever_was_guessed(beginning: str, one: str, other: str, guess: int) -> None:
    one, other = beginning + one, beginning + other
    expected = len(os.path.commonprefix([one, other]))
    assert common_prefix(one, other) == common_prefix(one, other, guess) == expected
    assert common_prefix(one.encode(), other.encode(), guess) == expected
