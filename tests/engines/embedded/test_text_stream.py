from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.embedded.generation import TextStream

texts = st.text("abcé😀", max_size=12)


@given(texts, st.lists(st.text("abé", min_size=1, max_size=4), max_size=3), st.randoms())
def test_text_ends_right_before_the_first_stop_string_wherever_tokens_are_cut(text, stops, random):
    raw = text.encode()
    stream, released = TextStream(stops), ""
    while raw and not stream.stopped:
        size = random.randint(1, 3)
        released += stream.push(raw[:size])
        raw = raw[size:]
    released += stream.finish()
    found = [text.find(stop) for stop in stops if stop in text]
    # Of overlapping stop strings, the one that is complete first ends the answer.
    if found:
        assert stream.stopped and stream.stop in stops
        assert text.startswith(released + stream.stop)
        assert not any(stop in released for stop in stops)
    else:
        assert released == text
    assert released == stream.text


def test_what_may_become_a_stop_string_is_held_back():
    stream = TextStream(["END"])
    assert stream.push(b"xE") == "x"
    assert stream.push(b"N") == ""
    assert stream.push(b"E") == "EN"
    assert stream.push(b"ND") == ""
    assert stream.stopped
    assert stream.text == "xEN"


def test_half_a_character_is_held_back_and_replaced_only_at_the_end():
    stream = TextStream([])
    assert stream.push("é".encode()[:1]) == ""
    assert stream.push("é".encode()[1:]) == "é"
    assert stream.push("é".encode()[:1]) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"
