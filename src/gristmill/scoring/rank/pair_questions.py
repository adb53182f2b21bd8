"""What is asked about two rows: which of them is better."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gristmill.scoring.outcome import Outcome
from gristmill.scoring.prompt import Instrument, Wording
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.questions import Question
from gristmill.scoring.rank.pairing import Pair
from gristmill.scoring.scale import Scale

#: An answer's score is the probability of A, the row that is named first.
_SCALE = Scale(("B", "A"), (0.0, 1.0))
_TASK = "Two are given, A and B. Do not score them: compare them by all that is said above, and choose the better one."


class PairQuestions:
    """The questions about pairs of rows of one table, by the rubric that it is scored by. Those about pair p are 2 p,
    where its first row is named first, and 2 p + 1, where its second is."""

    def __init__(self, questionnaire: Questionnaire, pairs: Sequence[Pair]) -> None:
        """``pairs`` of rows of the table."""
        self.settings = questionnaire.settings._replace(instrument=choosing(questionnaire.settings.instrument))
        self._pairs = pairs
        # In the table's order, which is cheap.
        rows = sorted({row for pair in pairs for row in pair})
        self._texts = {row: questionnaire.text_of(row) for row in rows}

    def text_of(self, row: int) -> str:
        pair = self._pairs[row // 2]
        first, second = pair[::-1] if row % 2 else pair
        return f"A:\n{self._texts[first]}\n\nB:\n{self._texts[second]}\n\nWhich of the two is better, A or B?"

    def questions(self, rows: Iterable[int], unasked: dict[int, Outcome]) -> Iterator[Question]:
        return (Question(row, 0) for row in rows)


def choosing(instrument: Instrument) -> Instrument:
    """By the rubric of one that scores. Its examples are scores, and left out."""
    return Instrument(
        rubric=f"{instrument.rubric}\n\n{_TASK}",
        scale=_SCALE,
        reason=instrument.reason,
        # The labels from the last to the first: "one of A, B".
        wording=Wording(reversed_scale=True),
        asked_for="choice",
    )
