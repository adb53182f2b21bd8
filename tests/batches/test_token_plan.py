"""Exact tokens of a plan, by a tokenizer file."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from gristmill.batches.input_plan import plan_file
from gristmill.batches.input_reader import Limits
from gristmill.batches.token_plan import count_tokens
from gristmill.engines.embedded.tokenizer import SegmentEncoder, TokenizerFile
from gristmill.engines.registry import open_tokenizer
from gristmill.planning.token_bill import group_bills
from gristmill.user_error import UserError
from requests_jsonl import CHAT

tokenizers = pytest.importorskip("tokenizers", reason="pip install 'gristmill[embedded]' to run this")

TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|start|>{{ message.role }}\n{{ message.content }}<|end|>{% endfor %}<|start|>assistant"
)
WORDS = ("mill", "stone", "grain", "flour", "sack", "river", "bridge", "horse", "cart", "field")


def words(count: int, seed: int) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(count))


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """Byte-level BPE, trained on a few words."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|start|>", "<|end|>"], initial_alphabet=alphabet
    )
    made.train_from_iterator([words(200, seed) for seed in range(20)], trainer)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    path.with_name("tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "eos_token": "<|end|>"}))
    return path


def write(path: Path, bodies: list[dict]) -> Path:
    lines = [
        json.dumps({"custom_id": f"row-{i}", "method": "POST", "url": CHAT, "body": {"model": "m"} | body})
        for i, body in enumerate(bodies)
    ]
    # Blank lines are no rows, but have a number.
    path.write_text("\n\n".join(lines))
    return path


def chat(system: str, user: str, **parameters) -> dict:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {"messages": messages} | parameters


def test_every_token_is_counted_and_so_is_what_neighbours_share(tmp_path, tokenizer_file):
    rubrics = [words(300, seed) for seed in range(3)]
    bodies = [chat(rubrics[i % 3], f"candidate {i} {words(5, i)}", temperature=0) for i in range(60)]
    bodies.append(bodies[7])
    path = write(tmp_path / "rows.jsonl", bodies)
    plan = plan_file(path, CHAT, None, Limits(), tmp_path)
    counted = count_tokens(path, CHAT, None, plan, open_tokenizer(str(tokenizer_file)))

    whole = tokenizers.Tokenizer.from_file(str(tokenizer_file))

    def ids(body: dict) -> list[int]:
        text = "".join(f"<|start|>{each['role']}\n{each['content']}<|end|>" for each in body["messages"])
        return whole.encode(text + "<|start|>assistant").ids

    # Every other line is blank.
    ordered = [ids(bodies[line // 2]) for line in plan.order]
    shared = [0]
    for one, other in itertools.pairwise(ordered):
        shared.append(next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b))
    assert counted.prompt_size == sum(len(ids(body)) for body in bodies)
    assert counted.computed_size == sum(map(len, ordered)) - sum(shared)
    assert counted.longest_prompt == max(map(len, ordered))
    assert counted.order == plan.order and len(counted.order) == 60
    assert [(group.rows, group.shared) for group in group_bills(counted.groups, 1)] == [
        (20, min(shared[place : place + 20][1:])) for place in (0, 20, 40)
    ]


def test_a_prompt_the_template_refuses_is_named_by_its_line(tmp_path, tokenizer_file):
    bodies = [chat("r", "a"), {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}]
    path = write(tmp_path / "rows.jsonl", bodies)
    plan = plan_file(path, CHAT, None, Limits(), tmp_path)
    with pytest.raises(UserError, match=r"line 3 of .*no tools"):
        count_tokens(path, CHAT, None, plan, open_tokenizer(str(tokenizer_file)))


def test_chat_messages_without_a_chat_template_are_refused_by_line(tmp_path, tokenizer_file):
    tokenizer_file.with_name("tokenizer_config.json").unlink()
    path = write(tmp_path / "rows.jsonl", [chat("r", "a")])
    plan = plan_file(path, CHAT, None, Limits(), tmp_path)
    with pytest.raises(UserError, match="line 1 of .*no chat template"):
        count_tokens(path, CHAT, None, plan, open_tokenizer(str(tokenizer_file)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "There is no tokenizer file"),
        ("damaged.json", "{}", "cannot be read"),
        ("nowhere", None, "nowhere"),
    ],
)
def test_a_tokenizer_that_is_none_is_one_clear_error(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_text(content)
    with pytest.raises(UserError, match=message):
        open_tokenizer(name)


def test_where_segments_encode_differently_texts_are_encoded_as_a_whole(tokenizer_file):
    class Begins(TokenizerFile):
        """Takes a text's beginning for something else, as tokenizers do that put a space before it."""

        def encode(self, text: str, special_tokens: bool) -> list[int]:
            return [0, *super().encode(text, special_tokens)]

    encoder = SegmentEncoder(Begins(tokenizer_file))
    for _ in range(3):
        assert encoder.encode("<|start|>mill<|end|>", False).count(0) == 2
