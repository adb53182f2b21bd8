"""Scoring rows of a table again, to see whether they get the scores that its receipt vouches for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.columns import OF_A_SCORE
from gristmill.scoring.computation import Computation, computations_in
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import Passes
from gristmill.scoring.questionnaire import Questionnaire, ScoreOptions
from gristmill.scoring.receipt import ScoreReceipt, asked_of, scores_digest, texts_digest
from gristmill.scoring.scale import Scale
from gristmill.user_error import UserError

#: Scores that are no further apart than this share of the scale's width are near: 0.05 of 0..10.
NEAR = 0.005
#: Of an outcome, besides the score: what its bits show in.
_BITS = ("label", "entropy", "off_scale")

#: What is said where a part of the set-up is another; digests tell a person nothing.
_SAID = {
    "engine": "Another engine: {then} then, {now} now.",
    "model": "Another model: {then} then, {now} now.",
    "url": "Another server: {then} then, {now} now.",
    "options": "Other options of the engine: {then} then, {now} now.",
    "fingerprint": "The model's files, its defaults, or an option that changes answers are not those of then.",
    "chat_template": "Another chat template.",
    "precision": "It computes in other numbers: {then} then, {now} now.",
    "build": "Another build of the engine or its kernels: {then} then, {now} now.",
    "threads": "Another number of threads: {then} then, {now} now.",
    "processor": "Another processor: {then} then, {now} now.",
    "reused_answers": "Answers that were kept from earlier may have been used: {then} then, {now} now.",
}


class Verdict(Enum):
    IDENTICAL = "identical"
    NEAR = "near"
    DIFFERENT = "different"


class Apart(NamedTuple):
    """A score that was not the same again. ``row`` from 0; None: no score."""

    row: int
    id: object
    name: str
    then: float | None
    now: float | None

    @property
    def distance(self) -> float:
        return abs(self.then - self.now) if self.then is not None and self.now is not None else float("inf")


class Verification(NamedTuple):
    """``compared`` scores of ``rows`` rows; those that are ``apart``, furthest first; how far they may be to be
    ``near``; sentences on how the set-up differs from the receipt's, and on which of the two tables was ``changed``
    since, in any row."""

    rows: int
    compared: int
    apart: list[Apart]
    near: float
    differences: list[str]
    changed: list[str]

    @property
    def verdict(self) -> Verdict:
        if self.changed:
            # The rows that were drawn say nothing of one that was changed.
            return Verdict.DIFFERENT
        if not self.apart:
            return Verdict.IDENTICAL
        return Verdict.NEAR if self.apart[0].distance <= self.near else Verdict.DIFFERENT


def verify(
    receipt: ScoreReceipt, table: pl.DataFrame, scored: pl.DataFrame, backend: ScoreBackend, rows: int, folder: Path
) -> Verification:
    """Score ``rows`` random rows of ``table`` again, by ``backend``, in the empty ``folder``, and compare them with
    those of ``scored``. Raises UserError."""
    asked = receipt.asked
    if table.height != receipt.table.rows or scored.height != table.height:
        raise UserError(
            f"The receipt is of {receipt.table.rows:,} rows, the table has {table.height:,} and the scored one "
            f"{scored.height:,}: name the table that was scored, and keep its rows in their order."
        )
    if missing := [name for name in asked.names if name not in scored.columns]:
        raise UserError(f"The scored table has no column '{missing[0]}' any more.")
    questionnaire = _questionnaire(receipt, table, backend)
    chosen = sorted(random.SystemRandom().sample(range(table.height), min(rows, table.height)))
    unasked: dict[int, Outcome] = {}
    settings = questionnaire.settings
    passes = Passes(folder, backend, settings, questionnaire.text_of, False)
    with backend.session():
        answers = dict(passes.outcomes(questionnaire.questions(chosen, unasked), settings.method))
    now = {(each.row, each.criterion): outcome for each, outcome in answers.items()}
    for row, outcome in unasked.items():
        now |= {(row, criterion): outcome for criterion in range(len(asked.names))}
    ids = questionnaire.ids
    apart = [
        Apart(row, ids[row], name, then.score, found.score)
        for criterion, name in enumerate(asked.names)
        for row, then in _outcomes_then(scored, name, chosen, receipt.escalated is not None)
        if (found := now.get((row, criterion))) is not None and not same(then, found)
    ]
    apart.sort(key=lambda each: -each.distance)
    differences = setup_differences(receipt.computed, computations_in(folder))
    if asked_of(questionnaire).prompt_sha256 != asked.prompt_sha256:
        differences.append("The prompt is another: this Gristmill words it differently, or asks in another way.")
    near = NEAR * (max(asked.values) - min(asked.values))
    changed = _changed(receipt, questionnaire, table, scored)
    return Verification(len(chosen), len(now), apart, near, differences, changed)


def same(then: Outcome, now: Outcome) -> bool:
    """To the bit. Of a score that a better model was asked for, too, the first model's score is all there is. Pure."""
    if then.before is not None:
        return then.before == now.score
    return then.score == now.score and all(
        getattr(then, field) is None or getattr(then, field) == getattr(now, field) for field in _BITS
    )


def setup_differences(then: Sequence[Computation], now: Sequence[Computation]) -> list[str]:
    """In sentences. Pure."""
    if not then or not now:
        return ["It is not known what computed the scores."]
    told = []
    if len(then) > 1:
        told.append(f"The scores were computed by {len(then)} set-ups; the last of them is compared with this one.")
    old, new = then[-1], now[-1]
    server = (old.engine is None) != (new.engine is None)
    if server:
        told.append("One of the two was computed by a server that we asked: what computes there is not known.")
    for field, sentence in _SAID.items():
        before, after = getattr(old, field), getattr(new, field)
        if before != after and not (server and (field == "options" or None in (before, after))):
            told.append(sentence.format(then=_value(before), now=_value(after)))
    for package in sorted(old.packages.keys() | new.packages.keys()):
        before, after = old.packages.get(package), new.packages.get(package)
        if before != after and not (server and None in (before, after)):
            told.append(f"{package}: {_value(before)} then, {_value(after)} now.")
    return told


def _value(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={each}" for key, each in value.items()) or "none"
    return "not known" if value is None else str(value)


def _questionnaire(receipt: ScoreReceipt, table: pl.DataFrame, backend: ScoreBackend) -> Questionnaire:
    """The same questions, from what the receipt has kept of them."""
    asked = receipt.asked
    # The rubric and the examples come below: they have been filled in already.
    options = ScoreOptions(
        id_column=asked.id_column,
        row=asked.row,
        columns=asked.columns,
        criteria=asked.criteria,
        method="generate" if asked.method == "generate" else "labels",
        reason=asked.reason,
        name=asked.names[0],
        most_off_scale=asked.most_off_scale,
    )
    questionnaire = Questionnaire(table, "as in the receipt", Scale(asked.labels, asked.values), options, backend)
    instrument = questionnaire.settings.instrument._replace(rubric=asked.rubric, examples=tuple(asked.examples))
    questionnaire.settings = questionnaire.settings._replace(instrument=instrument)
    return questionnaire


def _outcomes_then(scored: pl.DataFrame, name: str, rows: Sequence[int], escalated: bool) -> list[tuple[int, Outcome]]:
    columns = {"score": name} | {field: f"{name}_{field}" for field in OF_A_SCORE if field != "score"}
    if not escalated:
        # Where no better model was asked, a score stands for itself.
        del columns["before"]
    kept = {field: scored[full].cast(OF_A_SCORE[field]) for field, full in columns.items() if full in scored.columns}
    found = []
    for row in rows:
        values = {field: column[row] for field, column in kept.items()}
        outcome = Outcome(values.get("method") or "labels", score=values["score"])
        told = {field: values.get(field) for field in (*_BITS, "before")}
        found.append((row, msgspec.structs.replace(outcome, **told)))
    return found


def _changed(
    receipt: ScoreReceipt, questionnaire: Questionnaire, table: pl.DataFrame, scored: pl.DataFrame
) -> list[str]:
    told = []
    if texts_digest(questionnaire, table.height) != receipt.table.sha256:
        told.append("The table is another one: what is sent of its rows is not what was sent.")
    if scores_digest(scored, receipt.asked.names) != receipt.scores.sha256:
        told.append("The scores in the scored table are not those that it was written with.")
    return told
