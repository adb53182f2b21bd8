"""What a model brings along holds where a request does not say otherwise, and only there."""

from __future__ import annotations

from typing import Any

import pytest
from byte_vocabulary import ByteVocabulary

from gristmill.engines.embedded.generation import Generation, GenerationRequest
from gristmill.engines.embedded.grammar import Grammars
from gristmill.engines.embedded.label_scoring import LabelScoring
from gristmill.engines.embedded.preparation import RequestReader
from gristmill.engines.embedded.sampler import Sampled
from gristmill.engines.request_frames import Submit, SubmitScore
from gristmill.models.defaults import ModelDefaults, Parameters
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.completions import CompletionRequest

TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}{{ '>' if add_generation_prompt }}"
VOCABULARY = ByteVocabulary(TEMPLATE)


def reader(system: str | None = None, messages: tuple[Message, ...] = (), **parameters: Any) -> RequestReader:
    defaults = ModelDefaults(system=system, messages=messages, parameters=Parameters(**parameters))
    return RequestReader(VOCABULARY, Grammars(VOCABULARY, frozenset({0})), 200, defaults)


def prepared(model: RequestReader, *messages: Message, **asked: Any) -> Generation:
    request = ChatCompletionRequest(list(messages) or [Message("user", "Hi")], "m", **asked)
    found = model.read(Submit(1, chat=request))
    assert isinstance(found, GenerationRequest)
    return found.generations[0]


def prompt(generation: Generation) -> str:
    return bytes(generation.sequence.tokens).decode()


def answer(generation: Generation, text: str) -> tuple[str, str | None]:
    """What comes of it where the model says ``text``."""
    for token in text.encode():
        if generation.finish_reason is None:
            generation.accept(Sampled(token, None, None), VOCABULARY, frozenset({0}))
    return generation.result().text, generation.finish_reason


def test_parameters_hold_until_a_request_says_otherwise() -> None:
    model = reader(temperature=0.3, top_p=0.9, top_k=7, min_p=0.1, presence_penalty=1.0, seed=5, repetition_penalty=1.2)
    sampling = prepared(model).state().sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.3, 0.9, 7, 0.1)
    assert (sampling.presence_penalty, sampling.seed, sampling.repetition_penalty) == (1.0, 5, 1.2)
    sampling = prepared(
        model, temperature=0.0, top_p=1.0, top_k=-1, min_p=0.0, presence_penalty=0.0, seed=0, repetition_penalty=1.0
    ).state().sampling  # fmt: skip
    assert sampling[:5] == (0.0, 1.0, 0, 0.0, 1.0)
    assert (sampling.presence_penalty, sampling.seed) == (0.0, 0)


def test_they_hold_for_text_completions_too() -> None:
    request = CompletionRequest("Hi", "m")
    found = reader(temperature=0.3, system="Be brief.").read(Submit(1, text=request))
    assert isinstance(found, GenerationRequest)
    assert found.generations[0].state().sampling.temperature == 0.3
    assert bytes(found.generations[0].sequence.tokens) == b"\x01Hi"


def test_stop_strings_and_the_limit_of_tokens() -> None:
    model = reader(stop=("END",), max_tokens=8)
    assert answer(prepared(model), "Yes. END") == ("Yes. ", "stop")
    assert answer(prepared(model), "0123456789") == ("01234567", "length")
    assert answer(prepared(model, stop=["6"], max_tokens=20), "END 5 6 7") == ("END 5 ", "stop")
    assert answer(prepared(model, stop=[]), "END 5 6 7") == ("END 5 6 ", "length")
    # A default that does not fit is no fault of the request's.
    assert answer(prepared(reader(max_tokens=10_000)), "a" * 300)[1] == "length"


def test_the_repetition_window_is_the_models_and_a_requests_penalty_is_over_all() -> None:
    model = reader(repetition_penalty=1.5, repetition_window=3)
    assert prepared(model).state().repeated == set(b"i;>")
    generation = prepared(model, repetition_penalty=1.1)
    assert generation.state().repeated == set(b"u:Hi;>")
    answer(generation, "xy")
    assert generation.state().repeated == set(b"u:Hi;>xy")
    assert not prepared(model, repetition_penalty=1.0).state().repeated


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_system_message_is_for_chats_that_begin_with_none(role: str) -> None:
    model = reader("Be brief.", (Message("user", "A"), Message("assistant", "B")))
    assert prompt(prepared(model, Message("user", "Hi"))) == "s:Be brief.;u:A;a:B;u:Hi;>"
    assert prompt(prepared(model, Message(role, "No."), Message("user", "Hi"))) == "u:A;a:B;s:No.;u:Hi;>"


def test_label_scores_are_asked_in_the_same_chat() -> None:
    found = reader("Be brief.").read(SubmitScore(1, "m", [Message("user", "Hi")], None, ["yes", "no"], None))
    assert isinstance(found, LabelScoring)
    probe = found.next_probe()
    assert probe is not None and bytes(probe.sequence.tokens).startswith(b"s:Be brief.;u:Hi;>")
