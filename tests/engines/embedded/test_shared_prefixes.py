"""Which prefixes are kept: those that several requests of batches share, and no row's own."""

from __future__ import annotations

import itertools

from gristmill.engines.embedded.prefix_files.shared_prefixes import LEAST_TOKENS, SharedPrefixes

RUBRIC = list(range(1000, 2675))
OTHER = list(range(5000, 6675))


def test_a_prefix_is_known_once_three_requests_have_found_it() -> None:
    shared = SharedPrefixes()
    assert shared.find(2, RUBRIC) is None
    assert shared.find(3, RUBRIC) is None
    found = shared.find(4, RUBRIC)
    assert found is not None and found.tokens.tolist() == RUBRIC
    assert shared.find(5, RUBRIC) is found


def test_rows_that_happen_to_begin_alike_do_not_add_to_it() -> None:
    shared = SharedPrefixes()
    for request, more in enumerate(([7, 7, 8], [7, 9], [])):
        shared.find(request, [*RUBRIC, *more])
    found = shared.find(4, [*RUBRIC, 7, 7])
    assert found is not None and found.tokens.tolist() == RUBRIC


def test_choices_of_one_request_are_one_finder() -> None:
    shared = SharedPrefixes()
    document = [*RUBRIC, *range(400)]
    assert [shared.find(1, document) for _ in range(20)] == [None] * 20
    assert [shared.find(2, document) for _ in range(20)] == [None] * 20


def test_a_rubric_within_another_is_one_of_its_own() -> None:
    """A system prompt before several rubrics: the first row of each finds it, the others their rubric."""
    shared = SharedPrefixes()
    requests = itertools.count()
    for rubric in ([1] * 300, [2] * 300, [3] * 300):
        shared.find(next(requests), RUBRIC)
        found = [shared.find(next(requests), RUBRIC + rubric) for _ in range(4)]
        assert found[2] is not None and found[2].tokens.tolist() == RUBRIC + rubric
    system = shared.find(next(requests), RUBRIC)
    assert system is not None and system.tokens.tolist() == RUBRIC


def test_what_is_short_is_never_kept() -> None:
    shared = SharedPrefixes()
    assert all(shared.find(request, RUBRIC[: LEAST_TOKENS - 1]) is None for request in range(10))


def test_what_is_common_to_two_prefixes_only_at_their_beginning_does_not_make_them_one() -> None:
    shared = SharedPrefixes()
    for request in range(2):
        shared.find(request, RUBRIC[:300] + OTHER)
        shared.find(10 + request, RUBRIC[:300] + RUBRIC)
    found = shared.find(2, RUBRIC[:300] + OTHER)
    assert found is not None and found.tokens.tolist() == RUBRIC[:300] + OTHER


def test_it_remembers_the_last_ones_only() -> None:
    shared = SharedPrefixes()
    shared.find(0, RUBRIC)
    shared.find(1, RUBRIC)
    for request in range(2, 200):
        shared.find(request, [request] * 300)
    assert shared.find(200, RUBRIC) is None
    assert len(shared._prefixes) <= 64
