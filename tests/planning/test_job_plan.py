"""The plan of a job: what its rows share, in which order they run, which of them ask the same."""

from __future__ import annotations

import json
import os
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.common_prefix import common_prefix
from gristmill.planning.job_plan import JobPlanner
from gristmill.planning.prefix_groups import STEP, PrefixGroupTree
from gristmill.planning.prompt_key import prompt_length, row_key
from gristmill.planning.row_order import RowOrder
from gristmill.planning.sorted_keys import SortedKeys
from gristmill.wire.line_body import default_fields, fields_of, with_defaults

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"


def chat(*texts, **parameters):
    roles = ["system"] * (len(texts) - 1) + ["user"]
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    return {"model": "m", "messages": messages, **parameters}


def plan(bodies, tmp_path, endpoint=CHAT, defaults=None):
    planner = JobPlanner(endpoint, defaults, tmp_path)
    for line, body in enumerate(bodies, 1):
        planner.add(line, b"", fields_of(json.dumps({"body": body}).encode()))
    return planner.plan()


def readable(body):
    """The fields of a body, or None where it cannot be taken apart."""
    try:
        return fields_of(b'{"body":' + body + b"}")
    except (ValueError, RecursionError):
        return None


def key(body, endpoint=CHAT, defaults=None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return row_key(endpoint, fields_of(b'{"body":' + raw + b"}"), default_fields(defaults)).key


def prompt(body, endpoint=CHAT):
    whole = key(body, endpoint)
    return whole[: prompt_length(whole)]


SAME = [
    (b'{"model":"m","messages":[{"content":"a\\u00e9","role":"user"}]}', chat("aé")),
    (chat("a", user="x", metadata={"k": "v"}, stream=False), chat("a")),
    (chat("a", temperature=None), chat("a")),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
     {"messages": [{"role": "user", "content": "a"}]}),
    ({"seed": 1, **chat("a")}, chat("a", seed=1)),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_rows_that_ask_the_same_have_the_same_key(one, other):
    assert key(one) == key(other)


DIFFERENT = [
    (chat("a"), chat("b")),
    (chat("a", "b"), chat("ab")),
    (chat("a\x1e"), chat("a")),
    (chat("a\x1euser\x1e\x1eb"), chat("a", "b")),
    (chat("a\0?{}"), chat("a")),
    (chat("a", **{"messages": [{"role": "user", "content": "a", "name": "b"}]}), chat("a")),
    (chat("null"), {"model": "m", "messages": [{"role": "user", "content": None}]}),
    (chat("a"), chat("a", temperature=0)),
    (chat("a"), chat("a", response_format={"type": "json_object"})),
    (chat("a"), chat("a", tools=[{"type": "function"}])),
    ({"messages": [{"role": "user", "content": "a"}]}, {"messages": [{"role": "assistant", "content": "a"}]}),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
     {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "y"}]}]}),
    # Servers differ in what they put between two texts.
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
     {"messages": [{"role": "user", "content": "ab"}]}),
    ({"messages": [{"role": "assistant", "content": "a", "reasoning_content": "b"}]},
     {"messages": [{"role": "assistant", "content": "a", "reasoning_content": "c"}]}),
    ({"messages": [{"role": "assistant", "content": "a", "reasoning_content": "b"}]},
     {"messages": [{"role": "assistant", "content": "a"}]}),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]}]},
     {"messages": [{"role": "user", "content": "a"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_rows_that_ask_something_else_have_another_key(one, other):
    assert key(one) != key(other)


def response(given="a", **parameters):
    return {"model": "m", "input": given, **parameters}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (response(), response("b")),
        (response("x", instructions="a"), response('{"instructions":"a"}x')),
        (response("x", instructions="a"), response('\x1fj{"instructions":"a"}x')),
        (response([{"role": "user", "content": "x"}], instructions="a"),
         response([{"role": '\x1fj{"instructions":"a"}\x1euser', "content": "x"}])),
        (response([{"role": "user", "content": "x"}]), response("user\x1e\x1ex\x1e")),
        (response(), response(tools=[{"type": "function", "name": "f"}])),
        (response(), response(reasoning={"effort": "low"})),
        (response(), response(text={"format": {"type": "json_object"}})),
        (response([{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}]),
         response([{"type": "function_call", "call_id": "a", "name": "f", "arguments": "[]"}])),
    ],
)  # fmt: skip
def test_responses_that_ask_something_else_have_another_key(one, other):
    assert key(one, RESPONSES) != key(other, RESPONSES)


def test_responses_share_what_their_chats_share():
    assert key(response("a"), RESPONSES) == key(response([{"role": "user", "content": "a"}]), RESPONSES)
    assert key(response(metadata={"a": "b"}, store=False), RESPONSES) == key(response(), RESPONSES)
    assert row_key(RESPONSES, readable(json.dumps(response(max_output_tokens=7)).encode()), {}).output_limit == 7
    one, other = (prompt(response(f"candidate {i}", instructions="rubric " * 50), RESPONSES) for i in range(2))
    assert os.path.commonprefix([one, other])[-10:] == b"candidate " and len(one) < 400


def test_settings_are_not_part_of_the_prompt():
    assert prompt(chat("a", temperature=1, max_tokens=3)) == prompt(chat("a", response_format={"type": "json_object"}))


def test_defaults_count_like_fields_of_the_body():
    assert key({"messages": [{"role": "user", "content": "a"}]}, defaults={"model": "m", "seed": 3}) == key(
        chat("a", seed=3)
    )


def test_lines_that_no_model_can_read_are_planned_all_the_same(tmp_path):
    bodies = (b'{"messages":"x"}', b'{"messages":[{"role":"user","content":"\\ud800"}]}', b'{"messages":[1]}')
    planner = JobPlanner(CHAT, None, tmp_path)
    for line, body in enumerate(bodies * 2, 1):
        planner.add(line, body, readable(body))
    assert sorted(planner.plan().order) == [1, 2, 3, 4, 5, 6]


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_prompts_share_as_much_of_the_key_as_of_the_text(beginning, one, other):
    keys = [key(chat("rubric", beginning + end)) for end in (one, other)]
    least = len("rubric") + len(beginning.encode())
    assert common_prefix(*keys) >= least


@given(st.lists(st.binary(max_size=60).map(lambda data: b"shared" * 20 + data), max_size=80), st.integers(1, 3000))
@settings(deadline=None)
def test_sorting_with_little_memory_gives_what_sorting_in_memory_gives(tmp_path_factory, keys, run_bytes):
    sorted_keys = SortedKeys(tmp_path_factory.mktemp("runs"), run_bytes)
    for line, each in enumerate(keys):
        sorted_keys.add(each, line, 7)
    assert [tuple(row) for row in sorted_keys] == sorted((each, line, 7) for line, each in enumerate(keys))


def test_more_runs_than_may_be_open_are_merged(tmp_path):
    numbers = random.Random(1).sample(range(10**6), 1000)
    sorted_keys = SortedKeys(tmp_path, run_bytes=1)
    for line, number in enumerate(numbers):
        sorted_keys.add(b"%06d" % number, line)
    assert [row.key for row in sorted_keys] == [b"%06d" % number for number in sorted(numbers)]
    assert len(list(tmp_path.iterdir())) < 250


ends = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=60)


@given(ends)
@settings(deadline=None)
def test_the_tree_of_sorted_rows_is_the_tree_of_their_prefixes(rows):
    """Against counting every prefix of every row."""
    texts = sorted(
        b"".join(bytes([48 + part]) * STEP for part in row[: row[2]]) + b"%d" % i for i, row in enumerate(rows)
    )
    tree, order = PrefixGroupTree(0), RowOrder()
    before = b""
    for line, text in enumerate(texts):
        shared = common_prefix(before, text)
        order.add(line, 0, tree.add(line, len(text), shared), shared >= STEP)
        before = text
    counted = Counter(text[: STEP * level] for text in texts for level in range(1, len(text) // STEP + 1))
    expected = set()
    for prefix, count in counted.items():
        longer = [other for other in counted if len(other) == len(prefix) + STEP and other.startswith(prefix)]
        if count > 1 and all(counted[other] != count for other in longer):
            expected.add((len(prefix) // STEP, count, sum(len(text) for text in texts if text.startswith(prefix))))
    groups = tree.groups()
    assert {(group.shared_size // STEP, group.rows, group.prompt_size) for group in groups} == expected
    for group in groups:
        assert group.parent_size == (0 if group.parent is None else groups[group.parent].shared_size)
    lines = list(order.lines()[0])
    assert sorted(lines) == list(range(len(texts)))
    for prefix in counted:
        places = [place for place, line in enumerate(lines) if texts[line].startswith(prefix)]
        assert places == list(range(places[0], places[0] + len(places))), "rows of one group run one after another"


def test_rows_of_one_rubric_keep_the_order_of_their_lines(tmp_path):
    bodies = [chat("rubric " * 100, f"row {i * 7919 % 1000}") for i in range(200)]
    found = plan(bodies, tmp_path)
    assert found.in_line_order
    (group,) = found.groups
    assert (group.rows, group.parent, group.first_line) == (200, None, 1)
    assert 700 <= group.shared_size <= 760


def test_rubrics_that_arrive_interleaved_run_one_after_another(tmp_path):
    rubrics = [f"rubric {i} " * 100 for i in range(5)]
    found = plan([chat(rubrics[i % 5], f"row {i}") for i in range(50)], tmp_path)
    assert [(line - 1) % 5 for line in found.order] == [rubric for rubric in range(5) for _ in range(10)]
    assert not found.in_line_order
    assert [group.rows for group in found.groups] == [10] * 5


def test_nested_groups_are_found(tmp_path):
    postings = [f"posting {i} " * 80 for i in range(3)]
    found = plan([chat("rubric " * 200, postings[i % 3], f"candidate {i}") for i in range(60)], tmp_path)
    assert [(group.parent, group.rows) for group in found.groups] == [(None, 60), (0, 20), (0, 20), (0, 20)]
    assert sum(group.saved_size for group in found.groups) > 0.8 * (found.prompt_size - found.computed_size)


def test_groups_with_the_longest_answers_run_first(tmp_path):
    bodies = [chat(f"rubric {i % 2} " * 100, f"row {i}", max_tokens=[10, 500][i % 2]) for i in range(10)]
    assert list(plan(bodies, tmp_path).order) == [2, 4, 6, 8, 10, 1, 3, 5, 7, 9]


def test_rows_that_ask_the_same_without_chance_run_once(tmp_path):
    bodies = [
        chat("a", temperature=0),
        chat("b"),
        chat("a", temperature=0),
        chat("b"),
        chat("a", seed=4),
        chat("a", seed=4),
    ]
    found = plan(bodies, tmp_path)
    assert dict(zip(*found.duplicates, strict=True)) == {3: 1, 6: 5}
    assert sorted(found.order) == [1, 2, 4, 5]


def test_computed_sizes_are_those_of_the_tree(tmp_path):
    bodies = [chat("rubric " * 100, f"row {i:03}") for i in range(100)]
    found = plan(bodies, tmp_path)
    assert found.prompt_size == sum(len(prompt(body)) for body in bodies)
    assert found.computed_size < len(prompt(bodies[0])) + 100 * 8
    assert found.output_limit == found.limited_rows == 0


ODD = [
    b'{"messages":[{"role":"user","content":"a"}],"max_tokens":-5}',
    b'{"messages":[{"role":"user","content":"a"}],"max_tokens":' + b"9" * 40 + b"}",
    b'{"messages":[{"role":"user","content":' + b"[" * 900 + b"]" * 900 + b"}]}",
    b'{"messages":[{"role":"user","content":"a"}],"stop":"\\ud800","logit_bias":{"1":1e999}}',
    b'{"messages":[{"role":"user","content":{"x":' + b"9" * 40 + b"}}]}",
]


@pytest.mark.parametrize("body", ODD)
def test_no_row_is_too_odd_to_be_planned(tmp_path, body):
    planner = JobPlanner(CHAT, None, tmp_path)
    planner._keys._run_bytes = 1  # Every row goes to disk and back.
    for line in (1, 2):
        planner.add(line, body, readable(body))
    found = planner.plan()
    assert sorted(found.order) == [1, 2] and found.output_limit >= 0


@pytest.mark.parametrize(("leading", "own", "expected"), [
    ('"x"', '[{"role":"user"}]', '"x"'), ('{"a":1}', '[{"role":"user"}]', '{"a":1}'), ("[1]", '"x"', '"x"'),
    ("[1]", " [ ] ", "[1]"), ("[]", "[2]", "[2]"), ("[1]", "[2]", "[1,2]"),
])  # fmt: skip
def test_messages_add_up_only_where_both_are_lists(leading, own, expected):
    fields = [{"messages": msgspec.Raw(text.encode())} for text in (own, leading)]
    assert bytes(with_defaults(*fields)["messages"]).decode() == expected
