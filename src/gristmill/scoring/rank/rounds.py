"""The rounds in which the rows found are compared in pairs, each an ordinary pass in a folder of its own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.prompt import shared_body
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.rank.compared import Answered
from gristmill.scoring.rank.judging import Judging
from gristmill.scoring.rank.pair_questions import PairQuestions, choosing
from gristmill.scoring.rank.pairing import pairs_of_rounds
from gristmill.user_error import UserError


def question_length(questionnaire: Questionnaire, rows: Sequence[int]) -> float:
    """Of a question about two rows, by that of the one about a row: counted in characters, over these ``rows``."""
    instrument, method = questionnaire.settings.instrument, questionnaire.settings.method
    one, two = (_length(shared_body(each, method)) for each in (instrument, choosing(instrument)))
    own = sum(len(questionnaire.text_of(row)) for row in sorted(rows)) / max(len(rows), 1)
    return (two + 2 * own) / (one + own)


def _length(shared: dict[str, Any]) -> int:
    return sum(len(message["content"]) for message in shared["messages"])


def compare_in_rounds(
    folder: Path,
    backend: ScoreBackend,
    questionnaire: Questionnaire,
    rows: Sequence[int],
    rounds: int,
    seed: int,
    attempt: str,
    tell: Callable[[str], None],
) -> Answered:
    """``folder`` keeps what has been asked about these rows. Raises UserError, also where the first round has no
    answer, and Interrupted where a signal ended it before."""
    digest = hashlib.sha256(msgspec.json.encode(list(rows))).hexdigest()
    by_round = [[(rows[one], rows[other]) for one, other in each] for each in pairs_of_rounds(len(rows), rounds, seed)]
    pairs = [pair for of_round in by_round for pair in of_round]
    judging = Judging(folder / digest[:12], backend, PairQuestions(questionnaire, pairs), attempt)
    shares: list[float] = []
    error = None
    for number, of_round in enumerate(by_round, 1):
        tell(f"Round {number} of {rounds}: {len(of_round):,} pairs of the {len(rows):,} rows are compared.")
        outcomes = judging.outcomes_of(range(len(shares), len(shares) + 2 * len(of_round)))
        error = error or next((each.error for each in outcomes if each.score is None), None)
        shares += [math.nan if each.score is None else each.score for each in outcomes]
        if number == 1 and all(map(math.isnan, shares)):
            judging.forget()
            raise UserError(
                f"{backend.model} answered none of the {len(shares):,} questions of the first round, so that nothing "
                f"more was compared: {error} Without rounds, it ends with what was judged."
            )
    second = [1 - share for share in shares[1::2]]
    return Answered(pairs, shares[::2], second, error, judging.batches)
