from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.access import api_key
from gristmill.access.logins import FAILURE_SECONDS, MAX_FAILURES, FailedLogins


def test_a_key_is_read_as_it_was_written_and_no_two_are_alike() -> None:
    keys = [api_key.new_key() for _ in range(100)]
    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == 100
    for key in keys:
        text = api_key.written(key)
        assert text.startswith("sk-") and api_key.read(text) == key
        # 192 bits, in hexadecimal.
        assert len(key.secret) == 48
        assert api_key.matches(key.secret, api_key.digest(key.secret))
        assert not api_key.matches(key.secret[:-1], api_key.digest(key.secret))
        assert key.secret not in api_key.masked(text)[:-4]


@given(st.text())
def test_anything_else_is_nobodys(text: str) -> None:
    found = api_key.read(text)
    assert found.key_id == "" and not api_key.matches(found.secret, None)
    api_key.masked(text)


def test_no_secret_is_right_where_there_is_no_key() -> None:
    """Not even one whose hash is what unknown keys are compared with."""
    assert not api_key.matches("", None)
    assert not api_key.matches("x", bytes(32))


def test_hashes_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append((one, other)) or compare(one, other))
    right = api_key.digest("right")
    for secret, expected in (("right", right), ("wrong", right), ("wrong", None)):
        api_key.matches(secret, expected)
    assert [one for one, _ in compared] == [hashlib.sha256(each).digest() for each in (b"right", b"wrong", b"wrong")]


def test_failures_of_one_address_are_counted_for_a_minute_and_of_many_for_a_while() -> None:
    failed = FailedLogins()
    assert [failed.note("a", 0.0) for _ in range(MAX_FAILURES)] == [None] * MAX_FAILURES
    assert failed.note("a", 20.0) == round(FAILURE_SECONDS - 20) and failed.note("b", 20.0) is None
    assert failed.note("a", FAILURE_SECONDS) is None
    for number in range(5_000):
        failed.note(str(number), FAILURE_SECONDS)
    assert len(failed._rows) == 1_000


def test_the_guide_has_the_form_of_a_key() -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "share-a-server.md"
    written = next(line.strip() for line in guide.read_text().splitlines() if line.startswith("    sk-gristmill-"))
    assert api_key.read(written).key_id
