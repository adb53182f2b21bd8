"""A whole ranking: the judge is asked about the rows that the course wants, until it has ended.

Nothing but a folder remembers what has been asked. A ranking that is begun anew in it walks the same course over what
is stored there, and comes to the same end.
"""

from __future__ import annotations

import functools
import math
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from gristmill.extras import require
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.rank.compared import Compared, compared
from gristmill.scoring.rank.course import decide
from gristmill.scoring.rank.ended import Certificate, NotCertified
from gristmill.scoring.rank.evidence import Evidence, How, Judge, Judged
from gristmill.scoring.rank.goal import Goal
from gristmill.scoring.rank.guesses import Guesses, stored_guesses
from gristmill.scoring.rank.identity import PROXY_FOLDER, check_identity, identity_of
from gristmill.scoring.rank.judging import Judging
from gristmill.scoring.rank.listing import ACCEPTED, FOUND, check_columns, listing
from gristmill.scoring.rank.promise import About, Parties
from gristmill.scoring.rank.proxies import Pilot, Proxy
from gristmill.scoring.rank.rounds import compare_in_rounds, question_length
from gristmill.scoring.rank.side import check_cut, parse_cut
from gristmill.scoring.rank.step_words import step_sentence
from gristmill.scoring.rank.truth_check import TruthCheck, check_against_truth
from gristmill.scoring.rank.wish import MOST_COMPARED, RankWish, goal_of
from gristmill.scoring.spearman import spearman
from gristmill.scoring.table import truth_values
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch


class Ranked(NamedTuple):
    """``table``: the rows found, the best first, with their scores; ``rows``: which they are, from 0. ``outcomes`` and
    ``found`` (how each was come by) in the same order. ``correlation``: of the proxy's ranks with the judge's, on the
    pilot, None where it cannot be told. ``compared``: what came of the rounds, which the order is by then."""

    table: pl.DataFrame
    rows: Sequence[int]
    outcomes: Sequence[Outcome]
    found: Sequence[str]
    end: Certificate | NotCertified
    correlation: float | None
    judge_batches: Sequence[Batch]
    proxy_batches: Sequence[Batch]
    truth: TruthCheck | None
    compared: Compared | None


class Progress(NamedTuple):
    """Rows ``judged`` before the present step, and those that it ``asks`` about."""

    judged: int = 0
    asks: int = 0


class PilotDone(NamedTuple):
    """What a plan is made of: the pilot's guesses and scores (NaN where there is none), in its order, and what the two
    took. ``goal``: scores and guesses are turned by ``sign`` for it. ``length``: of a question about two rows in one of
    the ``rounds``, by that of the one about a row."""

    goal: Goal
    sign: int
    guesses: Any
    scores: Any
    judge_batches: Sequence[Batch]
    proxy_batches: Sequence[Batch]
    rounds: int | None
    length: float


class Ranking:
    """Of one table, by one judge, with one proxy."""

    def __init__(
        self,
        table: pl.DataFrame,
        questionnaire: Questionnaire,
        judge: ScoreBackend,
        proxy: Proxy,
        wish: RankWish,
        truth: str | None = None,
        tell: Callable[[str], None] = lambda _: None,
        attempt: str | None = None,
    ) -> None:
        """``truth``: the column of right scores. ``tell`` is told in a sentence what comes next. ``attempt``: what an
        earlier one got no answer about is asked again; the same one in another process only goes on, and without a name
        it is a new one. Raises UserError for what cannot work."""
        self.progress = Progress()
        self._table = table
        self._questionnaire = questionnaire
        self._judge = judge
        self._proxy = proxy
        self._tell = tell
        self._wish = wish
        self._attempt = attempt or secrets.token_hex(8)
        if len(questionnaire.names) > 1:
            raise UserError("A ranking is by one score: leave out the criteria, or rank by one of them.")
        (self._name,) = questionnaire.names
        self._side = parse_cut(wish.cut, self._name) if wish.cut is not None else None
        self._sign = self._side.sign if self._side is not None else 1
        self.goal = goal_of(wish, table.height, self._side)
        if self._side is not None:
            check_cut(self._side, questionnaire.settings.instrument.scale.values)
        self.rounds = wish.rounds
        check_columns(table, self._name, compared=wish.rounds is not None)
        self._truth = truth
        self._truths = truth_values(table, truth) if truth is not None else None
        if self._truths is not None and all(each is None for each in self._truths):
            raise UserError(f"The column '{truth}' for --truth has no right score in any row: leave it out.")

    def run(self, folder: Path) -> Ranked:
        """``folder`` keeps what has been done. Raises UserError, and Interrupted where a signal ended it before."""
        self._begin(folder)
        judging = Judging(folder / "judge", self._judge, self._questionnaire, self._attempt)
        groups: list[Judged] = []
        guesses: Any = None
        step = decide(self.goal, Evidence(None, groups))
        if isinstance(step, Judge) and step.how is How.PILOT:
            pilot = step.rows.tolist()
            stored = stored_guesses(folder)
            # Rows of the pilot that get their score only now teach the proxy anew.
            if stored is None or stored.scored < judging.most_scored(pilot):
                self._proxy.prepare(folder / PROXY_FOLDER, pilot, True, self._attempt)
        over_budget = False
        with self._judge.session():
            while isinstance(step, Judge):
                over_budget = over_budget or self._tells_over_budget(Evidence(guesses, groups))
                groups.append(self._judged(judging, step, len(groups)))
                if step.how is How.PILOT:
                    guesses = self._guesses(folder, groups[0])
                step = decide(self.goal, Evidence(guesses, groups))
            compared_rows = self._compared(step, judging, folder)
        return self._ranked(step, groups, guesses, judging, stored_guesses(folder), compared_rows)

    def about(self, table: str) -> About:
        """For what is told of it; ``table`` by its name."""
        wanted = self._side.text if self._side is not None else None
        parties = Parties(f"{self._judge.model} ({self._judge.place})", self._proxy.told, wanted, self._truth)
        instrument = self._questionnaire.settings.instrument
        return About(table, instrument, self.goal, parties, self._identity, time.time(), self.rounds)

    def pilot(self, folder: Path) -> PilotDone:
        """Only the pilot, by the judge and by the proxy. Raises UserError where there is nothing to plan, and as
        ``run``."""
        self._begin(folder)
        step = decide(self.goal, Evidence(None, []))
        if isinstance(step, NotCertified):
            raise UserError(f"Nothing can be certified: {step.why}")
        if isinstance(step, Certificate) or step.how is not How.PILOT:
            raise UserError(
                f"There is no less than all {self.goal.rows:,} rows that would do, so that every row is judged: score "
                "the table instead (gristmill score)."
            )
        rows = step.rows.tolist()
        self._proxy.prepare(folder / PROXY_FOLDER, rows, False, self._attempt)
        judging = Judging(folder / "judge", self._judge, self._questionnaire, self._attempt)
        with self._judge.session():
            judged = self._judged(judging, step, 0)
        guesses = self._proxy.guesses(self._pilot_of(judged))[step.rows] * self._sign
        length = question_length(self._questionnaire, rows)
        return PilotDone(
            self.goal, self._sign, guesses, judged.scores, judging.batches, self._proxy.batches, self.rounds, length
        )

    def _tells_over_budget(self, evidence: Evidence) -> bool:
        """Whether the budget would have ended it, and it goes on as that is wanted."""
        wish = self._wish
        if not wish.or_all or wish.budget is None:
            return False
        end = decide(self.goal._replace(budget=wish.budget), evidence)
        if not isinstance(end, NotCertified):
            return False
        self._tell(
            f"{end.why} It goes on past that, as is wanted: about {end.would_cost:,} judged rows would do, as far as "
            "can be told."
        )
        return True

    def _judged(self, judging: Judging, step: Judge, number: int) -> Judged:
        numpy = require("numpy", "score")
        self.progress = Progress(sum(self.progress), len(step.rows))
        self._tell(step_sentence(step, number))
        outcomes = judging.outcomes_of(step.rows.tolist(), check_scale=step.how is How.PILOT)
        scores = numpy.array([math.nan if each.score is None else each.score for each in outcomes])
        if number == 0 and numpy.isnan(scores).all():
            judging.forget()
            raise UserError(
                f"{self._judge.model} gave none of the first {len(outcomes):,} rows a score, so that nothing more was "
                f"asked: {outcomes[0].error}"
            )
        # Later, a row that is refused for what it is says nothing about the others.
        unanswered = [each for each in outcomes if each.unanswered and (number == 0 or not each.refused)]
        if len(unanswered) > len(outcomes) / 2:
            which = f"the first {len(outcomes):,} rows" if number == 0 else f"{len(outcomes):,} rows"
            raise UserError(
                f"{self._judge.model} left {len(unanswered):,} of {which} unanswered, so that "
                "nothing more was asked; once this is mended, the same command asks about them again: "
                f"{unanswered[0].error}"
            )
        unknown = step.rows[numpy.array([each.unanswered and not each.refused for each in outcomes])]
        return Judged(step.how, step.rows, scores * self._sign, step.pool, unknown)

    def _pilot_of(self, judged: Judged) -> Pilot:
        return Pilot(judged.rows.tolist(), (judged.scores * self._sign).tolist())

    def _guesses(self, folder: Path, pilot: Judged) -> Any:
        """Of all rows, as they were when they were first needed: what follows depends on every bit."""
        numpy = require("numpy", "score")
        scored = int((~numpy.isnan(pilot.scores)).sum())
        if (stored := stored_guesses(folder)) is None or stored.scored < scored:
            self.progress = Progress(sum(self.progress))
            self._tell(f"Guessing the scores of all {self.goal.rows:,} rows: {self._proxy.told}.")
            found = self._proxy.guesses(self._pilot_of(pilot))
            stored = Guesses.of(scored, found, self._proxy.batches)
            stored.keep(folder)
        return stored.array() * self._sign

    def _ranked(
        self,
        end: Certificate | NotCertified,
        groups: Sequence[Judged],
        guesses: Any,
        judging: Judging,
        stored: Guesses | None,
        compared: Compared | None,
    ) -> Ranked:
        numpy = require("numpy", "score")
        how = {row: FOUND[group.how] for group in groups for row in group.rows.tolist()}
        rows = compared.order if compared is not None else _listed(end)
        method = self._questionnaire.settings.method.name
        outcomes = [judging.outcomes.get(row) or Outcome(method) for row in rows]
        found = [how.get(row, ACCEPTED) for row in rows]
        guessed = (guesses[numpy.array(rows, dtype=int)] * self._sign).tolist() if guesses is not None else None
        table = listing(self._table, self._name, rows, outcomes, found, guessed, compared)
        pilot = next((group for group in groups if group.how is How.PILOT), None)
        correlation = None
        if pilot is not None and guesses is not None:
            correlation = spearman(guesses[pilot.rows], pilot.scores)
        proxy_batches = stored.batches if stored is not None else []
        truth = None
        if self._truths is not None:
            truth = check_against_truth(self._truths, rows, self.goal.top, self.goal.cut, self._sign)
        return Ranked(table, rows, outcomes, found, end, correlation, judging.batches, proxy_batches, truth, compared)

    def _compared(self, end: Certificate | NotCertified, judging: Judging, folder: Path) -> Compared | None:
        """In rounds, where they are wanted and there is something to compare."""
        rows = _listed(end)
        if self.rounds is None or not isinstance(end, Certificate) or not 2 <= len(rows) <= MOST_COMPARED:
            return None
        self.progress = Progress(sum(self.progress))
        answered = compare_in_rounds(
            folder / "rounds",
            self._judge,
            self._questionnaire,
            rows,
            self.rounds,
            self.goal.seed,
            self._attempt,
            self._tell,
        )
        outcomes = [judging.outcomes.get(row) for row in rows]
        scores = [each.score if each is not None else None for each in outcomes]
        return compared(answered, self.rounds, rows, scores, self._truths, self.goal.confidence, self._sign)

    def _begin(self, folder: Path) -> None:
        """Or go on."""
        check_identity(folder, self._identity, has_guesses=stored_guesses(folder) is not None)

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        return identity_of(self._questionnaire, self._judge, self._proxy, self.goal, self._sign)


def _listed(end: Certificate | NotCertified) -> list[int]:
    """The rows found, by their scores; then those that were accepted unjudged."""
    accepted = end.accepted.tolist() if isinstance(end, Certificate) else []
    return [*end.facts.best.tolist(), *accepted]
