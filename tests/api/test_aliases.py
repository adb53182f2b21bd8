"""Aliases: other names for the engine's models, asked for directly, in streams and by the lines of a batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from gristmill.batches.input_reader import InputReader, Limits
from gristmill.client import Client
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.simulated import SimulatedEngine, SimulatedOptions
from gristmill.scoring.remote import RemoteBackend
from gristmill.user_error import UserError
from requests_jsonl import chat_line, jsonl
from server_process import ServerProcess

ALIAS = "gpt-4o-mini"
QUESTION = [{"role": "user", "content": "How are you?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    aliases = ("--alias", f"{ALIAS}=simulated", "--alias", "other=simulated")
    with ServerProcess(tmp_path_factory.mktemp("data"), *aliases) as running:
        yield running


def test_models_are_listed_with_their_aliases(server: ServerProcess) -> None:
    client = server.client()
    assert [(each.id, each.root) for each in client.models.list()] == [  # type: ignore[attr-defined]
        ("simulated", "simulated"), (ALIAS, "simulated"), ("other", "simulated"),
    ]  # fmt: skip
    assert client.models.retrieve(ALIAS).root == "simulated"  # type: ignore[attr-defined]
    assert Client(server.base_url).only_model() == "simulated"
    assert RemoteBackend(Client(server.base_url), None).model == "simulated"
    assert RemoteBackend(Client(server.base_url), ALIAS).model == ALIAS
    with pytest.raises(UserError, match="no model 'nobody'. It has: simulated"):
        assert RemoteBackend(Client(server.base_url), "nobody").model


def test_an_alias_is_answered_as_the_model_under_its_own_name(server: ServerProcess) -> None:
    client = server.client()
    own, by_alias = (client.chat.completions.create(model=name, messages=QUESTION) for name in ("simulated", ALIAS))
    assert by_alias.model == own.model == "simulated"
    assert by_alias.choices[0].message.content == own.choices[0].message.content
    chunks = list(client.chat.completions.create(model=ALIAS, messages=QUESTION, stream=True))
    assert {chunk.model for chunk in chunks} == {"simulated"}
    assert client.completions.create(model=ALIAS, prompt="One two").model == "simulated"
    assert {chunk.model for chunk in client.completions.create(model=ALIAS, prompt="One", stream=True)} == {"simulated"}


def test_lines_of_a_batch_may_ask_by_any_name(server: ServerProcess, tmp_path: Path) -> None:
    rows = [chat_line(f"row-{i}", model=name) for i, name in enumerate(("other", "simulated", ALIAS))]
    (tmp_path / "rows.jsonl").write_bytes(jsonl(rows))
    client = Client(server.base_url)
    batch = client.wait(client.submit(tmp_path / "rows.jsonl"))
    assert (batch.status, batch.request_counts.completed, batch.model) == ("completed", 3, "simulated")
    client.save(batch, tmp_path / "out.jsonl")
    answers = [json.loads(line)["response"]["body"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["model"] for answer in answers] == ["simulated"] * 3


def test_a_rejected_model_says_which_there_are_in_every_place_alike(server: ServerProcess, tmp_path: Path) -> None:
    said = f"The model 'gpt-9' does not exist here. This server has: simulated, {ALIAS}, other."
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as refused:
            server.client().chat.completions.create(model="gpt-9", messages=QUESTION, stream=stream)
        assert (refused.value.code, refused.value.body["message"]) == ("model_not_found", said)  # type: ignore[index]
    with pytest.raises(openai.NotFoundError, match="This server has: simulated"):
        server.client().models.retrieve("gpt-9")
    (tmp_path / "rows.jsonl").write_bytes(jsonl([chat_line("row", model="gpt-9")]))
    client = Client(server.base_url)
    batch = client.wait(client.submit(tmp_path / "rows.jsonl"))
    assert batch.status == "failed" and batch.errors is not None
    (error,) = batch.errors.data
    assert (error.code, error.message, error.param, error.line) == ("model_not_found", said, "body.model", 1)


def test_lines_that_ask_for_different_models_are_still_told_apart() -> None:
    names = {"one": "one", "two": "two", "alias": "one"}
    reader = InputReader("/v1/chat/completions", None, names, Limits())
    rows = [chat_line(f"row-{i}", model=name) for i, name in enumerate(("alias", "one", "two"))]
    list(reader.feed(jsonl(rows)))
    assert [(error.code, error.line) for error in reader.found()] == [("mismatched_model", 3)]
    assert reader.model == "one"


def test_many_models_are_not_all_listed() -> None:
    reader = InputReader("/v1/chat/completions", None, {f"m{i}": f"m{i}" for i in range(30)}, Limits())
    list(reader.feed(jsonl([chat_line("row", model="gpt-9")])))
    (error,) = reader.found()
    assert error.message.endswith("m18, m19, and 10 more.")


async def test_answers_are_not_reused_where_an_alias_stands_for_something_else() -> None:
    engine = SimulatedEngine(SimulatedOptions(), model="simulated")
    found = {
        await Dispatcher(engine, aliases=aliases).fingerprint()
        for aliases in ({}, {"a": "simulated"}, {"a": "simulated", "b": "simulated"})
    }
    assert len(found) == 3


async def test_answers_are_not_reused_that_were_given_by_other_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = Dispatcher(SimulatedEngine(SimulatedOptions(), model="simulated"))
    before = await dispatcher.fingerprint()
    monkeypatch.setattr("gristmill.dispatch.dispatcher._ANSWER_RULES", 3)
    assert await dispatcher.fingerprint() != before
