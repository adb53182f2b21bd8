"""The groups of questions that the judge is asked, one after another, each an ordinary pass in a folder of its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from gristmill.batches.job_folder import write_whole
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.passes import Passes, PassSettings
from gristmill.scoring.questions import Question
from gristmill.scoring.rank.stored import read_stored
from gristmill.wire.batch import Batch

#: In the folder of a group that has been asked about.
ENDED = "judged.json"


class Questions(Protocol):
    """One question for each of the numbers it is asked about, such as the rows of a table."""

    settings: PassSettings

    def text_of(self, row: int) -> str: ...

    def questions(self, rows: Iterable[int], unasked: dict[int, Outcome]) -> Iterator[Question]: ...


class _Group(msgspec.Struct):
    """What came of one; ``outcomes`` by row. ``number``: how many had ended before it. ``attempt``: whose it was."""

    batches: list[Batch]
    outcomes: list[tuple[int, Outcome]]
    number: int
    attempt: str


class Judging:
    """Asks one backend about rows, and nothing twice: what was found in the folder before is known. Rows that another
    ``attempt`` got no answer about are asked again, once: what was wrong may have been mended. One that goes on in
    another process is the same attempt: what it asks is what that has begun to ask."""

    def __init__(self, folder: Path, backend: ScoreBackend, questionnaire: Questions, attempt: str) -> None:
        self._folder = folder
        self._attempt = attempt
        self._backend = backend
        self._questionnaire = questionnaire
        self.batches: list[Batch] = []
        self.outcomes: dict[int, Outcome] = {}
        #: Ended ones in all, and those that asked about rows for the first time.
        self._groups = self._first = 0
        self._unanswered: set[int] = set()
        stored = [read_stored(ended, _Group) for ended in sorted(folder.glob(f"*/{ENDED}"))]
        for group in sorted((each for each in stored if each is not None), key=lambda each: each.number):
            self._add(group)

    def most_scored(self, rows: Sequence[int]) -> int:
        """How many of these have a score, or may get one when ``outcomes_of`` them is wanted."""
        known = self.outcomes
        return sum(row not in known or known[row].score is not None or row in self._unanswered for row in rows)

    def outcomes_of(self, rows: Sequence[int], check_scale: bool = False) -> list[Outcome]:
        """In the order of ``rows``. ``check_scale``: end in one sentence where most answers are off the scale. Raises
        UserError, and Interrupted where a signal ended it before."""
        # In the table's order: rows that are alike stand together there, and the same rows are the same batch.
        new = sorted(row for row in rows if row not in self.outcomes or row in self._unanswered)
        if new:
            folder = self._folder / self._name(new)
            settings, text_of = self._questionnaire.settings, self._questionnaire.text_of
            passes = Passes(folder, self._backend, settings, text_of, check_scale)
            unasked: dict[int, Outcome] = {}
            questions = self._questionnaire.questions(new, unasked)
            answered = {
                question.row: outcome for question, outcome in passes.outcomes(questions, settings.method)
            } | unasked
            missing = Outcome(settings.method.name, error="there is no answer", unanswered=True)
            found = [(row, answered.get(row, missing)) for row in new]
            group = _Group(passes.batches, found, self._groups, self._attempt)
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / ENDED, msgspec.json.encode(group))
            self._add(group)
        return [self.outcomes[row] for row in rows]

    def forget(self) -> None:
        """All is asked again next time: where every answer failed, something was wrong that can be mended."""
        shutil.rmtree(self._folder)

    def _name(self, rows: Sequence[int]) -> str:
        """Of the folder: the same in every process that comes to ask about these rows at this place, whatever was asked
        again before."""
        digest = hashlib.sha256(msgspec.json.encode(rows)).hexdigest()[:12]
        if all(row in self.outcomes for row in rows):
            before = len(list(self._folder.glob(f"again-*-{digest}/{ENDED}")))
            return f"again-{before:03}-{digest}"
        return f"{self._first:03}-{digest}"

    def _add(self, group: _Group) -> None:
        self._groups += 1
        self._first += any(row not in self.outcomes for row, _ in group.outcomes)
        self.batches.extend(group.batches)
        self.outcomes.update(group.outcomes)
        for row, outcome in group.outcomes:
            if outcome.unanswered and group.attempt != self._attempt:
                self._unanswered.add(row)
            else:
                self._unanswered.discard(row)
