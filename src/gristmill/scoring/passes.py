"""The passes over the questions: each is a batch, run here or on a server, and its outcomes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.prompt import GENERATE, Instrument, Method, shared_body
from gristmill.scoring.questions import Question, read_outcomes, write_questions
from gristmill.telemetry.log import get_logger
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

log = get_logger(__name__)

#: An answer that may differ from the one that was not valid.
RETRY = {"temperature": 0.5, "seed": 1}
#: Answers after which it is told whether a model keeps to the scale, where there are more than so many to come.
_FIRST, _MANY = 50, 200


class PassSettings(NamedTuple):
    """A question whose outcome by ``labels`` has more than ``most_off_scale`` probability off the scale is asked again,
    to ``generate``."""

    instrument: Instrument
    method: Method
    most_off_scale: float = 0.5


class Passes:
    """Asks one backend in at most four passes: the first questions, to see whether the model keeps to the scale;
    everything; what the labels cannot say, to generate; what was no valid answer, once more. Each is a batch of its
    own, and resumes."""

    def __init__(
        self,
        folder: Path,
        backend: ScoreBackend,
        settings: PassSettings,
        text_of: Callable[[int], str],
        check_scale: bool = True,
    ) -> None:
        """``check_scale``: whether the first questions are asked by themselves to see that."""
        self._folder = folder
        self._backend = backend
        self._settings = settings
        self._text_of = text_of
        self._checks_scale = check_scale
        self.batches: list[Batch] = []

    def outcomes(self, questions: Iterator[Question], method: Method) -> Iterable[tuple[Question, Outcome]]:
        """Of each question that was answered or failed, once. Raises UserError where most of the first answers are off
        the scale: all the others would be asked twice."""
        found: dict[Question, Outcome] = {}
        first = list(itertools.islice(questions, _MANY + 1))
        if not first:
            return found.items()
        if self._checks_scale and len(first) > _MANY and method is not GENERATE:
            found.update(self._pass("0-first", first[:_FIRST], method))
            self._check_scale(found)
            first = first[_FIRST:]
        found.update(self._pass("1", itertools.chain(first, questions), method))
        # In the order of the rows: asking the same again must be the same batch.
        off_scale = sorted(each for each, outcome in found.items() if self._is_off_scale(outcome))
        if off_scale:
            if len(off_scale) > len(found) / 2:
                log.warning(
                    "most answers are off the scale and asked for once more, written out",
                    answers=len(found), off_scale=len(off_scale), model=self._backend.model,
                )  # fmt: skip
            for question, outcome in self._pass("2-off-scale", off_scale, GENERATE):
                before = found[question]
                found[question] = msgspec.structs.replace(outcome, entropy=before.entropy, off_scale=before.off_scale)
        invalid = sorted(each for each, outcome in found.items() if outcome.invalid)
        if invalid:
            found.update(self._pass("3-again", invalid, GENERATE, RETRY))
        return found.items()

    def _pass(
        self, name: str, questions: Iterable[Question], method: Method, changes: dict[str, Any] | None = None
    ) -> Iterator[tuple[Question, Outcome]]:
        """Ask, or go on asking. ``changes`` are body parameters that differ from the method's own."""
        folder, instrument, backend = self._folder / name, self._settings.instrument, self._backend
        folder.mkdir(parents=True, exist_ok=True)
        input_file = folder / "questions.jsonl"
        rows = write_questions(input_file, questions, self._text_of, instrument, method, backend.model)
        shared = shared_body(instrument, method) | (changes or {})
        digest = hashlib.sha256(msgspec.json.encode(shared)).hexdigest()
        identity = {"table or row template": rows, "rubric, scale or examples": digest, "method": method.name}
        done = backend.run(folder, input_file, method.endpoint, shared, identity)
        self.batches.append(done.batch)
        return read_outcomes(done.files, instrument, method)

    def _check_scale(self, found: dict[Question, Outcome]) -> None:
        off_scale = sum(self._is_off_scale(outcome) for outcome in found.values())
        if off_scale > len(found) / 2:
            raise UserError(
                f"Of the first {len(found)} answers of {self._backend.model}, {off_scale} are off the scale, so that "
                "nothing more was asked: a model that was not tuned to follow instructions answers like that. Use one "
                "that was, show it what is wanted with --examples, or have the scores written out with --method "
                "generate. With --most-off-scale 1 the labels' probabilities are taken as they are."
            )

    def _is_off_scale(self, outcome: Outcome) -> bool:
        return outcome.off_scale is not None and outcome.off_scale > self._settings.most_off_scale
