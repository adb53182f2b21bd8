"""What a ranking's certificate came from."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gristmill.scoring.computation import Computation, computations_in
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.rank.identity import PROXY_FOLDER
from gristmill.scoring.rank.judging import ENDED
from gristmill.scoring.receipt import Asked, Rows, asked_of, texts_digest


class RankReceipt(msgspec.Struct, frozen=True):
    """For a ranking's certificate: what judged, what guessed, what was asked, and of which table. No time: the same
    ranking has the same certificate."""

    judge: list[Computation]
    proxy: list[Computation]
    asked: Asked
    table: Rows


def rank_receipt(questionnaire: Questionnaire, folder: Path, rows: int, file: str | None) -> RankReceipt:
    """Of a ranking kept in ``folder``, before that goes. ``file``: the table, as seen from the certificate's folder."""
    proxy = computations_in(folder / PROXY_FOLDER)
    # Its scores, and its choices where rows were compared; not what was begun and given up.
    judge: list[Computation] = []
    for ended in sorted(folder.rglob(ENDED)):
        if not ended.is_relative_to(folder / PROXY_FOLDER):
            judge += [each for each in computations_in(ended.parent) if each not in judge]
    table = Rows(file, rows, texts_digest(questionnaire, rows))
    return RankReceipt(judge, proxy, asked_of(questionnaire), table)
