"""Scores guessed from embeddings: ridge regression over the vectors of the rows, trained on the pilot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gristmill.extras import require
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.rank.proxies import Pilot
from gristmill.scoring.rank.ridge import Ridge
from gristmill.scoring.rank.row_vectors import RowVectors
from gristmill.telemetry.log import get_logger
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

log = get_logger(__name__)

_PILOT, _OTHERS = "pilot", "others"


class EmbeddingsProxy:
    """A model that embeds is asked for the vector of every row. Only those of the pilot are ever in memory together."""

    def __init__(self, questionnaire: Questionnaire, backend: ScoreBackend) -> None:
        """Raises UserError."""
        require("numpy", "score")
        self.told = f"ridge regression over embeddings by {backend.model} ({backend.place}), trained on the pilot"
        self.identity = {"embeddings": backend.model, "place": backend.place}
        self._backend = backend
        self._questionnaire = questionnaire
        self._vectors: RowVectors | None = None

    def prepare(self, folder: Path, rows: Sequence[int], every: bool, attempt: str) -> None:
        vectors = self._vectors = RowVectors(folder, self._backend, self._questionnaire)
        with self._backend.session():
            # Apart, so that a plan has asked for them, and that they are found without reading all others.
            vectors.ask(_PILOT, sorted(rows))
            if next(vectors.read(_PILOT), None) is None:
                vectors.forget()
                raise UserError(
                    f"{self._backend.model} gave no row of the pilot a vector, so that it cannot be the proxy: "
                    f"{vectors.error or 'they have no text'}"
                )
            if every:
                vectors.ask(_OTHERS, sorted(set(range(self._questionnaire.rows)).difference(rows)))
        if vectors.failed:
            log.warning(
                "some rows could not be embedded: nothing is guessed of them, and they are judged first",
                rows=vectors.failed, model=self._backend.model, error=vectors.error,
            )  # fmt: skip

    def guesses(self, pilot: Pilot) -> Any:
        numpy = require("numpy", "score")
        vectors, rows = self._vectors, self._questionnaire.rows
        assert vectors is not None
        of_pilot = {row: vector for row, vector, _ in vectors.read(_PILOT)}
        size = next(iter(of_pilot.values())).size
        of_pilot = {row: vector for row, vector in of_pilot.items() if vector.size == size}
        lesson = pilot.lesson("embeddings", of_pilot)
        known = numpy.array([of_pilot[row] for row, _ in lesson], float)
        scores = numpy.array([score for _, score in lesson])
        ridge = Ridge.through(known @ known.T, scores)
        weights, intercept = ridge.line(known, scores)
        found = numpy.full(rows, numpy.nan)
        for row, vector, _ in vectors.read(_PILOT, _OTHERS):
            if vector.size == size:
                found[row] = vector @ weights + intercept
        found[[row for row, _ in lesson]] = ridge.held_out
        return found

    @property
    def batches(self) -> Sequence[Batch]:
        return self._vectors.batches if self._vectors is not None else ()
