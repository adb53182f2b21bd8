"""What is asked again, of whom, and what is kept: with a backend that answers as it is told."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from gristmill.scoring.backend import PassFiles
from gristmill.scoring.columns import check_names
from gristmill.scoring.conductor import Escalation, Scoring
from gristmill.scoring.prompt import (
    GENERATE,
    LABELS,
    TOP_LOGPROBS,
    TOP_LOGPROBS_BEGUN,
    Instrument,
    Method,
    row_messages,
    shared_body,
)
from gristmill.scoring.questionnaire import ScoreOptions, choose_method
from gristmill.scoring.scale import parse_scale
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

TABLE = pl.DataFrame({"id": ["a", "b", "c", "d"], "text": ["one", "two", "three", "four"]})
SCALE = parse_scale("0..2")
SURE = {"scores": [[0.0, 0.1, 0.9]]}
OFF = {"scores": [[0.1, 0.1, 0.0]]}


def says(content: str, finish: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, "finish_reason": finish}]}


class Told:
    """``answers`` gives, by pass and text, the body of the response, or an int for a status that is an error."""

    def __init__(self, answer: Callable[[str, str], dict[str, Any] | int], labels: Method = LABELS) -> None:
        self._answer = answer
        self.labels_method = labels
        self.model = "told"
        self.place = "in a test"
        self.begins_answers = False
        self.asked: list[tuple[str, list[str]]] = []
        self.shared: dict[str, dict[str, Any]] = {}
        #: How deep in sessions it is, and how many there have been.
        self.depth = self.sessions = 0

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        self.depth, self.sessions = self.depth + 1, self.sessions + 1
        try:
            yield
        finally:
            self.depth -= 1

    def run(
        self, folder: Path, input_file: Path, endpoint: str, shared: dict[str, Any], identity: dict[str, Any]
    ) -> PassFiles:
        assert self.depth == 1
        lines = [json.loads(line) for line in input_file.read_text().splitlines()]
        texts = [line["body"]["messages"][0]["content"].removeprefix("text: ") for line in lines]
        self.asked.append((folder.name, texts))
        self.shared[folder.name] = shared
        good, bad = [], []
        for line, text in zip(lines, texts, strict=True):
            body = self._answer(folder.name, text)
            status, body = (body, {"error": {"message": "refused"}}) if isinstance(body, int) else (200, body)
            answer = {"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}, "error": None}
            (good if status == 200 else bad).append(json.dumps(answer) + "\n")
        (folder / "good").write_text("".join(reversed(good)))
        (folder / "bad").write_text("".join(bad))
        return PassFiles(Batch("b", endpoint, "f", "24h", "completed", 0), [folder / "good", folder / "bad"])


def run(tmp_path: Path, backend: Told, escalation: Escalation | None = None, table=TABLE, **wishes) -> pl.DataFrame:
    options = ScoreOptions(id_column="id", **({"method": "labels"} | wishes))
    return Scoring(table, "Score.", SCALE, options, backend, escalation).run(tmp_path).table


def test_what_the_labels_cannot_say_is_generated(tmp_path):
    def answer(name: str, text: str) -> dict[str, Any] | int:
        if name == "1":
            return OFF if text in ("two", "four") else SURE
        return says('{"score": 1}')

    backend = Told(answer)
    scored = run(tmp_path, backend)
    assert backend.asked == [("1", ["one", "two", "three", "four"]), ("2-off-scale", ["two", "four"])]
    assert scored["score"].to_list() == [pytest.approx(1.9), 1.0, pytest.approx(1.9), 1.0]
    assert scored["score_method"].to_list() == ["labels", "generate", "labels", "generate"]
    assert scored["score_off_scale"].to_list() == pytest.approx([0.0, 0.8, 0.0, 0.8])
    assert backend.shared["1"]["labels"] == [" 0", " 1", " 2"]


MANY = pl.DataFrame({"id": [f"{i:03}" for i in range(300)], "text": [f"row {i}" for i in range(300)]})


def test_a_model_that_keeps_to_no_scale_is_noticed_in_the_first_rows(tmp_path):
    backend = Told(lambda name, text: OFF)
    with pytest.raises(UserError, match=r"(?s)first 50 answers of told, 50 are off the scale.*--method generate"):
        run(tmp_path, backend, table=MANY)
    assert [(name, len(texts)) for name, texts in backend.asked] == [("0-first", 50)]


def test_one_that_mostly_does_is_asked_every_row_once_and_what_is_off_again(tmp_path):
    backend = Told(lambda name, text: says('{"score": 1}') if name[0] == "2" else OFF if "9" in text else SURE)
    scored = run(tmp_path, backend, table=MANY)
    assert [(name, len(texts)) for name, texts in backend.asked] == [("0-first", 50), ("1", 250), ("2-off-scale", 57)]
    assert (backend.sessions, backend.depth) == (1, 0)
    assert scored["score"].null_count() == 0 and scored["id"].equals(MANY["id"])


def test_off_scale_probabilities_can_be_taken_as_they_are(tmp_path):
    backend = Told(lambda name, text: OFF)
    assert run(tmp_path, backend, table=MANY, most_off_scale=1.0)["score"].null_count() == 0


def test_an_answer_is_begun_where_the_engine_can_go_on_from_it():
    instrument = Instrument("Score.", parse_scale("0..10"))
    body = shared_body(instrument, TOP_LOGPROBS_BEGUN)
    assert body["continue_final_message"] and body["add_generation_prompt"] is False
    assert row_messages("a row", None, TOP_LOGPROBS_BEGUN)[-1] == {"role": "assistant", "content": "Score:"}
    assert "continue_final_message" not in shared_body(instrument, TOP_LOGPROBS)
    assert [each["role"] for each in row_messages("a row", None, TOP_LOGPROBS)] == ["user"]


def test_an_answer_that_is_not_valid_is_asked_for_once_more_and_no_more(tmp_path):
    def answer(name: str, text: str) -> dict[str, Any] | int:
        if text == "four":
            return 400
        if name == "1":
            return {"one": says('{"score": 2}'), "two": says("two!"), "three": says('{"sco', "length")}[text]
        return says('{"score": 0}') if text == "two" else says("again no score")

    backend = Told(answer)
    scored = run(tmp_path, backend, method="generate")
    assert backend.asked[1:] == [("3-again", ["two", "three"])]
    assert backend.shared["3-again"]["temperature"] > 0 == backend.shared["1"]["temperature"]
    assert scored["score"].to_list() == [2.0, 0.0, None, None]
    errors = scored["score_error"].to_list()
    assert errors[:2] == [None, None] and "again no score" in errors[2] and errors[3] == "refused"


def test_a_better_model_that_fails_leaves_the_first_score(tmp_path):
    first = Told(lambda name, text: SURE)
    better = Told(lambda name, text: 500 if text == "one" else {"scores": [[1.0, 0.0, 0.0]]})
    better.model = "better"
    scored = run(tmp_path, first, escalation=Escalation("score > 1", better))
    assert better.asked == [("1", ["one", "two", "three", "four"])]
    assert (first.sessions, first.depth, better.sessions, better.depth) == (1, 0, 1, 0)
    assert scored["score"].to_list() == [pytest.approx(1.9), 0.0, 0.0, 0.0]
    assert scored["score_before"].to_list() == [None, *[pytest.approx(1.9)] * 3]
    assert scored["score_model"].to_list() == [None, "better", "better", "better"]
    assert scored["score_error"][0] == "better was asked, too: refused"


def test_rows_too_long_for_any_model_are_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("gristmill.scoring.questionnaire.LONGEST_TEXT", len("text: two"))
    backend = Told(lambda name, text: SURE)
    scored = run(tmp_path, backend)
    assert backend.asked == [("1", ["one", "two"])]
    assert scored["score"].null_count() == 2 and "11 characters" in scored["score_error"][2]


def test_rows_without_any_text_are_not_asked(tmp_path):
    table = TABLE.with_columns(text=pl.Series(["one", None, "", " "]))
    backend = Told(lambda name, text: SURE)
    scored = run(tmp_path, backend, table=table, row="{{ text }}")
    assert backend.asked == [("1", ["one"])]
    assert scored["score_error"].to_list() == [None, *["it is empty"] * 3]


def test_criteria_are_asked_one_by_one_behind_the_row(tmp_path):
    backend = Told(lambda name, text: SURE if text.endswith("craft") else OFF | {"scores": [[1.0, 0.0, 0.0]]})
    scored = run(tmp_path, backend, criteria=["craft", "honesty"])
    assert backend.asked[0][1][:2] == [f"one\n\nScore this criterion: {name}" for name in ("craft", "honesty")]
    assert scored["craft"].to_list() == [pytest.approx(1.9)] * 4 and scored["honesty"].to_list() == [0.0] * 4


def test_what_comparing_needs_is_missed_before_anything_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(UserError, match=r"gristmill\[score\]"):
        Scoring(TABLE, "Score.", SCALE, ScoreOptions(id_column="id", truth="text"), Told(lambda *_: SURE))


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(UserError, match="a column 'text_label' already"):
        check_names(pl.DataFrame({"text_label": ["x"]}), ["text"])


@pytest.mark.parametrize(
    ("name", "labels", "reason", "expected"),
    [
        (None, LABELS, False, LABELS),
        (None, TOP_LOGPROBS, False, GENERATE),
        (None, LABELS, True, GENERATE),
        ("generate", LABELS, False, GENERATE),
        ("labels", TOP_LOGPROBS, False, TOP_LOGPROBS),
    ],
)
def test_the_method_is_what_is_wished_or_the_best_the_engine_has(name, labels, reason, expected):
    options = ScoreOptions(method=name, reason=reason)
    assert choose_method(options, Told(lambda *_: SURE, labels)) is expected


def test_labels_that_begin_alike_are_asked_for_one_token_more():
    for scale, tokens in (("0..9", 1), ("0..10", 2)):
        assert shared_body(Instrument("Score.", parse_scale(scale)), TOP_LOGPROBS)["max_tokens"] == tokens


def test_labels_are_begun_where_the_engine_goes_on_from_them():
    backend = Told(lambda *_: SURE, TOP_LOGPROBS)
    backend.begins_answers = True
    assert choose_method(ScoreOptions(method="labels"), backend) is TOP_LOGPROBS_BEGUN


def test_an_unknown_method_is_refused():
    with pytest.raises(UserError, match="no method 'both'"):
        choose_method(ScoreOptions(method="both"), Told(lambda *_: SURE))


def test_a_column_to_send_that_the_table_lacks_is_refused():
    with pytest.raises(UserError, match="no column 'txt'"):
        Scoring(TABLE, "Score.", SCALE, ScoreOptions(columns=["txt"]), Told(lambda *_: SURE))
